"""Experiments: assignment, bandits, the decision log, and the statistics of their outcome."""
