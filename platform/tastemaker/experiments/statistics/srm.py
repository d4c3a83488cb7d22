"""Sample ratio mismatch: whether variants met as many units as they were meant to, whatever was meant when.

Shape letters: P periods (stretches of one allocation), V variants, E draws.

A mismatch means that units were lost or doubled by variant (a crash, a redirect, a bot filter), and then no difference between
variants can be trusted. Compared with one allocation over all time, every ramp would look like one: here each unit is held
against the shares of the moment it was assigned.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from tastemaker.errors import ExperimentError
from tastemaker.types import Float64, Int64

SRM_ALARM = 0.001
"""P-value below which a report warns."""
_TILTS = np.array([0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0])


@dataclass(frozen=True, slots=True)
class Srm:
    """P-values of the counts: once for a look that was planned, and one that holds at every look.

    `by_period_P` tells each period apart, NaN for a period without units.
    """

    p_value: float
    always_valid_p_value: float
    by_period_P: Float64

    @property
    def alarm(self) -> bool:
        """Whether the split is not what was asked for: by the p-value that any number of looks leaves honest."""
        return self.always_valid_p_value < SRM_ALARM


def srm(num_PV: Int64 | Float64, weights_PV: Float64) -> Srm:
    """Counts of new units by period, against the shares of each period; one period for a split that never changed.

    The excess over expectation, summed over periods, has the summed multinomial covariances: S' C^-1 S is chi-square with
    V - 1 degrees. One period gives Pearson's chi-square. A loss that lasts adds up over periods, where a sum of the periods'
    own chi-squares would drown it.

    By hand: 60 and 40 of 100 at 1/2 each: 10^2/50 + 10^2/50 = 4, and P(chi-square_1 > 4) = P(|z| > 2) = 0.0455. Then a ramp,
    100 at 10% and 100 at 50%, with 10 and 60 of the second variant: excess 0 + 10, variance 9 + 25 = 34, chi-square 100/34.

    >>> round(srm(np.array([[60, 40]]), np.array([[0.5, 0.5]])).p_value, 4)
    0.0455
    >>> found = srm(np.array([[90, 10], [40, 60]]), np.array([[0.9, 0.1], [0.5, 0.5]]))
    >>> round(found.p_value, 4), found.by_period_P.round(4).tolist()  # P(|z| > 1.715)
    (0.0863, [1.0, 0.0455])

    Raises:
        ExperimentError: No units, or shares that do not add up to 1.
    """
    num_PV, weights_PV = _checked(num_PV, weights_PV)
    by_period = [
        _p_value(n[None], w[None]) if n.sum() else np.nan for n, w in zip(num_PV, weights_PV, strict=True)
    ]
    return Srm(_p_value(num_PV, weights_PV), _always_valid(num_PV, weights_PV), np.array(by_period))


def srm_draws(variant_E: Int64, propensity_EV: Float64) -> Srm:
    """Draws of a bandit, each under its own propensities: one row per draw (unit and epoch).

    The sum of (one-hot of the variant - propensities) is a martingale, whatever the propensities learned from, and its variance
    is the sum of diag(p) - p p'. `by_period_P` has one number for all.

    By hand: four draws at 1/2, all the first variant: excess 2, variance 4/4 = 1, chi-square 4.

    >>> round(srm_draws(np.zeros(4, int), np.full((4, 2), 0.5)).p_value, 4)
    0.0455

    Raises:
        ExperimentError: As for `srm`.
    """
    if len(variant_E) == 0:
        raise ExperimentError("no unit was assigned yet", mend="wait for traffic")
    num_EV, weights_EV = _checked(np.eye(propensity_EV.shape[1])[variant_E], propensity_EV)
    p_value = _p_value(num_EV, weights_EV)
    return Srm(p_value, _always_valid(num_EV, weights_EV), np.array([p_value]))


def _checked(num_PV: Int64 | Float64, weights_PV: Float64) -> tuple[Float64, Float64]:
    num, weights = np.asarray(num_PV, dtype=np.float64), np.asarray(weights_PV, dtype=np.float64)
    if num.shape != weights.shape:
        raise ExperimentError("shares' shape", value=weights.shape, limit=f"that of the counts, {num.shape}")
    if num.sum() == 0:
        raise ExperimentError("no unit was assigned yet", mend="wait for traffic")
    total_P = weights.sum(axis=1)
    if (np.abs(total_P - 1) > 1e-6).any() or (weights < 0).any():
        raise ExperimentError(
            "shares of a period",
            value=weights[np.abs(total_P - 1).argmax()].tolist(),
            limit="0 or more, adding up to 1",
        )
    return num, weights / total_P[:, None]


def _p_value(num_PV: Float64, weights_PV: Float64) -> float:
    if (num_PV[weights_PV == 0] > 0).any():
        return 0.0  # units where none could be
    total_P = num_PV.sum(axis=1)
    excess_V = (num_PV - total_P[:, None] * weights_PV).sum(axis=0)
    variance_VV = np.diag(total_P @ weights_PV) - (weights_PV * total_P[:, None]).T @ weights_PV
    luck = np.diag(variance_VV) > 1e-9
    kept = np.flatnonzero(luck)[:-1]  # the shares add up to 1: one variant says nothing of its own
    if not len(kept):
        return 1.0
    statistic = excess_V[kept] @ np.linalg.solve(variance_VV[np.ix_(kept, kept)], excess_V[kept])
    return float(special.gammaincc(len(kept) / 2, statistic / 2))


def _always_valid(num_PV: Float64, weights_PV: Float64) -> float:
    """1 / E, at most 1, with E a mean of likelihood ratios: some variant's odds are off by a factor of exp(tilt).

    Each ratio is a martingale over units, so that P(E ever reaches 1 / alpha) <= alpha [Ville 1939]. The multinomial test of
    [Lindon & Malek 2022] mixes over a Dirichlet instead; a grid of tilts does the same for shares that change with time.
    """
    if (num_PV[weights_PV == 0] > 0).any():
        return 0.0
    tilt_T = np.concatenate([-_TILTS, _TILTS])
    # By variant v and tilt t: log of prod over units of exp(t [unit in v]) / (1 + w_v (exp(t) - 1)).
    seen_VT = num_PV.sum(axis=0)[:, None] * tilt_T
    total_P = num_PV.sum(axis=1)
    meant_VT = np.column_stack([total_P @ np.log1p(weights_PV * np.expm1(tilt)) for tilt in tilt_T])
    log_e = special.logsumexp(seen_VT - meant_VT) - np.log(seen_VT.size)
    return float(np.exp(-max(log_e, 0.0)))
