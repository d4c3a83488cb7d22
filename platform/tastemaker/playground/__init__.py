"""The demo: the main job end to end on real data, by the same commands that a user types."""
