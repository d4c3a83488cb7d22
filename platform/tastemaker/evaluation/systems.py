"""What can be evaluated: a model of the zoo over the whole catalogue, or a bundle's pipeline as it serves.

Shape letters: B askers of a block, K slots, I catalogue, M targets of an asker.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from tastemaker.evaluation.metrics import PADDING
from tastemaker.models.log import Askers, Filters
from tastemaker.models.recommender import Recommender, best
from tastemaker.types import Float32, Float64, Int32

if TYPE_CHECKING:
    from tastemaker.evaluation.replay import Replay

_FEW_TARGETS = 8


@dataclass(frozen=True, slots=True)
class Answers:
    """Lists (B, K), and where all items are scored the AUC of each asker and the scores of the targets as they are."""

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
    row: a measure of its own, not of the catalogue [Krichene & Rendle 2020].
    """

    def __init__(self, model: Recommender, sampled: int | None = None) -> None:
        self.model, self._sampled = model, sampled

    def answer(self, askers: Askers, targets: Sequence[Int32], k: int) -> Answers:
        """See `System.answer`."""
        score_BI = np.array(self.model.scores(askers), np.float32)
        of_targets = [row_I[items] for row_I, items in zip(score_BI, targets, strict=True)]
        Filters().block(score_BI, askers)
        if self._sampled is not None:
            self._sample(score_BI, askers, targets)
        auc_B = np.array([_auc(row_I, items) for row_I, items in zip(score_BI, targets, strict=True)])
        ranked_BK = best(score_BI, min(k, score_BI.shape[1]))[0]
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


def _auc(score_I: Float32, items_M: Int32) -> float:
    """The chance that a target scores above another item that may be shown, equals counting half; NaN without both."""
    target_M = score_I[items_M]
    other_I = np.isfinite(score_I)
    other_I[items_M] = False
    negative = score_I[other_I]
    if not len(negative) or not len(target_M):
        return float("nan")
    if len(target_M) <= _FEW_TARGETS:
        below = sum(int((negative < score).sum()) + int((negative <= score).sum()) for score in target_M)
    else:
        negative = np.sort(negative)
        below = sum(int(np.searchsorted(negative, target_M, side=side).sum()) for side in ("left", "right"))
    return below / 2 / (len(target_M) * len(negative))
