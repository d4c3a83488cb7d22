"""The fits that ranks run: the loop, and what the two-tower and the ranker put into it."""
