"""Bandit policies: pure functions of mergeable statistics to the weight of each arm. They know nothing of experiments."""
