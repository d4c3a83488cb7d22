"""What a shadow version would have shown, beside what was shown: agreement, time, failures. Nobody saw its answers.

Agreement says how different a version is, not how good: that takes an experiment.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tastemaker.errors import ExperimentError
from tastemaker.events.archive import read_days
from tastemaker.experiments.decision_log import DECISION_SCHEMA, SHADOW_FAILED
from tastemaker.experiments.statistics.ratios import ratio, unit_totals
from tastemaker.home import Home
from tastemaker.types import Float64, Origin

_COLUMNS: Final = (
    "decision_id", "request_id", "timestamp_ms", "received_ms", "origin", "unit", "bundle", "item_ids",
    "rungs", "timings_ms", "shadow_of", "cached_from",
)  # fmt: skip
_READ: Final = pa.schema([DECISION_SCHEMA.field(name) for name in _COLUMNS])


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """A shadow bundle beside what was shown in the same span of time, empty lists left out: with nothing shown nothing agrees.

    `mirrored` is the share of shown answers that the shadow was asked for, `failed` the share of those that it failed.
    `overlap` is the share of shown items that its slate has too, over pairs without fallbacks, with its 95% interval
    by units; None below two units. `same_first` is the share of pairs with the same first item. Times are in milliseconds, of
    the pairs whose shown list was made for that request and not answered again, as a shadow makes each anew; `shadow_all_p99_ms` is of all pairs. `items` are the
    different ones in all slates of those pairs.
    """

    bundle: str
    shown_by: tuple[str, ...]
    num_shown: int
    num_pairs: int
    mirrored: float
    failed: float
    overlap: float | None
    overlap_low: float | None
    overlap_high: float | None
    same_first: float | None
    shown_p50_ms: float | None
    shown_p99_ms: float | None
    shadow_p50_ms: float | None
    shadow_p99_ms: float | None
    shadow_all_p99_ms: float | None
    items_shown: int
    items_shadow: int


def shadow_report(
    home: Home,
    catalogue: str,
    since_ms: int,
    until_ms: int,
    origin: Origin = "live",
    bundle: str | None = None,
) -> ShadowReport:
    """One shadow bundle in a span of time.

    Args:
        home: Holds the archive.
        catalogue: Whose answers.
        since_ms: Answers from the later of then and the bundle's first answer on.
        until_ms: Answers before then.
        origin: Of the requests.
        bundle: Its id; unset, the bundle that was the shadow last.

    Raises:
        ExperimentError: No request was mirrored to it.
        DataError: A file cannot be read.
    """
    span = (pc.field("timestamp_ms") >= since_ms) & (pc.field("timestamp_ms") < until_ms)
    of_origin = span & (pc.field("origin") == origin)
    table = read_days(home / "decisions" / catalogue, _READ, "decision_id", of_origin)
    rows = _without_empty(table.to_pylist())
    shadows = [row for row in rows if row["shadow_of"] is not None]
    bundle = bundle or (shadows[-1]["bundle"] if shadows else None)
    mine = [row for row in shadows if row["bundle"] == bundle]
    if bundle is None or not mine:
        to = f" to bundle {bundle}" if bundle else ""
        raise ExperimentError(
            f"no {origin} request of the time was mirrored{to}",
            mend="point the alias shadow at the version, and see that gateways and the consumer run",
        )
    shown = [
        row for row in rows if row["shadow_of"] is None and row["timestamp_ms"] >= mine[0]["timestamp_ms"]
    ]
    return _report(bundle, shown, mine)


def _without_empty(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The answers but those that showed nothing, and what a shadow said to these."""
    empty = {row["request_id"] for row in rows if row["shadow_of"] is None and not row["item_ids"]}
    return [row for row in rows if row["request_id"] not in empty and row["shadow_of"] not in empty]


def _report(bundle: str, shown: list[dict[str, Any]], shadows: list[dict[str, Any]]) -> ShadowReport:
    by_id = {row["request_id"]: row for row in shown}
    answered = [row for row in shadows if SHADOW_FAILED not in (row["rungs"] or ())]
    pairs = [
        (by_id[row["shadow_of"]], row)
        for row in answered
        if row["shadow_of"] in by_id and not by_id[row["shadow_of"]]["rungs"]
    ]
    num_mirrored = sum(row["shadow_of"] in by_id for row in shadows)
    estimate = _overlap(pairs)
    anew = [(first, other) for first, other in pairs if first["cached_from"] is None]
    shown_ms, shadow_ms = (np.array([_took_ms(pair[side]) for pair in anew]) for side in (0, 1))
    return ShadowReport(
        bundle=bundle,
        shown_by=tuple(sorted({first["bundle"] for first, _ in pairs})),
        num_shown=len(shown),
        num_pairs=len(pairs),
        mirrored=num_mirrored / len(shown) if shown else 0.0,
        failed=1 - len(answered) / len(shadows),
        overlap=estimate[0],
        overlap_low=estimate[1],
        overlap_high=estimate[2],
        same_first=_mean([first["item_ids"][:1] == other["item_ids"][:1] for first, other in pairs]),
        shown_p50_ms=_percentile(shown_ms, 50),
        shown_p99_ms=_percentile(shown_ms, 99),
        shadow_p50_ms=_percentile(shadow_ms, 50),
        shadow_p99_ms=_percentile(shadow_ms, 99),
        shadow_all_p99_ms=_percentile(np.array([_took_ms(other) for _, other in pairs]), 99),
        items_shown=len({item for first, _ in pairs for item in first["item_ids"]}),
        items_shadow=len({item for _, other in pairs for item in other["item_ids"]}),
    )


def overlap(shown: list[str], other: list[str]) -> int:
    """Items of `shown` that `other` has too; of what is there several times, as many as both have.

    >>> overlap(["a", "b", "c"], ["c", "a", "d"])
    2
    """
    return (Counter(shown) & Counter(other)).total()


def _overlap(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> tuple[float | None, ...]:
    """Shared items over shown ones, and the interval by units."""
    common = np.array([overlap(first["item_ids"], other["item_ids"]) for first, other in pairs], np.float64)
    lengths = np.array([len(first["item_ids"]) for first, _ in pairs], np.float64)
    if not lengths.sum():
        return None, None, None
    units = [first["unit"] for first, _ in pairs]
    if len(set(units)) < 2:
        return float(common.sum() / lengths.sum()), None, None
    found = ratio(unit_totals(units, np.zeros(len(pairs), np.int64), common, lengths, 1), 0)
    return found.value, max(found.low, 0.0), min(found.high, 1.0)


def _took_ms(row: dict[str, Any]) -> float:
    return float(dict(row["timings_ms"] or ()).get("total", np.nan))


def _mean(values: list[bool]) -> float | None:
    return float(np.mean(values)) if values else None


def _percentile(values: Float64, percent: float) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.percentile(known, percent)) if len(known) else None
