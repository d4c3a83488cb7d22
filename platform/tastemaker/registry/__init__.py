"""Versions, aliases, promotion gates and their history. Not for the bytes of a bundle."""
