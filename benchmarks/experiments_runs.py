"""Many simulated experiments over all cores: each chunk has a seed of its own, so that results do not depend on the cores."""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import numpy.typing as npt

CHUNK = 100
Simulated = npt.NDArray[np.float64]


def simulate(one: Callable[[np.random.Generator], tuple[float, ...]], count: int, seed: int) -> Simulated:
    """What each of `count` experiments found, one row each."""
    sizes = [min(CHUNK, count - start) for start in range(0, count, CHUNK)]
    seeds = np.random.SeedSequence(seed).spawn(len(sizes))
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        return np.concatenate(list(pool.map(partial(_chunk, one), sizes, seeds)))


def share(found: Simulated) -> str:
    """A share of experiments with two standard errors."""
    mean = float(np.mean(found))
    return f"{mean:.2%} ± {2 * np.sqrt(mean * (1 - mean) / len(found)):.2%}"


def _chunk(
    one: Callable[[np.random.Generator], tuple[float, ...]], size: int, seed: np.random.SeedSequence
) -> Simulated:
    rng = np.random.default_rng(seed)
    return np.array([one(rng) for _ in range(size)], dtype=np.float64)
