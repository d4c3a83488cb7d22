"""Whether what was shown is clicked as often as its scores say: expected against observed clicks, by bucket of the score.

A score is a probability of a click where the ranker gave it and `ranking.score_weights` names the click alone; answers of other
rankings, interleaved ones, and rungs whose scores are something else, are left out. Live and simulated traffic are told apart: people
click after a while, simulated visitors at once, and by a world that no ranker has learned. The ranker learned on candidates, not on
slots: what a slot's place does to clicks is in the observed rate and not in the expected one, so that the change of the error says
more than its size.

Shape letters: N slots, B buckets.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.errors import BundleError
from tastemaker.events.archive import EVENT_SCHEMA, read_parts, reread
from tastemaker.experiments.decision_log import DECISION_SCHEMA
from tastemaker.experiments.reporting.days import since
from tastemaker.features.ranking_data import CLICK
from tastemaker.home import Home
from tastemaker.stages.policy import policy_of
from tastemaker.types import Bool, Float64, Int64, Origin

EDGES: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Between the buckets; a score on an edge belongs to the bucket above it."""
BUCKETS: Final = tuple(f"{low:g}-{high:g}" for low, high in zip((0, *EDGES), (*EDGES, 1), strict=True))
WINDOWS_MS: Final[Mapping[Origin, int]] = {"live": 3_600_000, "simulator": 60_000}
"""How long after an answer its clicks count."""
MOST_LISTS: Final = 20_000
LEAST_SLOTS: Final = 1000
"""Fewer say nothing: with a click rate of 5% the error of 1000 well calibrated slots is near .01 by chance."""
_OTHER_SCORES: Final = frozenset({"retrieval-order", "cached", "trending", "popular"})
"""Rungs whose scores the ranker did not give."""
_DECISIONS: Final = pa.schema(
    [
        DECISION_SCHEMA.field(name)
        for name in (
            "decision_id", "request_id", "timestamp_ms", "received_ms", "bundle", "item_ids", "scores", "rungs",
            "shadow_of", "policy", "origin", "slot_team",
        )
    ]
)  # fmt: skip
_EVENTS: Final = pa.schema(
    [
        EVENT_SCHEMA.field(name)
        for name in ("event_id", "request_id", "item_id", "kind", "timestamp_ms", "received_ms", "origin")
    ]
)
_SEPARATOR: Final = "\x1f"


@dataclass(frozen=True, slots=True)
class Calibrated:
    """Of each bucket its slots, their mean score and the share of them that was clicked; NaN where there are none."""

    slots_B: Int64
    expected_B: Float64
    observed_B: Float64

    @property
    def error(self) -> float:
        """Expected calibration error [Naeini et al. 2015, Eq. 3]: the mean over slots of |observed - expected| of their bucket.

        By hand: 3 slots with mean .1 of which 1 is clicked and 1 slot with .5 that is not: (3 |1/3 - .1| + |0 - .5|) / 4.

        >>> round(Calibrated(np.array([3, 1]), np.array([0.1, 0.5]), np.array([1 / 3, 0.0])).error, 6)
        0.3
        """
        full = self.slots_B > 0
        gap_B = np.abs(self.observed_B[full] - self.expected_B[full])
        return float(np.average(gap_B, weights=self.slots_B[full]))


def measure_calibration(
    home: Home,
    catalogue: str,
    is_probability: Callable[[str], bool],
    since_ms: int,
    until_ms: int,
    origin: Origin = "live",
) -> Calibrated | None:
    """Of the newest `MOST_LISTS` answers of a time; None where fewer than `LEAST_SLOTS` slots were seen.

    A slot is seen where an impression of it came, or the client sends none for the answer. Clicks are joined by request_id and item.

    Args:
        home: Holds the archive.
        catalogue: Whose answers.
        is_probability: Whether scores of a bundle, by its id, are probabilities of a click.
        since_ms: Answers from then on.
        until_ms: Answers before then; by `WINDOWS_MS` later all of their clicks are in.
        origin: Of answers and clicks: one of `WINDOWS_MS`.

    Raises:
        DataError: A file cannot be read.
    """
    answers = _answers(home, catalogue, is_probability, since_ms, until_ms, origin)
    if not len(answers):
        return None
    events = _events(home, catalogue, answers["request_id"], since_ms, until_ms + WINDOWS_MS[origin], origin)
    item_ids: Any = answers["item_ids"].combine_chunks()
    request_N: Any = answers["request_id"].combine_chunks().take(pc.list_parent_indices(item_ids))
    slot_N = _keys(request_N, pc.list_flatten(item_ids))
    scores: Any = pc.list_flatten(answers["scores"].combine_chunks())
    score_N = scores.to_numpy(zero_copy_only=False).astype(np.float64)
    shown, clicked = _of_kind(events, "impression"), _of_kind(events, CLICK)
    seen_N = _among(slot_N, _keys(shown["request_id"], shown["item_id"]))
    seen_N |= ~_among(request_N, shown["request_id"])
    clicked_N = _among(slot_N, _keys(clicked["request_id"], clicked["item_id"]))
    seen_N &= (score_N >= 0) & (score_N <= 1)
    if seen_N.sum() < LEAST_SLOTS:
        return None
    return calibrated(score_N[seen_N], clicked_N[seen_N])


