"""Models of sequences: what comes next, from what came before and in which order.

`model` is what they share as recommenders, `fitting` how they learn, `token_batch` how sequences of unequal length are laid so
that no arithmetic is spent on padding; each encoder has a file of its own.
"""
