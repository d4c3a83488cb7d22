"""Gates that look at figures of held-out users: overall, by segment, and the calibration of the ranker.

A version is refused only where it is worse for certain. A pass is no proof of being better, nor of being as good: with few
users intervals are wide.

Shape letters: U users of both versions.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from tastemaker.bundle.reader import Bundle
from tastemaker.promotion.compared import INTERACTIONS, compared
from tastemaker.promotion.gate import Case, GateResult, passed_if
from tastemaker.types import Bool, Float64

BUCKETS: Final = ((0, 0), (1, 10), (11, 50), (51, None))
"""Borders, both within, of how many interactions a user has had."""
_LEVEL: Final = 0.95
_ROUNDS: Final = 1000
_ROUNDS_AT_ONCE: Final = 50
_OF_CHAMPION: Final = " of champion"


def offline(case: Case) -> GateResult:
    """Refused where the 95% interval of the paired difference lies wholly below the tolerated loss."""
    pairs = _pairs(case)
    if isinstance(pairs, str):
        return GateResult(name="offline", outcome="not applicable", reason=pairs)
    mean, low, high = paired_difference(pairs.ours_U, pairs.theirs_U)
    limit = -case.limits.loss * float(pairs.theirs_U.mean())
    return GateResult(
        name="offline",
        outcome=passed_if(high >= limit),
        value=mean,
        limit=limit,
        reason=f"{case.limits.metric} {_interval(mean, low, high)} over {len(pairs)} users against the champion, {pairs.how}",
        numbers={"low": low, "high": high, "champion": float(pairs.theirs_U.mean()), "users": len(pairs)},
    )


def segments(case: Case) -> GateResult:
    """The same for users by how much they had done before, and by each text column of `user_metrics.parquet`.

    The level is shared out over the segments [Bonferroni], so that a version that is no worse anywhere is seldom refused.
    """
    name, pairs = "segments", _pairs(case)
    if isinstance(pairs, str):
        return GateResult(name=name, outcome="not applicable", reason=pairs)
    limits = case.limits
    found = {text: in_U for text, in_U in pairs.segments() if in_U.sum() >= limits.users}
    if not found:
        return GateResult(
            name=name,
            outcome="not applicable",
            reason=f"the bundles keep no segment of at least {limits.users} users",
        )
    level = 1 - (1 - _LEVEL) / len(found)
    said = [
        _Segment.of(text, pairs.ours_U[in_U], pairs.theirs_U[in_U], level) for text, in_U in found.items()
    ]
    worst = min(said, key=lambda one: one.high + limits.segment_loss * one.champion)
    limit = -limits.segment_loss * worst.champion
    return GateResult(
        name=name,
        outcome=passed_if(worst.high >= limit),
        value=worst.mean,
        limit=limit,
        reason=f"worst of {len(said)}: {worst.text}, {worst.users} users, "
        f"{limits.metric} {_interval(worst.mean, worst.low, worst.high)} at level {level:.3f}",
        numbers={one.text: one.mean for one in said},
    )


def calibration(case: Case) -> GateResult:
    """The ranker's probabilities are what happened: expected calibration error on requests that it was not trained on."""
    name = "calibration"
    error = _ranker_error(case.candidate)
    if error is None:
        why = "the bundle has no ranker" if not case.candidate.has("ranker.json") else "it was not measured"
        return GateResult(name=name, outcome="not applicable", reason=why)
    theirs = _ranker_error(case.champion) if case.champion else None
    beside = "" if theirs is None else f"; the champion's is {theirs:.4f}"
    return GateResult(
        name=name,
        outcome=passed_if(error <= case.limits.calibration_error),
        value=error,
        limit=case.limits.calibration_error,
        reason=f"expected calibration error {error:.4f}{beside}",
        numbers={} if theirs is None else {"champion": theirs},
    )


def paired_difference(a_U: Float64, b_U: Float64) -> tuple[float, float, float]:
    """Mean of a - b over users, and its 95% percentile bootstrap interval [Efron 1979] over the users.

    >>> paired_difference(np.array([0.5, 0.5]), np.array([0.25, 0.25]))
    (0.25, 0.25, 0.25)
    """
    rng, difference_U = np.random.default_rng(0), a_U - b_U
    drawn = (
        rng.integers(0, len(a_U), (_ROUNDS_AT_ONCE, len(a_U))) for _ in range(_ROUNDS // _ROUNDS_AT_ONCE)
    )
    means = np.concatenate([difference_U[rows].mean(axis=1) for rows in drawn])
    low, high = np.quantile(means, [0.025, 0.975])
    return float(difference_U.mean()), float(low), float(high)


@dataclass(frozen=True)
class _Pairs:
    """The metric of the users that both versions were evaluated on, in one order."""

    ours_U: Float64
    theirs_U: Float64
    table: pa.Table
    how: str

    def __len__(self) -> int:
        return len(self.ours_U)

    def segments(self) -> Iterator[tuple[str, Bool]]:
        """Names of segments and which users are in them."""
        if INTERACTIONS in self.table.column_names:
            had_U = self.table[INTERACTIONS].to_numpy()
            for low, high in BUCKETS:
                text = f"{low}" if low == high else f"over {low - 1}" if high is None else f"{low} to {high}"
                yield f"{INTERACTIONS} {text}", (had_U >= low) & (had_U <= (np.inf if high is None else high))
        for field in self.table.schema:
            if pa.types.is_string(field.type) and field.name != "user_id":
                value_U = np.array([value or "" for value in self.table[field.name].to_pylist()], object)
                for value in sorted(set(value_U) - {""}):
                    yield f"{field.name} {value}", value_U == value


@dataclass(frozen=True)
class _Segment:
    """The difference in one segment with its interval."""

    text: str
    users: int
    mean: float
    low: float
    high: float
    champion: float

    @classmethod
    def of(cls, text: str, ours_U: Float64, theirs_U: Float64, level: float) -> "_Segment":
        """Student's interval of the mean of paired differences."""
        from scipy import stats

        difference_U = ours_U - theirs_U
        mean, num = float(difference_U.mean()), len(difference_U)
        half = float(stats.t.ppf((1 + level) / 2, num - 1) * difference_U.std(ddof=1) / np.sqrt(num))
        return cls(text, num, mean, mean - half, mean + half, float(theirs_U.mean()))


def _pairs(case: Case) -> _Pairs | str:
    """The users of both; why there are none."""
    found = compared(case)
    if isinstance(found, str):
        return found
    metric, ours, theirs = case.limits.metric, found.ours.users, found.theirs.users
    too_few = f"fewer than {case.limits.users} users with {metric} in both"
    if ours is None or theirs is None or not all(metric in one.column_names for one in (ours, theirs)):
        return too_few
    joined: pa.Table = ours.join(
        theirs.select(["user_id", metric]), "user_id", join_type="inner", right_suffix=_OF_CHAMPION
    ).sort_by("user_id")
    if joined.num_rows < case.limits.users:
        return too_few
    a_U, b_U = (joined[key].to_numpy().astype(np.float64) for key in (metric, metric + _OF_CHAMPION))
    return _Pairs(a_U, b_U, joined, found.how)


def _ranker_error(bundle: Bundle) -> float | None:
    metrics: Any = bundle.json("metrics.json") if bundle.has("metrics.json") else {}
    error = metrics.get("ranker", {}).get("held_out_ece")
    return float(error) if error is not None and np.isfinite(error) else None


def _interval(mean: float, low: float, high: float) -> str:
    return f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]"
