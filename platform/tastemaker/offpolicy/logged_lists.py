"""Lists that were drawn with logged probabilities, with what came of each slot, read from the Parquet days.

Shape letters: S lists, K slots.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tastemaker.errors import ExperimentError
from tastemaker.events.archive import EVENT_SCHEMA, read_days
from tastemaker.experiments.decision_log import DECISION_SCHEMA
from tastemaker.experiments.metrics import Metric
from tastemaker.experiments.reporting.joining import Slates as Shown
from tastemaker.experiments.reporting.joining import Touches, join
from tastemaker.home import Home
from tastemaker.offpolicy.dealt import DEALT_COLUMNS, DealtLists
from tastemaker.types import Bool, Float64, Int64, Origin

_COLUMNS: Final = (
    "decision_id", "request_id", "timestamp_ms", "received_ms", "origin", "unit", "user_id", "bundle", "item_ids",
    "slot_propensity", "slot_propensity_kind", "seed", "cached_from", "rungs", "context", "shadow_of", "request",
    "policy", "forced", "k", "first_position", *DEALT_COLUMNS,
)  # fmt: skip
_EVENT_COLUMNS: Final = (
    "event_id", "user_id", "item_id", "kind", "timestamp_ms", "received_ms", "value", "request_id", "origin",
)  # fmt: skip
_DECISIONS = pa.schema([DECISION_SCHEMA.field(name) for name in _COLUMNS])
_EVENTS = pa.schema([EVENT_SCHEMA.field(name) for name in _EVENT_COLUMNS])
_LEAST = 1e-300


@dataclass(frozen=True, slots=True)
class LoggedLists:
    """Lists by time with their slots' rewards and conditional propensities; 0 and 1 behind a list's end.

    `cluster_S` numbers the users. `decisions` has the rows that they come from. Of `num_read` answers of the time, `left_out` says
    how many lack what, by reason.
    """

    decisions: pa.Table
    items: list[list[str]]
    reward_SK: Float64
    propensity_SK: Float64
    filled_SK: Bool
    cluster_S: Int64
    num_read: int
    left_out: Mapping[str, int]

    def __len__(self) -> int:
        """Number of lists."""
        return len(self.items)

    def down_to(self, depth: int) -> "LoggedLists":
        """The first slots of all lists."""
        return replace(
            self, items=[items[:depth] for items in self.items], reward_SK=self.reward_SK[:, :depth],
            propensity_SK=self.propensity_SK[:, :depth], filled_SK=self.filled_SK[:, :depth],
        )  # fmt: skip

    def take(self, keep_S: Bool, reason: str) -> "LoggedLists":
        """The lists of a mask; the others are left out for a reason."""
        left_out = {**self.left_out, reason: int((~keep_S).sum())}
        kept = np.flatnonzero(keep_S)
        return LoggedLists(
            self.decisions.take(kept), [self.items[s] for s in kept], self.reward_SK[keep_S],
            self.propensity_SK[keep_S], self.filled_SK[keep_S],
            np.unique(self.cluster_S[keep_S], return_inverse=True)[1].astype(np.int64), self.num_read, left_out,
        )  # fmt: skip


def read_lists(
    home: Home,
    catalogue: str,
    metric: Metric,
    *,
    origin: Origin,
    since_ms: int,
    until_ms: int,
    now_ms: int,
    window_ms: int,
    dealt: DealtLists | None = None,
) -> LoggedLists:
    """The lists of a span of time whose slots were drawn with known probabilities and whose window has closed.

    Args:
        home: Holds the days.
        catalogue: Whose.
        metric: What a slot earns: a metric of requests that counts items or adds up values.
        origin: Of the answers.
        since_ms: Answers from then on.
        until_ms: Answers before then.
        now_ms: As of when windows are closed.
        window_ms: How long after an answer an event counts, where the metric does not say.
        dealt: Of which variant; unset, of all traffic.

    Raises:
        ExperimentError: There is none, or the metric is of no slot.
        DataError: A day cannot be read.
    """
    if metric.per != "request" or metric.measure not in ("items", "value"):
        raise ExperimentError(
            f"metric {metric.name}", value="not a sum over slots", limit="a metric of requests that counts items or values",
            mend="take clicks_per_request",
        )  # fmt: skip
    span = (pc.field("timestamp_ms") >= since_ms) & (pc.field("timestamp_ms") < until_ms)
    decisions = read_days(
        home / "decisions" / catalogue, _DECISIONS, "decision_id", span & (pc.field("origin") == origin)
    )
    wanted = (pc.field("origin") == origin) & pc.field("kind").isin(metric.events)
    events = read_days(home / "events" / catalogue, _EVENTS, "event_id", wanted)
    return lists_of(decisions, events, metric, now_ms, metric.window_of(window_ms), dealt)


def lists_of(
    decisions: pa.Table,
    events: pa.Table,
    metric: Metric,
    now_ms: int,
    window_ms: int,
    dealt: DealtLists | None = None,
) -> LoggedLists:
    """The lists of decisions with what the events say of them.

    Raises:
        ExperimentError: No decision has what is needed.
    """
    num_read, left_out = decisions.num_rows, dict[str, int]()
    kept_R = np.ones(num_read, bool)
    of_variant = {} if dealt is None else dealt.conditions(decisions)
    for reason, may_stay in (of_variant | _conditions(decisions, now_ms, window_ms)).items():
        stays_R = kept_R & may_stay
        left_out[reason], kept_R = int(kept_R.sum() - stays_R.sum()), stays_R
    decisions = decisions.filter(pa.array(kept_R))
    if not decisions.num_rows:
        raise _none(num_read, left_out)
    shown = Shown.of(decisions["item_ids"])
    touches = join(decisions, shown, events).touches.within(metric.events, window_ms)
    items = [list(one or ()) for one in decisions["item_ids"].to_pylist()]
    lengths_S = np.array([len(one) for one in items])
    filled_SK = np.arange(lengths_S.max()) < lengths_S[:, None]
    propensity_SK, reward_SK = np.ones(filled_SK.shape), np.zeros(filled_SK.shape)
    flat = pc.list_flatten(decisions["slot_propensity"].combine_chunks()).to_numpy()
    propensity_SK[filled_SK] = np.maximum(flat, _LEAST)
    reward_SK[filled_SK] = _rewards(shown, touches, metric)
    users: Any = pc.dictionary_encode(decisions["user_id"].combine_chunks())
    cluster_S = users.indices.to_numpy().astype(np.int64)
    return LoggedLists(decisions, items, reward_SK, propensity_SK, filled_SK, cluster_S, num_read, left_out)


def _conditions(decisions: pa.Table, now_ms: int, window_ms: int) -> dict[str, Bool]:
    """By reason for leaving the others out, which decisions may stay."""
    received_ms: Int64 = decisions["received_ms"].to_numpy()
    first: Any = decisions["first_position"]
    kind: Any = decisions["slot_propensity_kind"]
    drawn, shown = _lengths(decisions["slot_propensity"]), _lengths(decisions["item_ids"])
    exact: Bool = kind.to_numpy().astype(str) == "exact"
    return {
        "were made for comparison": _is_null(decisions["shadow_of"]),
        "are still open": received_ms + window_ms < now_ms,
        "were kept lists or later pages": _is_null(decisions["cached_from"])
        & (first.fill_null(0).to_numpy() == 0),
        "were fallbacks": (_lengths(decisions["rungs"]) == 0) & _is_null(decisions["forced"]),
        "lack propensities of their slots": exact & (drawn > 0) & (drawn == shown),
    }


def _none(num_read: int, left_out: Mapping[str, int]) -> ExperimentError:
    """What a log is refused by that has no list to judge from."""
    if not num_read:
        return ExperimentError(
            "no answer was logged whose window has closed in the days that are looked at",
            mend="wait until windows have closed (--window-minutes after an answer), or name other days (--days)",
        )
    told = "; ".join(f"{count:,} {reason}" for reason, count in left_out.items() if count)
    return ExperimentError(
        f"lists with logged propensities among {num_read:,} answers ({told})", value=0, limit="at least 1",
        mend="let some traffic explore (`reranking.sampling` in a recipe or a variant's policy), or name other days",
    )  # fmt: skip


def _lengths(column: Any) -> Int64:
    """Of each row's list; 0 where there is none."""
    found: Int64 = pc.list_value_length(column).fill_null(0).to_numpy().astype(np.int64)
    return found


def _is_null(column: Any) -> Bool:
    found: Bool = column.is_null().to_numpy().astype(bool)
    return found


def _rewards(shown: Shown, touches: Touches, metric: Metric) -> Float64:
    """What each place of the lists earned; an item that a list shows once has one place."""
    key_P = shown.keys(shown.row_S, shown.item_S)
    order = np.argsort(key_P, kind="stable")
    at_E = order[np.searchsorted(key_P[order], shown.keys(touches.row_E, touches.item_E))]
    if metric.measure == "value":
        return np.bincount(at_E, weights=touches.value_E, minlength=len(key_P)).astype(np.float64)
    earned_P: Float64 = (np.bincount(at_E, minlength=len(key_P)) > 0).astype(np.float64)
    return earned_P
