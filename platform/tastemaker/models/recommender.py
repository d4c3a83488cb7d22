"""What every recommendation model is: fitted on a log, asked for lists or scores, saved as tensors and a config.

The one interface of the zoo. Logs and askers: see `log`. How a model becomes a source of the serving graph: see `stages`.
Models that rank rows of features instead of whole catalogues: see `ctr.model`.

Shape letters: I items, B askers, K slots, C given items, D dimension.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from tastemaker.errors import UsageError
from tastemaker.models.log import Askers, Filters, Log
from tastemaker.strict import Strict
from tastemaker.types import Float32, Int32, Int64

PADDING = -1
"""In place of an item's row: there are no more."""
ALL_UNSEEN = Filters()
_BLOCK_SCORES = 2**24


class Recommender(ABC):
    """A model that scores all items of a catalogue for whoever asks; never an exception for somebody unknown.

    Subclasses give `fit`, `scores`, and what saves them: `tensors` and `from_state` (the config is JSON). They keep no
    reference to the log. Equal scores are ordered by row, so that lists are the same everywhere.
    """

    kind: ClassVar[str]
    """Its name in recipes and bundles."""
    Config: ClassVar[type[Strict]]
    """What its recipe says."""
    needs_history: ClassVar[bool] = True
    """Whether whoever has no history gets what holds for everybody, and no list of their own."""
    predicts_values: ClassVar[bool] = False
    """Whether its scores are in the units of the log's values, such as stars, and not of order alone."""
    user_tensors: ClassVar[tuple[str, ...]] = ()
    """Those of its tensors that have a row for each user of the log and say nothing of strangers."""

    config: Strict
    num_items: int
    losses: tuple[float, ...] = ()
    """Of each pass over the log when it was fitted, where there is a loss; not saved."""

    @classmethod
    @abstractmethod
    def fit(cls, log: Log, config: Any) -> Self:
        """Learns from a log; the same log and config give the same model.

        Raises:
            DataError: The log has nothing that this model could learn from.
        """

    @classmethod
    def resume_fit(cls, log: Log, config: Any, checkpoints: Path) -> Self:
        """`fit`, going on from what a fit that was broken off left in a folder; kinds that leave nothing begin anew.

        Raises:
            DataError: See `fit`.
            TrainingError: What was left is of another fit.
        """
        del checkpoints
        return cls.fit(log, config)

    @abstractmethod
    def scores(self, askers: Askers) -> Float32:
        """(B, I) scores of all items, finite; higher is better. Whoever is unknown gets what holds for everybody."""

    def score(self, askers: Askers, items: Sequence[Int32]) -> list[Float32]:
        """(C,) scores of each asker's given items; NaN for rows that are no items of the catalogue."""
        found = []
        for begin, score_BI in self._blocks(askers):
            for row_I, item_C in zip(score_BI, items[begin : begin + len(score_BI)], strict=True):
                inside_C = (item_C >= 0) & (item_C < self.num_items)
                found.append(
                    np.where(inside_C, row_I[np.where(inside_C, item_C, 0)], np.nan).astype(np.float32)
                )
        return found

    def recommend(self, askers: Askers, k: int, filters: Filters = ALL_UNSEEN) -> tuple[Int32, Float32]:
        """The k best items that may be shown (B, k), best first with their scores; `PADDING` and -inf fill the end.

        Raises:
            UsageError: k is below 1.
        """
        if k < 1:
            raise UsageError("k", value=k, limit="1 or more", mend="ask for an item at least")
        item_BK = np.full((len(askers), k), PADDING, np.int32)
        best_BK = np.full((len(askers), k), -np.inf, np.float32)
        for begin, score_BI in self._blocks(askers):
            rows = slice(begin, begin + len(score_BI))
            filters.block(score_BI, askers[rows], begin)
            found_BK, found_score_BK = best(score_BI, min(k, self.num_items))
            item_BK[rows, : found_BK.shape[1]], best_BK[rows, : found_BK.shape[1]] = found_BK, found_score_BK
        return item_BK, best_BK

    def _blocks(self, askers: Askers) -> Iterator[tuple[int, Float32]]:
        size = max(1, _BLOCK_SCORES // max(1, self.num_items))
        for begin in range(0, len(askers), size):
            yield begin, np.array(self.scores(askers[begin : begin + size]), np.float32)

    def refit_config(self) -> Strict:
        """What a model of all the data should be fitted with, where this one held some of it back to know when to stop."""
        return self.config

    def without_users(self) -> Self:
        """What may be released: the same for strangers, and without a row of any user, all of whom are strangers to it.

        Kinds that answer strangers by the histories of others (`user-knn`, `rating-knn`) keep those.
        """
        if not self.user_tensors:
            return self
        tensors = {
            name: value[:0] if name in self.user_tensors else value for name, value in self.tensors().items()
        }
        return self.from_state(self.config_dict(), tensors)

    def item_vectors(self) -> Float32 | None:
        """(I, D) whose inner products with `user_vectors` order items as `scores` does; None where there are none."""
        return None

    def user_vectors(self, askers: Askers) -> Float32 | None:  # noqa: ARG002
        """(B, D), see `item_vectors`."""
        return None

    def config_dict(self) -> dict[str, Any]:
        """What `from_state` needs beside the tensors; JSON."""
        return self.config.model_dump(mode="json")

    @abstractmethod
    def tensors(self) -> Mapping[str, np.ndarray]:
        """What was learned, as arrays that safetensors can hold."""

    @classmethod
    @abstractmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        """The model that `config_dict` and `tensors` describe.

        Raises:
            CompatibilityError: Config and tensors do not belong together.
        """


def best(score_BI: Float32, k: int) -> tuple[Int32, Float32]:
    """The k largest of each row (B, k), largest first, of equals the lower row; `PADDING` where the score is -inf."""
    num_items = score_BI.shape[1]
    if k >= num_items:
        found_BK = np.broadcast_to(np.arange(num_items), score_BI.shape)
    else:
        found_BK = np.argpartition(score_BI, num_items - k, axis=1)[:, num_items - k :]
        found_BK.sort(axis=1)
        _settle_ties(score_BI, found_BK)
    value_BK = np.take_along_axis(score_BI, found_BK, axis=1)
    order_BK = np.argsort(-value_BK, axis=1, kind="stable")
    value_BK = np.take_along_axis(value_BK, order_BK, axis=1)
    item_BK = np.take_along_axis(found_BK, order_BK, axis=1)
    return np.where(np.isneginf(value_BK), PADDING, item_BK).astype(np.int32), value_BK


def _settle_ties(score_BI: Float32, found_BK: Int64) -> None:
    """Where more items score as the least of the found does, the lowest rows of these take the last places."""
    least_B1 = np.take_along_axis(score_BI, found_BK, axis=1).min(axis=1, keepdims=True)
    num_equal_B = (score_BI == least_B1).sum(axis=1)
    num_taken_B = (np.take_along_axis(score_BI, found_BK, axis=1) == least_B1).sum(axis=1)
    for b in np.flatnonzero(num_equal_B > num_taken_B):
        above, equal = np.flatnonzero(score_BI[b] > least_B1[b]), np.flatnonzero(score_BI[b] == least_B1[b])
        found_BK[b] = np.sort(np.concatenate([above, equal[: found_BK.shape[1] - len(above)]]))
