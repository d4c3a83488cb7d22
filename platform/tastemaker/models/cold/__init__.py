"""Models that know an item before anyone took it, and a person after an event or none."""
