"""The library's own commands, one noun a file; each is a few lines around a function of the part it names."""
