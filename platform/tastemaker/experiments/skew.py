"""How far the features that a ranker was served with lie from those that the log gives for the same moment.

A share of the answers keep the slate's features in the decision log (`gateway.features_share`). What they should have been
is computed from the archive and the import by the code that makes training sets. Between the two lie a consumer's lag and
the age of the totals: a value is right where it lies among those that held at any moment from `LAG_MS` before the answer to
`LAG_MS` after it. Not compared is what depends on candidates that are not in the log.

Shape letters: K items of a slate, F features, R rows, M moments.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tastemaker.data.schema import read_imported
from tastemaker.events.archive import EVENT_SCHEMA, read_days
from tastemaker.experiments.decision_log import DECISION_SCHEMA
from tastemaker.features.item_store import ItemFacts
from tastemaker.features.known_events import concerning, state_events
from tastemaker.features.known_records import KnownRecords
from tastemaker.features.places import Place, place_of
from tastemaker.features.request_features import REQUEST_FEATURES
from tastemaker.home import Home
from tastemaker.types import Float64
from tastemaker.users.archive import opted_out
from tastemaker.users.merged import read_merges

LAG_MS: Final = 10_000
ABSOLUTE, RELATIVE = 1e-3, 1e-3
"""A value that is further off than this, and this share of it, differs."""
MOST_ANSWERS: Final = 500
_MOST_MOMENTS: Final = 50
AMONG_CANDIDATES: Final = "popularity_among_candidates"
_SKIPPED_RUNGS: Final = frozenset({"no-record", "no-history"})
_COLUMNS: Final = (
    "decision_id", "timestamp_ms", "received_ms", "user_id", "item_ids", "rungs", "feature_names", "features", "context",
)  # fmt: skip
_READ: Final = pa.schema([DECISION_SCHEMA.field(name) for name in _COLUMNS])


@dataclass(frozen=True, slots=True)
class FeatureSkew:
    """One feature: rows compared, the share of them that differ, and how far off all are on average and at most."""

    feature: str
    rows: int
    differing: float
    mean: float
    largest: float


@dataclass(frozen=True, slots=True)
class Skew:
    """The newest answers that keep features, of which `rows` items were compared.

    `num_skipped` items are not in the imported catalogue, or were ranked without the user's record.
    """

    num_answers: int
    rows: int
    num_skipped: int
    features: list[FeatureSkew]


class _Answer(NamedTuple):
    user_id: str
    at_ms: int
    item_ids: list[str]
    value_KF: Float64
    names: list[str]
    place: Place | None


def measure_skew(home: Home, catalogue: str, late_days: int, since_ms: int, until_ms: int) -> Skew:
    """Compares the answers of a span of time with the log, the newest `MOST_ANSWERS` of them.

    The log must know by now what happened until `LAG_MS` after `until_ms`.

    Args:
        home: Holds the archive and the import.
        catalogue: Whose answers.
        late_days: See `events.batch.is_late`.
        since_ms: Answers from then on.
        until_ms: Answers before then.

    Raises:
        DataError: Nothing was imported, or a file cannot be read.
    """
    every = _answers(home, catalogue, since_ms, until_ms)
    if not every:
        return Skew(0, 0, 0, [])
    facts = ItemFacts.from_items(read_imported(home, catalogue)[1])
    known = _known(home, catalogue, late_days, facts, every)
    skipped = sum(len(answer.item_ids) for answer in every)
    parts: dict[str, list[Float64]] = {}
    for answer in every:
        here_K = np.array([item_id in facts.index for item_id in answer.item_ids])
        if not here_K.any():
            continue
        skipped -= int(here_K.sum())
        for name, pair in _compared(known, facts, answer, here_K).items():
            parts.setdefault(name, []).append(pair)
    features = [_summed(name, np.concatenate(found, axis=1)) for name, found in parts.items()]
    features.sort(key=lambda one: (-one.differing, -one.mean, one.feature))
    rows = max((one.rows for one in features), default=0)
    return Skew(len(every), rows, skipped, features)


def _answers(home: Home, catalogue: str, since_ms: int, until_ms: int) -> list[_Answer]:
    span = (pc.field("timestamp_ms") >= since_ms) & (pc.field("timestamp_ms") < until_ms)
    table = read_days(home / "decisions" / catalogue, _READ, "decision_id", span)
    lengths: Any = pc.list_value_length(table["features"])
    table = table.filter(pc.greater(pc.fill_null(lengths, 0), pa.scalar(0)))
    found = [answer for answer in _decoded(table) if answer is not None]
    merged = read_merges(home, catalogue).merges
    ends = frozenset(merge.into_user for merge in merged.values())
    apart = (
        merged.keys() | ends | opted_out(home, catalogue)
    )  # the log alone does not tell what was read of them
    return [answer for answer in found if answer.user_id not in apart][-MOST_ANSWERS:]


def _decoded(table: pa.Table) -> Iterator[_Answer | None]:
    """The rows by time; None for those that were ranked without the record that the log tells of."""
    columns: dict[str, list[Any]] = table.to_pydict()
    for n in range(len(table)):
        names, item_ids = columns["feature_names"][n], columns["item_ids"][n]
        values = np.array(columns["features"][n], np.float64)
        if _SKIPPED_RUNGS & {*(columns["rungs"][n] or ())} or len(values) != len(names) * len(item_ids):
            yield None
            continue
        value_KF = values.reshape(len(item_ids), len(names))
        place = place_of(dict(columns["context"][n] or ()))
        at_ms = columns["timestamp_ms"][n]
        yield _Answer(columns["user_id"][n] or "", at_ms, item_ids, value_KF, names, place)


def _known(
    home: Home, catalogue: str, late_days: int, facts: ItemFacts, answers: list[_Answer]
) -> KnownRecords:
    users = {answer.user_id for answer in answers}
    items = {item_id for answer in answers for item_id in answer.item_ids}
    some = concerning(sorted(users), sorted(items))
    archived = read_days(home / "events" / catalogue, EVENT_SCHEMA, "event_id", some)
    events = state_events(home, catalogue, archived, late_days, some)
    return KnownRecords(events, events["received_ms"].to_numpy(), facts)


def _compared(known: KnownRecords, facts: ItemFacts, answer: _Answer, here_K: Any) -> dict[str, Float64]:
    """By feature, how far each row is off, and whether it differs: (2, R)."""
    item_index = np.array([facts.index[item_id] for item_id in np.array(answer.item_ids)[here_K]], np.int32)
    first, last = answer.at_ms - LAG_MS, answer.at_ms + LAG_MS
    moments = [first, *known.changes(answer.user_id, first, last)[-_MOST_MOMENTS:], last]
    value_MKF = np.array(
        [
            known.features(answer.user_id, item_index, moment, answer.at_ms, answer.place)
            for moment in moments
        ],
        np.float64,
    )
    low_KF, high_KF = value_MKF.min(axis=0), value_MKF.max(axis=0)
    found = {}
    for place, name in enumerate(answer.names):
        if name in REQUEST_FEATURES and name != AMONG_CANDIDATES:
            f = REQUEST_FEATURES.index(name)
            value_K = answer.value_KF[here_K, place]
            nearest_K = np.clip(value_K, low_KF[:, f], high_KF[:, f])
            off_K = np.abs(value_K - nearest_K)
            found[name] = np.stack([off_K, off_K > ABSOLUTE + RELATIVE * np.abs(nearest_K)])
    return found


def _summed(name: str, found_2R: Float64) -> FeatureSkew:
    off_R, differs_R = found_2R
    return FeatureSkew(name, len(off_R), float(differs_R.mean()), float(off_R.mean()), float(off_R.max()))
