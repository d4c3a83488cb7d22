"""Vector search. Not for what the vectors mean."""
