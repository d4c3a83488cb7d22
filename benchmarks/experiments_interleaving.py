"""How much less traffic a team draft takes than a split of the same people, whose clicks are drawn from their tastes.

Each person likes some of the items; both rankers see that through noise, ranker 1 through less. A person comes several times, clicks more or
less than others do, and looks further down or not. Both ways of asking have the same people, lists and luck: the split shows each one
ranker's list, the draft both's picks. Power against the number of people is what a normal estimate of the mean over its error
says; the two standardised effects, and so the ratio of traffic, are estimated from many simulated experiments.
"""

from functools import partial

import numpy as np
import numpy.typing as npt
from experiments_runs import share, simulate
from turns import Effort, Part

from tastemaker.experiments.interleaving import team_draft, winner
from tastemaker.experiments.statistics.influence import difference
from tastemaker.experiments.statistics.preference import verdict
from tastemaker.experiments.statistics.ratios import UnitTotals, ratio_influence

NUM_ITEMS, K, VISITS, NUM_PEOPLE = 30, 8, 2, 300
NOISE = 1.5
GAINS = (0.4, 0.8, 1.2)
"""By how much less noise ranker 1 sees tastes; 0 is an A/A."""
NUM_EXPERIMENTS = 400
TARGET_RATIO = 1.0
Array = npt.NDArray[np.float64]


def interleaving(effort: Effort) -> Part:
    part = Part(
        "Team draft beside a split of the same people",
        (
            "ranker 1 sees tastes with", "lift in clicks", "preference", "draft finds it", "split finds it",
            "people that a split takes, to the draft's",
        ),
    )  # fmt: skip
    count = max(100, NUM_EXPERIMENTS // effort.divide)
    for gain in (0.0, *GAINS):
        found = simulate(partial(_experiment, gain), count, seed=11)
        draft_p, draft_z, split_p, split_z, preference, lift = found.T
        drafted, split = share(draft_p < 0.05), share(split_p < 0.05)
        name = f"{gain / NOISE:.0%} less noise" if gain else "the same noise"
        ratio, low, high = _ratio(draft_z, split_z)
        cells = (f"{lift.mean():+.1%}", f"{preference.mean():+.3f}", drafted, split)
        part.rows.append((name, *cells, f"{ratio:.1f} [{low:.1f}, {high:.1f}]" if gain else ""))
        if gain:
            part.target(
                f"people that a split takes to the draft's, {name}, lower end", low, TARGET_RATIO, "higher"
            )
        else:
            part.target(
                "false alarms of the draft, of 5%",
                float((draft_p < 0.05).mean()),
                0.05 + _noise(count),
                "lower",
            )
    part.notes.append(
        f"{count:,} experiments a line of {NUM_PEOPLE} people who come {VISITS} times, lists of {K} of {NUM_ITEMS} items. A test's z grows with "
        "the root of the number of people, so that the ratio of traffic for the same power is the square of the ratio of the mean z; in brackets 95% by "
        "bootstrap. How much a draft saves depends on how far people differ: the more, the more. It tells who is preferred, not the lift."
    )
    return part


def _noise(count: int) -> float:
    """Two standard errors of a share of 5%."""
    return float(2 * np.sqrt(0.05 * 0.95 / count))


def _ratio(draft_z: Array, split_z: Array) -> tuple[float, float, float]:
    """Square of the ratio of mean z, with 95% by bootstrap over experiments, each taken with both."""
    rows = np.random.default_rng(0).integers(0, len(draft_z), (2_000, len(draft_z)))
    means = draft_z[rows].mean(axis=1), np.maximum(split_z[rows].mean(axis=1), 1e-3)
    low, high = np.quantile((means[0] / means[1]) ** 2, (0.025, 0.975))
    return float((draft_z.mean() / max(split_z.mean(), 1e-3)) ** 2), float(low), float(high)


def _experiment(gain: float, rng: np.random.Generator) -> tuple[float, ...]:
    winners, units = [], []
    clicks_UV, lists_UV = np.zeros((NUM_PEOPLE, 2)), np.zeros((NUM_PEOPLE, 2))
    for n in range(NUM_PEOPLE):
        taste_I, eager = rng.normal(0, 1, NUM_ITEMS), rng.gamma(2.0, 0.15)
        arm = n % 2
        for visit in range(VISITS):
            lists = [_ranked(taste_I, noise, rng) for noise in (NOISE, NOISE - gain)]
            luck_K = rng.random(K)
            draft = team_draft(*lists, K, "s", f"{rng.integers(2**62)}-{visit}")
            winners.append(winner(draft, _clicked(draft.items, taste_I, eager, luck_K)))
            units.append(str(n))
            clicks_UV[n, arm] += len(_clicked(lists[arm], taste_I, eager, luck_K))
            lists_UV[n, arm] += 1
    found = verdict(units, winners)
    apart = ratio_influence(UnitTotals(clicks_UV, lists_UV))
    split = difference(apart, 0, 1)
    error = (found.preference - found.low) / 1.959964
    return (
        found.p_value, found.preference / error, split.p_value, split.value / split.standard_error, found.preference,
        split.value / apart.value_V[0],
    )  # fmt: skip


def _ranked(taste_I: Array, noise: float, rng: np.random.Generator) -> list[int]:
    order: list[int] = np.argsort(-(taste_I + rng.normal(0, noise, NUM_ITEMS)))[:K].tolist()
    return order


def _clicked(items: tuple[int, ...] | list[int], taste_I: Array, eager: float, luck_K: Array) -> set[int]:
    """Places that are clicked: who looks that far, and likes what stands there."""
    chance_K = eager * 0.85 ** np.arange(len(items)) / (1 + np.exp(-2 * taste_I[list(items)]))
    return set(np.flatnonzero(luck_K[: len(items)] < chance_K).tolist())
