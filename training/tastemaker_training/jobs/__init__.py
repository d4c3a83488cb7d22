"""What schedules and people run beside trainings: batch lists, users' vectors, audiences, the nightly retrain."""
