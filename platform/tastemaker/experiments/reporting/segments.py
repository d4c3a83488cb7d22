"""Metrics within parts of the traffic: devices, countries, and how much units had done before.

Shape letters: R decisions, D draws.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from tastemaker.experiments.metrics import Metric
from tastemaker.experiments.reporting.comparisons import Comparison, Interval, compare, corrected, p_values_of
from tastemaker.experiments.reporting.narrow import Narrow, narrow
from tastemaker.experiments.reporting.observations import Observations, where
from tastemaker.experiments.reporting.weighing import Weighing
from tastemaker.experiments.statistics.multiplicity import benjamini_hochberg
from tastemaker.strict import Strict
from tastemaker.types import Bool, Int64, Strings

BUCKETS: Final = ("0", "1-10", "10-50", "50+")
"""Of the number of interactions before the experiment: none, fewer than 10, fewer than 50, and from 50 on."""
MOST_SEGMENTS: Final = 8
"""Of one kind; those of fewer units are `other`."""


BUCKET: Final = "interactions before"
"""The kind of segment by which every metric is told; by the others the primary one alone."""


class SegmentReport(Strict):
    """A metric within one part of the traffic; lists run over the variants, comparisons over all but the control."""

    kind: str
    name: str
    metric: str
    units: int
    decisions: int
    values: tuple[Interval, ...]
    comparisons: tuple[Comparison, ...]


def by_segment(
    seen: Observations, primary: Metric, others: Sequence[Metric], weighing: Weighing
) -> tuple[SegmentReport, ...]:
    """The primary metric in all segments that are not all of the traffic, and behind them the others by the number of interactions before.

    A unit stays in the segment of its first decision, so that no variant moves units between segments. The p-values of the
    primary metric are corrected together, and so are those of all others, so that of the differences told at most a share is by chance
    [Benjamini & Hochberg 1995].
    """
    smaller = weighing.experiment.model_copy(update={"minimum_detectable_effect": None})
    weighing = replace(
        weighing, experiment=smaller
    )  # what is worth finding among all is out of reach in a part
    found: dict[str, list[SegmentReport]] = {metric.name: [] for metric in (primary, *others)}
    for kind, names, name_R in _names(seen):
        for place in _in_order(kind, name_R):
            mine_R, name = name_R == place, names[place]
            if kind == BUCKET or not mine_R.all():
                part = where(seen, mine_R)  # one at a time: it is a copy
                for metric in (primary, *(others if kind == BUCKET else ())):
                    found[metric.name].append(_report(part, kind, name or "unknown", metric, weighing))
    return (
        *_corrected(found[primary.name]),
        *_corrected([report for metric in others for report in found[metric.name]]),
    )


def _report(part: Observations, kind: str, name: str, metric: Metric, weighing: Weighing) -> SegmentReport:
    report = compare(part, metric, weighing)
    return SegmentReport(
        kind=kind,
        name=name,
        metric=metric.name,
        units=part.num_units(),
        decisions=report.decisions,
        values=report.values,
        comparisons=report.comparisons,
    )


def _corrected(reports: Sequence[SegmentReport]) -> Iterator[SegmentReport]:
    """With p-values that have all of the reports' in mind."""
    p_values = benjamini_hochberg(p_values_of(reports)).tolist()
    return iter(corrected(reports, p_values))


def buckets_of(interactions_U: Int64) -> Strings:
    """The bucket of each number of interactions.

    >>> buckets_of(np.array([0, 1, 9, 10, 49, 50])).tolist()
    ['0', '1-10', '1-10', '10-50', '10-50', '50+']
    """
    return np.array(BUCKETS, object)[np.searchsorted([1, 10, 50], interactions_U, side="right")]


def _names(seen: Observations) -> Iterator[tuple[str, list[str], Narrow]]:
    """Kinds of segments, the names of each, and the place among them of each decision's."""
    unit_R, rows = seen.rows.unit_R, seen.rows
    first_U = np.full(len(seen.units), len(seen))
    np.minimum.at(first_U, unit_R, np.arange(len(seen)))
    first_U = np.minimum(first_U, len(seen) - 1)  # of units that these observations have none of
    devices = np.array([name.lower() for name in rows.devices], object)
    countries = np.array([name.upper() for name in rows.countries], object)
    for kind, name_U in (
        ("device", devices[rows.device_R[first_U]]),
        ("country", countries[rows.country_R[first_U]]),
    ):
        yield _numbered(kind, _merged(name_U), unit_R)
    yield _numbered(BUCKET, buckets_of(seen.past.interactions_U), unit_R)


def _numbered(kind: str, name_U: Strings, unit_R: Narrow) -> tuple[str, list[str], Narrow]:
    names, place_U = np.unique(name_U.astype(str), return_inverse=True)
    return kind, names.tolist(), narrow(place_U)[unit_R]


def _merged(name_U: Strings) -> Strings:
    names, counts = np.unique(name_U.astype(str), return_counts=True)
    kept = names[np.argsort(-counts, kind="stable")[:MOST_SEGMENTS]]
    small_U: Bool = ~np.isin(name_U.astype(str), kept)
    return np.where(small_U, "other", name_U)


def _in_order(kind: str, name_R: Narrow) -> list[int]:
    """Places of the names that occur, that of the most decisions first; the buckets' in their own order."""
    places, counts = np.unique(name_R, return_counts=True)
    if kind != BUCKET:
        places = places[np.argsort(-counts, kind="stable")]
    return [int(place) for place in places]
