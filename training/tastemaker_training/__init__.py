"""What runs and ends: Ray Train jobs, tuning, publishing, schedules."""
