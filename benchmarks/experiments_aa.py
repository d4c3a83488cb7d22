"""A/A experiments that are looked at after every 100 users, and what watching costs in power.

Each experiment is simulated visit by visit and judged at each look from its visitors' totals, as a report does. Nothing differs
between its variants, so that every difference that is called one is false.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
from experiments_runs import share, simulate
from turns import Effort, Part

from tastemaker.errors import ExperimentError
from tastemaker.experiments.statistics.influence import lift
from tastemaker.experiments.statistics.planning import plan, variation_of
from tastemaker.experiments.statistics.ratios import UnitTotals, ratio_influence
from tastemaker.experiments.statistics.sequential import Boundary, Looks
from tastemaker.types import Float64, Int64

NUM_EXPERIMENTS, NUM_LOOKS, USERS_A_LOOK = 10_000, 40, 100
EFFECT = 0.25
"""That boundaries are tuned to: what so many visitors can show. Larger experiments are safer, their looks come earlier in the plan."""
POWER_EXPERIMENTS, POWER_EFFECT = 2000, 0.2
RATE, ALIKE = 0.1, 3.0
"""Visitors' rates of clicks are Beta(RATE ALIKE, (1 - RATE) ALIKE)."""


@dataclass(frozen=True)
class World:
    """How visitors come: `again` visits a look on average of who came before, times a lognormal of deviation `uneven`.

    With `spend` a click is a purchase, of lognormal size with that deviation.
    """

    name: str
    again: float
    uneven: float
    at_first: int = USERS_A_LOOK
    spend: float = 0.0

    def arrived(self, look: int) -> int:
        """Visitors until the end of a look, from 0; by the last all worlds have as many."""
        most = NUM_LOOKS * USERS_A_LOOK
        return self.at_first + (most - self.at_first) * look // (NUM_LOOKS - 1)


WORLDS = (
    World("visitors come once", again=0.0, uneven=0.0),
    World("visitors return", again=0.3, uneven=1.0),
    World("most come at first, few of them often", again=0.3, uneven=1.5, at_first=2000),
    World("purchases, few of them large", again=0.0, uneven=0.0, spend=2.0),
)
METHODS = (
    "always valid, by visitor",
    "fixed, by visitor",
    "always valid, visits as if independent",
    "fixed, visits as if independent",
    "fixed, by visitor, last look alone",
)


