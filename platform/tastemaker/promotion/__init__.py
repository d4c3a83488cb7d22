"""How a version earns its place: gates that say yes, no or not yet, and the sequence that asks them before an alias moves."""
