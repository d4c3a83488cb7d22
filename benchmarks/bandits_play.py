"""Our policies in the worlds of `bandits_worlds`: the same functions that a router calls, with the same statistics that a joiner sums up."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from bandits_worlds import BATCH, DIMENSION, NUM_ARMS, Array, World, known_until, make

from tastemaker.events.attribution import Outcome
from tastemaker.experiments.allocation import (
    Adaptive,
    Contextual,
    EpsilonGreedy,
    LinThompson,
    LinUcb,
    Thompson,
    Ucb1,
    shares,
)
from tastemaker.experiments.posterior import Posterior, increments

ROUND_MS = 1000
NAMES = tuple(f"arm{n}" for n in range(NUM_ARMS))
FLOOR = 0.001
"""The least that anybody should set: at 0 there is no off-policy estimate."""
HALF_LIFE_SECONDS = 300.0
EPOCH_SECONDS, WINDOW_SECONDS = 60, 600
SHARPNESS = 3.0
"""Where rewards come late: chosen in the delayed world of seeds 1000 to 1399, of 1.5, 2, 3 and 4."""


def policies(kind: str) -> dict[str, Adaptive]:
    """Those that the world is for; the first is what docs/experiments-policies.md recommends there."""
    half_life = HALF_LIFE_SECONDS if kind.startswith("drifting") else None
    if kind.endswith("-context"):
        found: dict[str, Adaptive] = {
            "lin-thompson": LinThompson(floor=FLOOR, dimension=DIMENSION, deviation=0.2),
            "lin-ucb": LinUcb(floor=FLOOR, dimension=DIMENSION, exploration=0.2),
        }
    else:
        found = {
            "thompson": Thompson(floor=FLOOR),
            "ucb1": Ucb1(floor=FLOOR, exploration=0.3),
            "epsilon-greedy .05": EpsilonGreedy(floor=FLOOR, epsilon=0.05),
        }
    if kind == "delayed":
        found = {"thompson sharpness 3": Thompson(floor=FLOOR, sharpness=SHARPNESS)} | found
    first = next(iter(found))
    found[f"{first}, floor .05"] = found[first].model_copy(update={"floor": 0.05})
    if half_life is None:
        return found
    kept = {f"{name}, no half life": policy for name, policy in found.items() if name == first}
    windowed = {"epoch_seconds": EPOCH_SECONDS, "window_seconds": WINDOW_SECONDS}
    kept[f"{first}, window"] = found[first].model_copy(update=windowed)
    return {
        name: policy.model_copy(update={"half_life_seconds": half_life}) for name, policy in found.items()
    } | kept


def play(policy: Adaptive, world: World, seed: int) -> float:
    """The policy's regret; it learns and draws as the router and the joiner do."""
    generator = np.random.default_rng([seed, 7])
    arm_T = np.zeros(len(world.rate_TA), np.int64)
    sums: dict[str, float] = {}
    known = 0
    for begin in range(0, len(arm_T), BATCH):
        until = known_until(world, begin)
        for past in range(known, until):
            _learn(sums, policy, world, past, int(arm_T[past]))
        known = max(known, until)
        fields = {name: repr(value) for name, value in sums.items()}
        posterior = Posterior.decode(fields | {"newest_ms": str(known * ROUND_MS)})
        rounds = range(begin, min(begin + BATCH, len(arm_T)))
        share_RA = _shares(policy, posterior, [_context(policy, world.context_TD[r]) for r in rounds])
        edges_RA = share_RA.cumsum(axis=1)
        arm_T[begin : rounds.stop] = np.minimum(
            (generator.random(len(rounds))[:, None] >= edges_RA).sum(axis=1), NUM_ARMS - 1
        )
    return world.regret(arm_T)


def _learn(sums: dict[str, float], policy: Adaptive, world: World, past: int, arm: int) -> None:
    context = _context(policy, world.context_TD[past])
    reward = float(world.reward_TA[past, arm])
    outcome = Outcome("bandit", NAMES[arm], reward, past * ROUND_MS, context)
    for name, value in increments(outcome, policy, is_real=False):
        sums[name] = sums.get(name, 0.0) + value


def _context(policy: Adaptive, context_D: Array) -> tuple[int, ...]:
    return tuple(np.flatnonzero(context_D).tolist()) if isinstance(policy, Contextual) else ()


def _shares(
    policy: Adaptive, posterior: Posterior, contexts: Sequence[tuple[int, ...]]
) -> npt.NDArray[np.float64]:
    known = {context: shares(policy, posterior, NAMES, context) for context in set(contexts)}
    return np.array([known[context] for context in contexts])


def regrets(kind: str, seeds: Sequence[int], num_rounds: int) -> dict[str, dict[str, float]]:
    """Regret of each policy by seed."""
    found: dict[str, dict[str, float]] = {}
    for seed in seeds:
        world = make(kind, seed, num_rounds)
        for name, policy in policies(kind).items():
            found.setdefault(name, {})[str(seed)] = play(policy, world, seed)
    return found
