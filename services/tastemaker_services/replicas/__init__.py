"""A stage's own process: what it holds, and what it does with a call."""
