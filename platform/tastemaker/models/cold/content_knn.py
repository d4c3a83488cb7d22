"""Items like those of a history, by content vectors: the plainest model that knows an item before anyone took it.

Shape letters: B askers, I items, D dimension.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import Field

from tastemaker.errors import DataError
from tastemaker.features.content import ContentConfig
from tastemaker.features.content.words import unit
from tastemaker.models.cold.item_content import fit_space, items_of
from tastemaker.models.log import Askers, Log
from tastemaker.models.memory.strangers import ByHistory, popularity_of
from tastemaker.strict import Strict
from tastemaker.types import Float32


class ContentKnnConfig(Strict):
    """Content neighbours."""

    content: ContentConfig = Field(
        default_factory=ContentConfig, description="content vectors, and whether they are projected"
    )


class ContentKnn(ByHistory):
    """Cosine of an item's content vector with the mean of those of the history [Pazzani & Billsus 2007, after Rocchio].

    What was liked counts alike, whatever its value. Whoever has no history gets what is popular.
    """

    kind = "content-knn"
    scores_are_products = True
    Config: ClassVar[type[Strict]] = ContentKnnConfig

    def __init__(self, config: ContentKnnConfig, vectors_ID: Float32, popular_I: Float32) -> None:
        self.config: ContentKnnConfig = config
        self.num_items, self._vectors_ID, self.popular_I = len(vectors_ID), vectors_ID, popular_I

    @classmethod
    def fit(cls, log: Log, config: ContentKnnConfig) -> Self:
        """See `Recommender.fit`.

        Raises:
            DataError: The log is empty or has no table of items.
        """
        if not len(log):
            raise DataError("the log of content neighbours is empty", mend="import events")
        _, vectors_ID = fit_space(items_of(log, cls.kind), config.content, log)
        return cls(config, vectors_ID, popularity_of(log.matrix()))

    def item_vectors(self) -> Float32:
        """See `Recommender.item_vectors`."""
        return self._vectors_ID

    def user_vectors(self, askers: Askers) -> Float32:
        """See `Recommender.user_vectors`; zeros for an empty history."""
        return unit(np.asarray(askers.matrix(self.num_items) @ self._vectors_ID, np.float32))

    def personal_scores(self, askers: Askers) -> Float32:
        """See `ByHistory`."""
        return np.asarray(self.user_vectors(askers) @ self._vectors_ID.T, np.float32)

    def tensors(self) -> dict[str, np.ndarray]:
        """See `Recommender.tensors`."""
        return {"vectors": self._vectors_ID, "popular": self.popular_I}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        """See `Recommender.from_state`."""
        parsed = ContentKnnConfig.parse(config, "model content-knn")
        return cls(parsed, tensors["vectors"], tensors["popular"])
