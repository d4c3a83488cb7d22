"""Models of users and items as vectors: matrix factorisation, and the networks that grew from it."""
