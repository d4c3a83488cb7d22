"""Models of the chance of a click (or of any yes and no) from rows of features."""
