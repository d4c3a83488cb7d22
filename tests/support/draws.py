"""Simulated draws of arms, and how near a share of them is to its chance."""

from typing import Any

import numpy as np

DRAWS = 400_000
FOUR_DEVIATIONS = 4 * 0.5 / DRAWS**0.5


def share_of_largest(draws: Any) -> Any:
    return np.bincount(draws.argmax(axis=1), minlength=draws.shape[1]) / len(draws)
