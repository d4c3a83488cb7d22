"""What models read of items and histories, and the examples that they train on."""
