"""Models that remember the log, or how often its rows meet: popularity, neighbours, EASE."""
