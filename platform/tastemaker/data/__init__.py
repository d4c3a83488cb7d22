"""Imported data: its schema, where it comes from, how splits go by time, and the simulated world."""
