"""What an experiment's numbers say: pure functions over what units did."""
