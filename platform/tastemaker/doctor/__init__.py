"""Looks at a running installation from outside, says what is wrong with it, and packs what support needs to know."""
