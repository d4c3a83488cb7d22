"""From the decision log and events to what an experiment says of itself."""
