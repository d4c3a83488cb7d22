"""Wrong splits that are found, and false alarms: under fixed splits and ramps, and where a bandit moves the traffic.

The bandit is Thompson sampling with a floor that learns from an A/A world whose visitors change: later ones click more. Plain
means then mistake the time at which a variant was preferred for its merit; weighted ones must not.
"""

import numpy as np
from experiments_runs import Simulated, share, simulate
from turns import Effort, Part

from tastemaker.experiments.policies.quadrature import largest_of_betas
from tastemaker.experiments.statistics.adaptive import adaptive_influence
from tastemaker.experiments.statistics.influence import difference, lift
from tastemaker.experiments.statistics.ratios import ratio_influence, unit_totals
from tastemaker.experiments.statistics.sequential import Boundary, Looks, cumulative_totals
from tastemaker.experiments.statistics.srm import srm, srm_draws

MILLION, LOOKS = 1_000_000, 50
NUM_SPLITS, NUM_BANDITS = 1000, 1000
EPOCHS, UNITS, PER_EPOCH, FLOOR = 30, 2000, 300, 0.1
RAMP = ((0.99, 0.01), (0.9, 0.1), (0.5, 0.5))


def mismatch(effort: Effort) -> Part:
    part = Part("Sample ratio mismatch", ("world", "p < 0.05, one look", "alarm (p < 0.001 at any look)"))
    count = max(100, NUM_SPLITS // effort.divide)
    worlds = {
        "as meant, half and half": simulate(_fair, count, seed=7),
        "as meant, 1%, 10%, then 50%": simulate(_ramped, count, seed=8),
        "49 to 51 instead of half and half": simulate(_lost, count, seed=9),
        "a bandit's, as meant": simulate(_bandit_split, max(100, NUM_BANDITS // effort.divide), seed=10),
        "a bandit's, a fifth of one variant lost": simulate(_bandit_lost, max(100, NUM_BANDITS // effort.divide), seed=11),
    }  # fmt: skip
    for name, found in worlds.items():
        part.rows.append((name, share(found[:, 0] < 0.05), share(found[:, 1] < 0.001)))
    _target(part, worlds)
    lost = worlds["49 to 51 instead of half and half"]
    part.notes.append(
        f"A million units and {LOOKS} looks a fixed split; the 49 to 51 is found after {np.median(lost[:, 2]):,.0f} units (median). "
        f"A bandit has {EPOCHS} epochs of {PER_EPOCH} draws and is looked at after each."
    )
    return part


def _target(part: Part, worlds: dict[str, Simulated]) -> None:
    for name in ("as meant, half and half", "as meant, 1%, 10%, then 50%", "a bandit's, as meant"):
        found = worlds[name]
        slack = 3 * np.sqrt(0.05 * 0.95 / len(found))
        apart = abs(float((found[:, 0] < 0.05).mean()) - 0.05)
        part.target(f"one look, share of p < 0.05 less 5%: {name}", apart, round(slack, 4), "lower")
        part.target(
            f"every look, share of p < 0.05: {name}", float((found[:, 1] < 0.05).mean()), 0.05, "lower"
        )
    lost = worlds["49 to 51 instead of half and half"]
    part.target("49 to 51 at a million units: alarms", float((lost[:, 1] < 0.001).mean()), 1.0, "higher")


def drawn(effort: Effort) -> Part:
    part = Part(
        "A bandit's A/A experiments, later visitors click more", ("estimate", "interval misses the truth")
    )
    count = max(100, NUM_BANDITS // effort.divide)
    found = simulate(_bandit_lift, count, seed=12)
    methods = (
        "plain means, one look", "weighted by 1 / propensity, one look", "adaptively weighted, one look",
        "weighted, fixed test at each epoch", "weighted, always valid at each epoch",
    )  # fmt: skip
    part.rows += [(method, share(found[:, m])) for m, method in enumerate(methods)]
    slack = 3 * np.sqrt(0.05 * 0.95 / count)
    for m in (1, 2):
        part.target(f"misses: {methods[m]}", float(found[:, m].mean()), round(0.05 + slack, 4), "lower")
    part.target(f"misses: {methods[4]}", float(found[:, 4].mean()), 0.05, "lower")
    widths = found[:, 5].mean() / found[:, 6].mean()
    part.notes.append(
        f"{count:,} experiments, {UNITS:,} visitors of whom {PER_EPOCH} come an epoch, floor {FLOOR}. The adaptively weighted "
        f"interval is {widths:.2f} times as wide as the weighted one."
    )
    return part


def _fair(rng: np.random.Generator) -> tuple[float, ...]:
    return _split(rng, np.full((LOOKS, 2), 0.5), np.full((LOOKS, 2), 0.5))


def _lost(rng: np.random.Generator) -> tuple[float, ...]:
    return _split(rng, np.full((LOOKS, 2), 0.5), np.tile([0.49, 0.51], (LOOKS, 1)))


def _ramped(rng: np.random.Generator) -> tuple[float, ...]:
    weights = np.repeat(RAMP, [10, 15, 25], axis=0)
    return _split(rng, weights, weights)


def _split(rng: np.random.Generator, meant_PV: np.ndarray, true_PV: np.ndarray) -> tuple[float, ...]:
    """P-value of all, the least always-valid one of any look, and the units at the first alarm."""
    num_PV = np.array([rng.multinomial(MILLION // LOOKS, row) for row in true_PV])
    weights_SV, stage_P = np.unique(meant_PV, axis=0, return_inverse=True)
    num_SV = np.zeros(weights_SV.shape)
    least, alarm = 1.0, np.inf
    for look, stage in enumerate(stage_P.ravel()):
        num_SV[stage] += num_PV[look]
        found = srm(num_SV, weights_SV)
        least = min(least, found.always_valid_p_value)
        if found.alarm and alarm == np.inf:
            alarm = (look + 1) * MILLION / LOOKS
    return found.p_value, least, alarm


def _bandit(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Unit, epoch, variant, propensities and clicks of each draw."""
    own_U = rng.beta(0.3, 2.7, UNITS)
    totals = np.ones((2, 2))  # clicks and silences by variant, prior Beta(1, 1)
    parts = []
    for epoch in range(EPOCHS):
        best = largest_of_betas(totals[0].tolist(), totals[1].tolist())
        shares = FLOOR + (1 - 2 * FLOOR) * best
        unit = rng.choice(UNITS, PER_EPOCH, replace=False)
        variant = (rng.random(PER_EPOCH) < shares[1]).astype(int)
        rate = own_U[unit] * (0.5 + 1.0 * epoch / EPOCHS)
        clicks = rng.random(PER_EPOCH) < rate
        totals += [np.bincount(variant[clicks], minlength=2), np.bincount(variant[~clicks], minlength=2)]
        parts.append(
            (unit, np.full(PER_EPOCH, epoch), variant, np.tile(shares, (PER_EPOCH, 1)), clicks.astype(float))
        )
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def _bandit_split(rng: np.random.Generator) -> tuple[float, ...]:
    _, epoch, variant, propensity, _ = _bandit(rng)
    return _drawn_split(epoch, variant, propensity)


def _bandit_lost(rng: np.random.Generator) -> tuple[float, ...]:
    _, epoch, variant, propensity, _ = _bandit(rng)
    kept = (variant == 0) | (rng.random(len(variant)) < 0.8)
    return _drawn_split(epoch[kept], variant[kept], propensity[kept])


def _drawn_split(epoch: np.ndarray, variant: np.ndarray, propensity: np.ndarray) -> tuple[float, ...]:
    # Looks by epoch, whose draws share their propensities; the p-value of all draw by draw, as reports take it.
    num_PV = np.zeros((EPOCHS, 2))
    np.add.at(num_PV, (epoch, variant), 1)
    _, first = np.unique(epoch, return_index=True)
    shares_PV = propensity[first]
    looks = [srm(num_PV[: last + 1], shares_PV[: last + 1]).always_valid_p_value for last in range(EPOCHS)]
    return srm_draws(variant, propensity).p_value, min(looks), 0.0


def _bandit_lift(rng: np.random.Generator) -> tuple[float, ...]:
    unit, epoch, variant, propensity, clicks = _bandit(rng)
    own, ones = propensity[np.arange(len(variant)), variant], np.ones(len(variant))
    plain = lift(ratio_influence(unit_totals(unit, variant, clicks, ones, 2)), 0, 1)
    adaptive = difference(adaptive_influence(unit, variant, propensity, clicks), 0, 1)
    totals = cumulative_totals(
        unit, variant, clicks, ones, 2, epoch, range(1, EPOCHS + 1), propensity_R=own
    )  # fmt: skip
    looks, missed, peeked = Looks(Boundary.for_effect(np.log(1.2)), 0, 1), False, False
    for one in totals:
        influence = ratio_influence(one)
        if not influence.value_V.min() > 0:
            continue
        found, fixed = looks.look(influence), lift(influence, 0, 1)
        missed |= not found.low <= 0 <= found.high
        peeked |= fixed.p_value < 0.05
    weighted = difference(influence, 0, 1)
    return (
        plain.p_value < 0.05, fixed.p_value < 0.05, adaptive.p_value < 0.05, peeked, missed,
        adaptive.standard_error, weighted.standard_error,
    )  # fmt: skip