def false_positives(effort: Effort) -> Part:
    part = Part(
        f"A/A experiments, looked at after every {USERS_A_LOOK} users",
        ("called different", *[w.name for w in WORLDS]),
    )
    count = max(100, NUM_EXPERIMENTS // effort.divide)
    found = {world.name: simulate(partial(watched, world), count, seed=1) for world in WORLDS}
    for m, method in enumerate(METHODS):
        part.rows.append((method, *[share(rows[:, m]) for rows in found.values()]))
    for name, rows in found.items():
        part.target(
            f"false positives, watched, always valid, {name}", float(rows[:, 0].mean()), 0.05, "lower"
        )
        part.target(f"the same, fixed test at each look, {name}", float(rows[:, 1].mean()), 0.1, "higher")
    for name in (WORLDS[1].name, WORLDS[2].name):
        rows = found[name]
        part.target(
            f"the same, always valid but unclustered, {name}", float(rows[:, 2].mean()), 0.1, "higher"
        )
    part.notes.append(
        f"{count:,} experiments a world, {NUM_LOOKS} looks, {NUM_LOOKS * USERS_A_LOOK:,} visitors; clicks by visit, rates "
        f"Beta({RATE * ALIKE:g}, {(1 - RATE) * ALIKE:g}) between visitors; boundaries tuned to an effect of {EFFECT:.0%}. ± two standard errors."
    )
    part.figures = {name: rows.mean(axis=0).tolist() for name, rows in found.items()}
    return part


def power(effort: Effort) -> Part:
    """Visitors with several visits each, planned from a pilot, at the planned sizes."""
    rng = np.random.default_rng(2)
    pilot = ratio_influence(_totals(*_visitors(rng, 200_000, POWER_EFFECT)))
    variation = variation_of(pilot)
    sequential, fixed = (plan(POWER_EFFECT, variation, sequential=kind) for kind in (True, False))
    count = max(100, POWER_EXPERIMENTS // effort.divide)
    watched = simulate(partial(_watched_effect, sequential.units), count, seed=3)
    once = simulate(partial(_one_look, fixed.units), count, seed=4)
    part = Part(
        f"Power for an effect of {POWER_EFFECT:.0%}", ("test", "units at most", "units on average", "found")
    )
    part.rows.append(
        (
            "always valid, 20 looks",
            f"{sequential.units:,}",
            f"{watched[:, 1].mean():,.0f}",
            share(watched[:, 0]),
        )
    )
    part.rows.append(("fixed, one look", f"{fixed.units:,}", f"{fixed.units:,}", share(once[:, 0])))
    early = watched[watched[:, 1] <= fixed.units, 0].sum() / count
    part.target("power of the watched test at its planned size", float(watched[:, 0].mean()), 0.78, "higher")
    part.target("power of the fixed test at its planned size", float(once[:, 0].mean()), 0.78, "higher")
    part.notes.append(
        f"Both planned for a power of 80% from a pilot (variation {variation:.2f}). Watching takes {sequential.units / fixed.units:.2f} times the "
        f"units at most and {watched[:, 1].mean() / fixed.units:.2f} times on average; at the fixed test's size it has found {early:.0%}."
    )
    return part


def watched(world: World, rng: np.random.Generator) -> tuple[float, ...]:
    """Whether each method ever called a difference in one experiment without any."""
    num = NUM_LOOKS * USERS_A_LOOK
    variant_U, rate_U = rng.integers(0, 2, num), rng.beta(RATE * ALIKE, (1 - RATE) * ALIKE, num)
    often_U = world.again * rng.lognormal(-(world.uneven**2) / 2, world.uneven, num)
    totals, squares = UnitTotals(np.zeros((num, 2)), np.zeros((num, 2))), np.zeros(2)
    boundary = Boundary.for_effect(np.log1p(EFFECT))
    looks, called, before = Looks(boundary, 0, 1), np.zeros(5, bool), 0
    for look in range(NUM_LOOKS):
        arrived = world.arrived(look)
        again_U = rng.poisson(often_U[:before])
        came = np.r_[np.flatnonzero(again_U), before:arrived]  # who was there already, and who is new
        visits = np.r_[again_U[again_U > 0], np.ones(arrived - before, int)]
        before = arrived
        clicks = rng.binomial(visits, rate_U[came])
        earned = clicks * rng.lognormal(0, world.spend, len(came)) if world.spend else clicks
        totals.numerator_UV[came, variant_U[came]] += earned
        totals.denominator_UV[came, variant_U[came]] += visits
        # A visit has one click or none, and one purchase or none.
        squares += np.bincount(variant_U[came], earned**2 if world.spend else earned, 2)
        try:
            called |= _calls(looks, totals, squares)
        except ExperimentError:
            continue  # no click yet in a variant
    called[4] = lift(ratio_influence(totals), 0, 1).p_value < 0.05
    return tuple(called.astype(float))


def _calls(looks: Looks, totals: UnitTotals, squares: Float64) -> np.ndarray:
    influence = ratio_influence(totals)
    valid, fixed = looks.look(influence), lift(influence, 0, 1)
    earned, visits = totals.numerator_UV.sum(axis=0), totals.denominator_UV.sum(axis=0)
    error = float(np.sqrt((squares / earned**2 - 1 / visits).sum()))  # of the log lift, each visit for itself
    log_lift = abs(np.log1p(fixed.value))
    return np.array(
        [
            not valid.low <= 0 <= valid.high,
            fixed.p_value < 0.05,
            log_lift > looks.boundary.margin(error),
            log_lift > 1.96 * error,
            False,
        ]
    )


def _visitors(rng: np.random.Generator, num: int, effect: float) -> tuple[Int64, Float64, Float64]:
    variant_U, rate_U = rng.integers(0, 2, num), rng.beta(RATE * ALIKE, (1 - RATE) * ALIKE, num)
    visits_U = 1 + rng.poisson(rng.gamma(1.0, 2.0, num))
    # Some of the control's clicks are taken away: rates stay below 1.
    kept_U = np.where(variant_U == 1, 1.0, 1 / (1 + effect))
    return variant_U, rng.binomial(visits_U, rate_U * kept_U).astype(float), visits_U.astype(float)


def _watched_effect(num: int, rng: np.random.Generator) -> tuple[float, ...]:
    variant_U, clicks_U, visits_U = _visitors(rng, num, POWER_EFFECT)
    looks = Looks(Boundary.for_effect(np.log1p(POWER_EFFECT)), 0, 1)
    for end in np.linspace(0, num, 21)[1:].astype(int):
        here_U = np.arange(num) < end
        found = looks.look(ratio_influence(_totals(variant_U, clicks_U * here_U, visits_U * here_U)))
        if found.low > 0:
            return 1.0, float(end)
    return 0.0, float(num)


def _one_look(num: int, rng: np.random.Generator) -> tuple[float, ...]:
    found = lift(ratio_influence(_totals(*_visitors(rng, num, POWER_EFFECT))), 0, 1)
    return (float(found.low > 0),)


def _totals(variant_U: Int64, clicks_U: Float64, visits_U: Float64) -> UnitTotals:
    in_UV = np.eye(2)[variant_U]
    return UnitTotals(in_UV * clicks_U[:, None], in_UV * visits_U[:, None])