def calibrated(score_N: Float64, clicked_N: Bool) -> Calibrated:
    """Slots by bucket.

    >>> found = calibrated(np.array([0.005, 0.06, 0.08]), np.array([False, True, False]))
    >>> found.slots_B.tolist(), float(found.observed_B[3]), round(float(found.expected_B[3]), 3)
    ([1, 0, 0, 2, 0, 0, 0], 0.5, 0.07)
    """
    bucket_N = np.searchsorted(EDGES, score_N, side="right")
    slots_B = np.bincount(bucket_N, minlength=len(BUCKETS))
    share_B: Float64 = np.where(slots_B > 0, 1 / np.maximum(slots_B, 1), np.nan)
    means: list[Float64] = [
        np.bincount(bucket_N, weights=value_N, minlength=len(BUCKETS)).astype(np.float64) * share_B
        for value_N in (score_N, clicked_N.astype(np.float64))
    ]
    return Calibrated(slots_B.astype(np.int64), *means)


class ScoreKinds:
    """Which bundles of a catalogue score by the probability of a click; each is looked at once."""

    def __init__(self, store: BundleStore, catalogue: str) -> None:
        self._store, self._catalogue = store, catalogue
        self._known: dict[str, bool] = {}

    def is_probability(self, bundle_id: str) -> bool:
        """False as well for a bundle that cannot be read any more."""
        if bundle_id not in self._known:
            self._known[bundle_id] = self._look(bundle_id)
        return self._known[bundle_id]

    def _look(self, bundle_id: str) -> bool:
        uri = f"manifests/{self._catalogue}/{bundle_id}.json"
        try:
            bundle = Bundle.open(self._store, uri, whole=False)
            if not bundle.has("calibration.json") or not bundle.has("pipeline.json"):
                return False
            pipeline: Mapping[str, Any] = bundle.json("pipeline.json")
        except BundleError:
            return False
        weights = (pipeline.get("ranking") or {}).get("score_weights") or {CLICK: 1.0}
        return set(weights) == {CLICK}


def _answers(
    home: Home,
    catalogue: str,
    is_probability: Callable[[str], bool],
    since_ms: int,
    until_ms: int,
    origin: Origin,
) -> pa.Table:
    """Answers whose scores are probabilities of a click."""
    span = (pc.field("timestamp_ms") >= since_ms) & (pc.field("timestamp_ms") < until_ms)
    where = span & (pc.field("origin") == origin)
    table = _rows_since(since_ms, home / "decisions" / catalogue, _DECISIONS, "decision_id", where)
    interleaved: Any = pc.greater(pc.fill_null(pc.list_value_length(table["slot_team"]), 0), pa.scalar(0))
    table = table.filter(pc.and_(pc.is_null(table["shadow_of"]), pc.invert(interleaved)))[-MOST_LISTS:]
    columns = [table[name].to_pylist() for name in ("bundle", "policy", "rungs", "item_ids", "scores")]
    keep = [
        bool(items)
        and len(items) == len(scores or ())
        and _OTHER_SCORES.isdisjoint(rungs or ())
        and policy_of(policy or "").until != "retrieve"
        and is_probability(bundle)
        for bundle, policy, rungs, items, scores in zip(*columns, strict=True)
    ]
    return table.filter(pa.array(keep, pa.bool_()))


def _events(
    home: Home, catalogue: str, requests: Any, since_ms: int, until_ms: int, origin: Origin
) -> pa.Table:
    """Impressions and clicks of some requests, each once."""
    span = (pc.field("received_ms") >= since_ms) & (pc.field("received_ms") < until_ms)
    where = span & pc.field("kind").isin(["impression", CLICK]) & (pc.field("origin") == origin)
    table = _rows_since(since_ms, home / "events" / catalogue, _EVENTS, "event_id", where)
    return table.filter(pc.is_in(table["request_id"], value_set=requests.combine_chunks()))


def _rows_since(
    since_ms: int, folder: Path, schema: pa.Schema, id_column: str, where: pc.Expression
) -> pa.Table:
    """Rows of the days from the one before a moment on: those of other days are not opened."""
    return reread(folder, lambda parts: read_parts(since(parts, since_ms), schema, id_column, where))


def _of_kind(events: pa.Table, kind: str) -> pa.Table:
    is_kind: Any = pc.equal(events["kind"], pa.scalar(kind))
    return events.filter(is_kind)


def _keys(requests: Any, items: Any) -> Any:
    joined: Any = pc.binary_join_element_wise(requests, items, _SEPARATOR)
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined


def _among(values: Any, known: Any) -> Bool:
    known = known.combine_chunks() if isinstance(known, pa.ChunkedArray) else known
    found: Any = pc.is_in(values, value_set=known)
    mask: Bool = found.to_numpy(zero_copy_only=False)
    return mask.copy()
