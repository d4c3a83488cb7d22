"""Worlds with a known truth that bandits are tried in. NumPy alone: those who are compared run it in an environment of their own.

Every round is a visitor, a second after the one before. Which arms would be rewarded is drawn once for all arms and every round,
so that whoever plays meets the same visitors and the same luck (paired seeds). Policies learn in batches of `BATCH` rounds,
as a router that reads a snapshot every few seconds does, and in the delayed world from what is `DELAY` rounds old.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Shapes: T rounds, A arms, D places of the context.

BATCH = 20
DELAY = 600
NUM_ARMS = 4
DEVICES, COUNTRIES, USERS = 3, 4, 2
DIMENSION = 1 + DEVICES + COUNTRIES + USERS
RATES = (0.08, 0.10, 0.12, 0.15)

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """One seed's world: what each arm's success probability is in each round, and whether it would succeed.

    `delay` is after how many rounds a reward is known. `context_TD` is 0 or 1, place 0 always 1.
    """

    rate_TA: Array
    reward_TA: Array
    context_TD: Array
    delay: int

    def regret(self, arm_T: npt.NDArray[np.int64]) -> float:
        """Expected successes that the arms that were played missed."""
        best = self.rate_TA.max(axis=1)
        return float((best - self.rate_TA[np.arange(len(arm_T)), arm_T]).sum())


def make(kind: str, seed: int, num_rounds: int) -> World:
    """The world of a kind: stationary, drifting or delayed, `-context` behind where the best arm depends on the visitor."""
    generator = np.random.default_rng([seed, len(kind)])
    context_TD = _contexts(generator, num_rounds)
    if kind.endswith("-context"):
        rate_TA = _in_context(generator, context_TD)
    else:
        rate_TA = np.tile(generator.permutation(RATES), (num_rounds, 1))
    if kind.startswith("drifting"):
        rate_TA = _drifting(generator, rate_TA)
    reward_TA = (generator.random(rate_TA.shape) < rate_TA).astype(float)
    return World(rate_TA, reward_TA, context_TD, DELAY if kind.startswith("delayed") else 0)


def _contexts(generator: np.random.Generator, num_rounds: int) -> Array:
    context_TD = np.zeros((num_rounds, DIMENSION))
    context_TD[:, 0] = 1
    first = 1
    for size in (DEVICES, COUNTRIES, USERS):
        context_TD[np.arange(num_rounds), first + generator.integers(0, size, num_rounds)] = 1
        first += size
    return context_TD


def _in_context(generator: np.random.Generator, context_TD: Array) -> Array:
    effect_AD = generator.normal(0, 0.06, (NUM_ARMS, DIMENSION))
    effect_AD[:, 0] = 0.2
    return np.clip(context_TD @ effect_AD.T, 0.01, 0.9)


def _drifting(generator: np.random.Generator, rate_TA: Array) -> Array:
    """The arms change places three times."""
    moved = rate_TA.copy()
    for quarter in range(1, 4):
        start = quarter * len(rate_TA) // 4
        moved[start:] = np.roll(moved[start:], 1 + generator.integers(0, NUM_ARMS - 1), axis=1)
    return moved


def known_until(world: World, round_: int) -> int:
    """How many rounds' rewards are known when round number `round_` is played."""
    return max(0, (round_ - world.delay) // BATCH * BATCH)
