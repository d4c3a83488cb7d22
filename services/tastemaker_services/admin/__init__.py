"""The listener for those who run the platform, and what it serves."""
