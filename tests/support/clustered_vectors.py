"""Vectors that lie together, as those of a catalogue do."""

import numpy as np


def clustered(num_items: int, dim: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((50, dim))
    vectors = centres[rng.integers(0, 50, num_items)] + 0.3 * rng.standard_normal((num_items, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
