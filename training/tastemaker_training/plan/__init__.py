"""What a training is told before it starts: the recipe, its search spaces, and whether the data may be trained on."""
