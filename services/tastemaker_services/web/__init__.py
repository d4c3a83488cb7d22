"""What all HTTP routes share: keys, bodies as models, problems as answers."""
