"""Tuning: a study's record, its trials, the search, and what people see of it."""
