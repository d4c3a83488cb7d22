"""The bundle versions that a process holds: fetched, tried, kept in step with what is live."""
