"""What can be evaluated: a model of the zoo over the whole catalogue, or a bundle's pipeline as it serves.

Shape letters: B askers of a block, K slots, I catalogue, M targets of an asker.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from tastemaker.errors import DataError
from tastemaker.evaluation.metrics import PADDING, num_targets, ratio
from tastemaker.models.log import Askers, Filters
from tastemaker.models.recommender import Recommender
from tastemaker.models.top import best, num_true
from tastemaker.types import Bool, Float32, Float64, Int32, Int64

if TYPE_CHECKING:
    from tastemaker.evaluation.replay import Replay

_FEW_TARGETS = 8


@dataclass(frozen=True, slots=True)
class Answers:
    """Lists (B, K), where all items are scored the AUC of each asker, and of models that guess values the targets' as they are."""

    ranked_BK: Int32
    auc_B: Float64 | None = None
    target_scores: Sequence[Float32] | None = None


class System(Protocol):
    """Something that makes lists. Asked by several threads at once."""

    def answer(self, askers: Askers, targets: Sequence[Int32], k: int) -> Answers:
        """The lists of a block of askers, what they have taken left out."""
        ...


class ModelSystem:
    """A fitted model.

    With `sampled`, the items that are ranked are each asker's targets and so many others that the asker has not, drawn by the asker's
    row: a measure of its own, not of the catalogue [Krichene & Rendle 2020]. With `allowed_I` lists have no items but these.
    """

    def __init__(self, model: Recommender, sampled: int | None = None, allowed_I: Bool | None = None) -> None:
        self.model, self._sampled, self._filters = model, sampled, Filters(allowed_I=allowed_I)

    def answer(self, askers: Askers, targets: Sequence[Int32], k: int) -> Answers:
        """See `System.answer`.

        Raises:
            DataError: The model scores an item with NaN or infinity.
        """
        score_BI = np.array(self.model.scores(askers), np.float32)
        of_targets = None
        if self.model.predicts_values:
            of_targets = [row_I[items] for row_I, items in zip(score_BI, targets, strict=True)]
        self._filters.block(score_BI, askers)
        if self._sampled is not None:
            self._sample(score_BI, askers, targets)
        auc_B = aucs(score_BI, targets)
        ranked_BK, best_BK = best(score_BI, min(k, score_BI.shape[1]))
        first_B = best_BK[:, 0]  # where NaN and infinity stand
        if not (first_B < np.inf).all():
            raise DataError(
                f"a score of a model {self.model.kind}", value=float(first_B[~(first_B < np.inf)][0]), limit="finite",
                mend="fit it anew, by a lower learning rate",
            )  # fmt: skip
        if ranked_BK.shape[1] < k:
            ranked_BK = np.pad(ranked_BK, ((0, 0), (0, k - ranked_BK.shape[1])), constant_values=PADDING)
        return Answers(ranked_BK, auc_B, of_targets)

    def _sample(self, score_BI: Float32, askers: Askers, targets: Sequence[Int32]) -> None:
        """Leaves the targets and a draw of the others."""
        assert self._sampled is not None
        for user, row_I, items in zip(askers.row_B, score_BI, targets, strict=True):
            free_I = np.isfinite(row_I)
            free_I[items] = False
            others = np.flatnonzero(free_I)
            draws = np.random.default_rng(int(user))
            kept = draws.choice(others, min(self._sampled, len(others)), replace=False)
            gone_I = np.ones(len(row_I), np.bool_)
            gone_I[kept] = False
            gone_I[items] = False
            row_I[gone_I] = -np.inf


class BundleSystem:
    """A bundle's pipeline, asked by histories alone; ids join its catalogue with the log's."""

    def __init__(self, replay: "Replay", item_ids: Sequence[str]) -> None:
        self._replay, self._item_ids = replay, item_ids
        self._row = {item_id: row for row, item_id in enumerate(item_ids)}

    def answer(self, askers: Askers, targets: Sequence[Int32], k: int) -> Answers:  # noqa: ARG002
        """See `System.answer`."""
        sessions = [[self._item_ids[row] for row in history_L] for history_L in askers.histories]
        ranked_BK = np.full((len(askers), k), PADDING, np.int32)
        slates = self._replay.slates(
            sessions, k, None
        )  # several blocks are asked at once, and one bar is enough
        for row_K, slate in zip(ranked_BK, slates, strict=True):
            rows = [self._row[item_id] for item_id in slate if item_id in self._row]
            row_K[: len(rows)] = rows
        return Answers(ranked_BK)


def aucs(score_BI: Float32, targets: Sequence[Int32]) -> Float64:
    """(B,) the chance that a target scores above another item that may be shown, equals counting half; NaN without both.

    What may not be shown has -inf; such a target is above none.

    >>> scores = np.array([[3.0, 1.0, 2.0, -np.inf]], np.float32)
    >>> aucs(scores, [np.array([2], np.int32)]).tolist()  # above item 1, below item 0
    [0.5]
    """
    size_B = num_targets(targets)
    found_B = np.full(len(targets), np.nan)
    if not len(targets):
        return found_B
    few_B = np.flatnonzero((size_B > 0) & (size_B <= _FEW_TARGETS))
    if len(few_B) == len(targets):
        return _of_few(score_BI, targets, size_B)
    if len(few_B):
        found_B[few_B] = _of_few(score_BI[few_B], [targets[row] for row in few_B.tolist()], size_B[few_B])
    for row in np.flatnonzero(size_B > _FEW_TARGETS).tolist():
        found_B[row] = _of_many(score_BI[row], targets[row])
    return found_B


def _of_few(score_BI: Float32, targets: Sequence[Int32], size_B: Int64) -> Float64:
    """Counts what each target beats, one target of every row at a time."""
    blocked_B = num_true(score_BI == -np.inf)
    target_BM = np.full((len(score_BI), int(size_B.max())), np.nan, np.float32)
    row_N, begin_B = np.repeat(np.arange(len(targets)), size_B), np.cumsum(size_B) - size_B
    score_N = score_BI[row_N, np.concatenate(targets)]
    target_BM[row_N, np.arange(len(row_N)) - begin_B[row_N]] = np.where(np.isfinite(score_N), score_N, np.nan)
    beaten_B = np.zeros(len(score_BI))
    for target_B1 in np.split(target_BM, target_BM.shape[1], axis=1):
        for beats in (np.greater, np.greater_equal):
            counted_B = num_true(beats(target_B1, score_BI)) - blocked_B
            counted_B -= beats(target_B1, target_BM).sum(axis=1)
            beaten_B += np.where(np.isfinite(target_B1[:, 0]), counted_B, 0)
    others_B = score_BI.shape[1] - blocked_B - np.isfinite(target_BM).sum(axis=1)
    return ratio(beaten_B / 2, others_B * size_B)


def _of_many(score_I: Float32, items_M: Int32) -> float:
    """By sorting."""
    target_M = score_I[items_M]
    other_I = np.isfinite(score_I)
    other_I[items_M] = False
    negative = np.sort(score_I[other_I])
    if not len(negative):
        return float("nan")
    beaten = sum(int(np.searchsorted(negative, target_M, side=side).sum()) for side in ("left", "right"))
    return beaten / 2 / (len(target_M) * len(negative))
