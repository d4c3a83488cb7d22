"""A whole training run: its steps, its record and table, and how it is released."""
