"""What every recommendation model is: fitted on a log, asked for lists or scores, saved as tensors and a config.

The one interface of the zoo. Logs and askers: see `log`. How a model becomes a source of the serving graph: see `stages`.
Models that rank rows of features instead of whole catalogues: see `ctr.model`.

Shape letters: I items, J items of a range, B askers, K slots, C given items, D dimension.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from tastemaker.errors import UsageError
from tastemaker.models.log import Askers, Filters, Log
from tastemaker.models.top import PADDING, TopItems
from tastemaker.strict import Strict
from tastemaker.types import Float32, Int32

ALL_UNSEEN = Filters()
_BLOCK_SCORES = 2**22
_ITEMS_AT_ONCE = 2**16


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
    scores_are_products: ClassVar[bool] = False
    """Whether scores are the inner products of its vectors themselves, so that some items' can be had without the others'."""
    reads_attributes: ClassVar[bool] = False
    """Whether what is known of askers beside their histories says anything to it."""
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
        for begin, some in self._parts(askers, self.num_items):
            for row_I, item_C in zip(self.scores(some), items[begin : begin + len(some)], strict=True):
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
        num_items = self.num_items
        at_once = min(num_items, _ITEMS_AT_ONCE) if self.scores_are_products else num_items
        vector_ID = self.item_vectors() if self.scores_are_products else None
        for begin, some in self._parts(askers, at_once):
            top, block = TopItems(len(some), k), filters.blocking(some, begin)
            scores_of = self.scores_of(some, vector_ID)
            for first in range(0, num_items, max(1, at_once)):
                score_BJ = scores_of(slice(first, first + at_once))
                block(score_BJ, first)
                top.add(score_BJ, first)
            rows = slice(begin, begin + len(some))
            item_BK[rows], best_BK[rows] = top.item_BK, top.score_BK
        return item_BK, best_BK

    def scores_of(self, askers: Askers, vector_ID: Float32 | None) -> Callable[[slice], Float32]:
        """Gives the scores (B, J) of a range of items, the caller's to change; what all ranges need is worked out once.

        Args:
            askers: Whose.
            vector_ID: `item_vectors`, where scores are their products.
        """
        if self.scores_are_products:
            vector_BD = self.user_vectors(askers)
            assert vector_ID is not None, "products are of vectors"
            assert vector_BD is not None, "products are of vectors"
            return lambda items: np.asarray(vector_BD @ vector_ID[items].T, np.float32)
        score_BI = self.scores(askers)
        return lambda items: np.array(score_BI[:, items], np.float32)

    def _parts(self, askers: Askers, items_at_once: int) -> Iterator[tuple[int, Askers]]:
        """So many askers that their scores of as many items are no more than a block, and the place of the first."""
        size = max(1, _BLOCK_SCORES // max(1, items_at_once))
        for begin in range(0, len(askers), size):
            yield begin, askers[begin : begin + size]

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
