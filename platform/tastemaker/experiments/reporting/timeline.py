"""A metric's lift as the experiment goes on, and traffic by variant: what a report draws over time.

Shape letters: R decisions, V variants.
"""

from collections.abc import Iterable
from typing import Final

import numpy as np

from tastemaker.errors import ExperimentError
from tastemaker.experiments.metrics import Metric
from tastemaker.experiments.reporting.comparisons import Interval, interval
from tastemaker.experiments.reporting.observations import Observations
from tastemaker.experiments.reporting.weighing import Weighing
from tastemaker.experiments.statistics.influence import Influence, Lift, lift
from tastemaker.experiments.statistics.sequential import Looks
from tastemaker.strict import Strict
from tastemaker.types import Bool, Float64

_NUM_BINS: Final = 40


class TrafficBin(Strict):
    """What happened from `start_ms` for the length of a bin; lists run over the variants in order.

    `propensities` are the means over new units, null where there was none.
    """

    start_ms: int
    requests: tuple[int, ...]
    new_units: tuple[int, ...]
    propensities: tuple[float, ...] | None


class Look(Strict):
    """All lifts of what came before `end_ms`; lists run over the variants but the control.

    `fixed` would hold if this look were the only one, `always_valid` whatever looks there were before; their values are the same.
    """

    end_ms: int
    units: int
    fixed: tuple[Interval, ...]
    always_valid: tuple[Interval, ...]
    always_valid_p_values: tuple[float | None, ...]


def over_time(looks: Iterable[tuple[int, Influence]], metric: Metric, weighing: Weighing) -> tuple[Look, ...]:
    """The lifts at each look."""
    others = range(1, weighing.num_variants)
    watching = [Looks(weighing.boundary(metric), 0, v) for v in others]
    found = []
    for end_ms, influence in looks:
        valid = [_try_look(one, influence) for one in watching]
        found.append(
            Look(
                end_ms=end_ms,
                units=int(influence.units_V.sum()),
                fixed=tuple(_try_lift(influence, v, weighing.level) for v in others),
                always_valid=tuple(Interval() if one is None else interval(one) for one in valid),
                always_valid_p_values=tuple(None if one is None else one.p_value for one in valid),
            )
        )
    return tuple(found)


def traffic(seen: Observations) -> tuple[int, tuple[TrafficBin, ...]]:
    """Length of a bin in ms, and the bins from the first decision to the last."""
    made_ms_R = seen.timestamp_ms_R
    start_ms = int(made_ms_R.min())
    bin_ms = max(1, -(-(int(made_ms_R.max()) + 1 - start_ms) // _NUM_BINS))
    bin_R = (made_ms_R - start_ms) // bin_ms
    new_R = np.zeros(len(seen), np.bool_)
    new_R[seen.first_exposures()] = True
    return bin_ms, tuple(
        _bin(seen, start_ms + b * bin_ms, bin_R == b, new_R) for b in range(int(bin_R.max()) + 1)
    )


def _bin(seen: Observations, start_ms: int, in_bin_R: Bool, new_R: Bool) -> TrafficBin:
    rows, new = seen.rows, in_bin_R & new_R
    num_variants = rows.shares_PV.shape[1]
    means: Float64 | None = rows.shares_PV[rows.share_R[new]].mean(axis=0) if new.any() else None
    return TrafficBin(
        start_ms=start_ms,
        requests=tuple(np.bincount(rows.variant_R[in_bin_R], minlength=num_variants).tolist()),
        new_units=tuple(np.bincount(rows.variant_R[new], minlength=num_variants).tolist()),
        propensities=None if means is None else tuple(means.tolist()),
    )


def _try_lift(influence: Influence, variant: int, level: float) -> Interval:
    try:
        return interval(lift(influence, 0, variant, level))
    except ExperimentError:
        return Interval()


def _try_look(looks: Looks, influence: Influence) -> Lift | None:
    try:
        found = looks.look(influence)
    except ExperimentError:
        return None  # a variant has no value yet
    assert isinstance(found, Lift)
    return found if np.isfinite(found.low + found.high) else None
