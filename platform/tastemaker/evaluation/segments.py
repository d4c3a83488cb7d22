"""Metrics of parts of the users, and of parts of the targets: by activity, country, popularity and age of items.

Shape letters: U askers, I catalogue, K slots.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tastemaker.evaluation import metrics
from tastemaker.evaluation.measuring import Measured
from tastemaker.evaluation.windows import Fold
from tastemaker.types import Bool, Float64, Int32, Strings

_DAY_MS = 86_400_000
_AGES = ((30.0, "up to 30 days"), (365.0, "to a year"), (np.inf, "older"))
_ACTIVITY = ("light users", "middling users", "heavy users")


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of what was asked: how many users it has, and the mean of each metric over them."""

    kind: str
    name: str
    num_users: int
    values: Mapping[str, float]


def segments(
    measured: Measured,
    fold: Fold,
    names: Sequence[str],
    shown: Sequence[str],
    labels_U: Mapping[str, Strings] | None = None,
    *,
    graded: bool = False,
) -> list[Segment]:
    """The segments of these kinds: activity, popularity, item-age, or a key of `labels_U`.

    Activity is thirds of the askers by how much they had taken; popularity and item-age are of the targets: the fewest items that
    have half of all rows are the head, the next that have three tenths the middle, the rest the tail; age is time since the
    item was first taken. A user whose targets are of several parts counts in each with those of the part alone.

    Args:
        measured: Of whose lists.
        fold: That they are for.
        names: Kinds of segments.
        shown: Metrics of users' segments; of parts of targets it is recall and NDCG of these depths.
        labels_U: Further kinds: a word for each asker, "" for none.
        graded: Whether NDCG takes the values of targets as grades, as it must where `measured` did.
    """
    found = []
    for kind in names:
        if kind == "activity":
            found += _of_users(kind, measured, shown, _activity(fold))
        elif kind in ("popularity", "item-age"):
            parts = _popularity(fold) if kind == "popularity" else _ages(fold)
            grades = [value_M.astype(np.float64) for value_M in fold.values] if graded else None
            found += [
                _of_targets(kind, name, measured, fold.targets, grades, kept, shown)
                for name, kept in parts.items()
            ]
        elif labels_U is not None and kind in labels_U:
            words = {str(word): labels_U[kind] == word for word in sorted(set(labels_U[kind])) if word}
            found += _of_users(kind, measured, shown, words)
    return [segment for segment in found if segment.num_users]


def _activity(fold: Fold) -> dict[str, Bool]:
    length_U = np.array([len(history_L) for history_L in fold.askers.histories])
    rank_U = np.empty(len(length_U), np.int64)
    rank_U[np.argsort(length_U, kind="stable")] = np.arange(len(length_U))
    third_U = rank_U * len(_ACTIVITY) // len(length_U)
    return {name: third_U == third for third, name in enumerate(_ACTIVITY)}


def _of_users(
    kind: str, measured: Measured, shown: Sequence[str], parts: Mapping[str, Bool]
) -> list[Segment]:
    per_user = measured.evaluation.per_user
    return [
        Segment(
            kind, name, int(mask_U.sum()), {metric: _mean(per_user[metric][mask_U]) for metric in shown if metric in per_user}
        )
        for name, mask_U in parts.items()
    ]  # fmt: skip


def _popularity(fold: Fold) -> dict[str, list[Bool]]:
    count_I = np.bincount(fold.train.item_N, minlength=fold.train.num_items)
    order_I = np.argsort(-count_I, kind="stable")
    before_I = np.empty(len(count_I), np.float64)
    before_I[order_I] = (np.cumsum(count_I[order_I]) - count_I[order_I]) / max(count_I.sum(), 1)
    part_I = np.digitize(before_I, [0.5, 0.8])
    names = ("head items", "middle items", "tail items")
    return {name: [part_I[items] == part for items in fold.targets] for part, name in enumerate(names)}


def _ages(fold: Fold) -> dict[str, list[Bool]]:
    first_I = np.full(fold.train.num_items, np.iinfo(np.int64).max)
    np.minimum.at(first_I, fold.train.item_N, fold.train.timestamp_ms_N)
    ages = [
        np.maximum(times_ms - np.minimum(first_I[items], times_ms), 0) / _DAY_MS
        for items, times_ms in zip(fold.targets, fold.timestamp_ms, strict=True)
    ]
    limits = np.array([limit for limit, _ in _AGES])
    return {
        name: [np.searchsorted(limits, age) == part for age in ages] for part, (_, name) in enumerate(_AGES)
    }


def _of_targets(
    kind: str,
    name: str,
    measured: Measured,
    targets: Sequence[Int32],
    grades: Sequence[Float64] | None,
    kept: Sequence[Bool],
    shown: Sequence[str],
) -> Segment:
    targets = [items[mask] for items, mask in zip(targets, kept, strict=True)]
    if grades is not None:
        grades = [grade_M[mask] for grade_M, mask in zip(grades, kept, strict=True)]
    size_U = metrics.num_targets(targets)
    hit_UK = metrics.relevance(measured.ranked_UK, targets)
    grade_UK = hit_UK if grades is None else metrics.relevance(measured.ranked_UK, targets, grades)
    ideal_UM = metrics.ideal_grades(targets, grades)
    values = {}
    for metric in shown:
        base, _, depth = metric.partition("@")
        if base == "recall":
            values[metric] = _mean(metrics.recall(hit_UK, size_U, int(depth)))
        elif base == "ndcg":
            values[metric] = _mean(metrics.ndcg(grade_UK, ideal_UM, int(depth)))
    return Segment(kind, name, int((size_U > 0).sum()), values)


def _mean(value_U: Float64) -> float:
    return float(np.nanmean(value_U)) if (~np.isnan(value_U)).any() else float("nan")
