"""What a pre-period takes out of the variance: 1 - rho^2 is left, in the claim and in truth."""

from functools import partial

import numpy as np
from experiments_runs import share, simulate
from turns import Effort, Part

from tastemaker.experiments.statistics.cuped import cuped, ratio_covariate
from tastemaker.experiments.statistics.influence import difference
from tastemaker.experiments.statistics.ratios import UnitTotals, ratio_influence

NUM_EXPERIMENTS, NUM_UNITS = 2000, 2000
RHOS = (0.0, 0.3, 0.5, 0.7, 0.9)


def variance(effort: Effort) -> Part:
    part = Part(
        "CUPED", ("correlation", "1 - rho^2", "left, claimed", "left, in truth", "interval covers the truth")
    )
    count = max(200, NUM_EXPERIMENTS // effort.divide)
    for rho in RHOS:
        found = simulate(partial(_experiment, rho), count, seed=5)
        expected, claimed = 1 - rho**2, 1 - found[:, 0].mean()
        true = found[:, 1].var() / found[:, 2].var()
        part.rows.append(
            (f"{rho:.1f}", f"{expected:.3f}", f"{claimed:.3f}", f"{true:.3f}", share(found[:, 3]))
        )
        # Of a ratio of two variances of correlated normals [Pitman 1939]; three standard errors.
        noise = 3 * 2 * expected * np.sqrt((1 - expected) / count)
        part.target(f"claimed less 1 - rho^2, rho {rho}", abs(claimed - expected), 0.01, "lower")
        part.target(f"true less 1 - rho^2, rho {rho}", abs(true - expected), max(noise, 0.01), "lower")
    ratio = simulate(_ratio_experiment, count, seed=6)
    true = ratio[:, 1].var() / ratio[:, 2].var()
    part.rows.append(
        ("a ratio metric", "", f"{1 - ratio[:, 0].mean():.3f}", f"{true:.3f}", share(ratio[:, 3]))
    )
    part.target("ratio metric: claimed less true", abs(1 - ratio[:, 0].mean() - true), 0.06, "lower")
    part.notes.append(
        f"{count:,} experiments of {NUM_UNITS:,} units a line. The ratio metric is clicks by visit of visitors who were there before, "
        "but for a third who are new."
    )
    return part


def _experiment(rho: float, rng: np.random.Generator) -> tuple[float, ...]:
    past_U, noise_U = rng.standard_normal(NUM_UNITS), rng.standard_normal(NUM_UNITS)
    value_U = 5 + rho * past_U + np.sqrt(1 - rho**2) * noise_U
    in_UV = np.eye(2)[rng.integers(0, 2, NUM_UNITS)]
    return _compared(UnitTotals(in_UV * value_U[:, None], in_UV), past_U[:, None])


def _ratio_experiment(rng: np.random.Generator) -> tuple[float, ...]:
    rate_U, often_U = rng.beta(0.6, 5.4, NUM_UNITS), rng.gamma(1.0, 3.0, NUM_UNITS)
    visits_U, past_visits_U = 1 + rng.poisson(often_U), rng.poisson(3 * often_U)
    past_visits_U[rng.random(NUM_UNITS) < 1 / 3] = 0
    clicks_U, past_clicks_U = rng.binomial(visits_U, rate_U), rng.binomial(past_visits_U, rate_U)
    in_UV = np.eye(2)[rng.integers(0, 2, NUM_UNITS)]
    past = ratio_covariate(past_clicks_U.astype(float), past_visits_U.astype(float))
    return _compared(UnitTotals(in_UV * clicks_U[:, None], in_UV * visits_U[:, None]), past)


def _compared(totals: UnitTotals, covariate_UC: np.ndarray) -> tuple[float, ...]:
    plain = ratio_influence(totals)
    less = cuped(plain, covariate_UC, totals.denominator_UV > 0)
    adjusted = difference(less.influence, 0, 1)
    covers = adjusted.low <= 0 <= adjusted.high
    return less.variance_reduction, adjusted.value, difference(plain, 0, 1).value, float(covers)
