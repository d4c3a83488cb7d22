"""Items like those of a history, by content vectors: the plainest model that knows an item before anyone took it.

Shape letters: B askers, I items, N later items, D dimension.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from tastemaker.errors import DataError
from tastemaker.features.content import ContentConfig, ContentSpace, as_tensors, space_in
from tastemaker.features.content.words import unit
from tastemaker.models.cold.item_content import fit_space, items_of
from tastemaker.models.cold.later import KnowsLater, content_of_taken
from tastemaker.models.log import Askers, Log
from tastemaker.models.memory.strangers import ByHistory, popularity_of
from tastemaker.strict import Strict
from tastemaker.types import Float32


class ContentKnnConfig(Strict):
    """Content neighbours."""

    content: ContentConfig = Field(
        default_factory=ContentConfig, description="content vectors, and whether they are projected"
    )


class ContentKnn(ByHistory, KnowsLater):
    """Cosine of an item's content vector with the mean of those of the history [Pazzani & Billsus 2007, after Rocchio].

    What was liked counts alike, whatever its value. Whoever has no history gets what is popular.
    """

    kind = "content-knn"
    scores_are_products = True
    Config: ClassVar[type[Strict]] = ContentKnnConfig

    def __init__(
        self, config: ContentKnnConfig, space: ContentSpace | None, vectors_ID: Float32, popular_I: Float32
    ) -> None:
        self.config: ContentKnnConfig = config
        self.knows_later = space is not None  # the first releases saved such models without their space
        if space is not None:
            self.space = space
        self._vectors_ID, self.popular_I = vectors_ID, popular_I
        self.num_items, self._later_ND = len(vectors_ID), vectors_ID[:0]

    @classmethod
    def fit(cls, log: Log, config: ContentKnnConfig) -> Self:
        """See `Recommender.fit`.

        Raises:
            DataError: The log is empty or has no table of items.
        """
        if not len(log):
            raise DataError("the log of content neighbours is empty", mend="import events")
        space, vectors_ID = fit_space(items_of(log, cls.kind), config.content, log)
        return cls(config, space, vectors_ID, popularity_of(log.matrix()))

    def item_vectors(self) -> Float32:
        """See `Recommender.item_vectors`."""
        return self._vectors_ID

    def user_vectors(self, askers: Askers) -> Float32:
        """See `Recommender.user_vectors`; zeros for an empty history."""
        sum_BD, _ = content_of_taken(askers, self._vectors_ID, self._later_ND)
        return unit(sum_BD)

    def later_features(self, items: pa.Table, content_NC: Float32) -> Float32:  # noqa: ARG002
        """See `KnowsLater.later_features`."""
        return content_NC

    def later_vectors(self, features_NF: Float32) -> Float32:
        """See `KnowsLater.later_vectors`."""
        return features_NF

    def with_later(self, features_NF: Float32) -> Self:
        """See `KnowsLater.with_later`."""
        model = type(self)(self.config, self.space, self._vectors_ID, self.popular_I)
        model._later_ND = features_NF
        return model

    def personal_scores(self, askers: Askers) -> Float32:
        """See `ByHistory`."""
        return np.asarray(self.user_vectors(askers) @ self._vectors_ID.T, np.float32)

    def tensors(self) -> dict[str, np.ndarray]:
        """See `Recommender.tensors`."""
        space = as_tensors(self.space) if self.knows_later else {}
        return {"vectors": self._vectors_ID, "popular": self.popular_I, **space}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        """See `Recommender.from_state`."""
        # Some bundles have the space's config beside the model's; `space_in` reads both forms.
        parsed = ContentKnnConfig.parse(config.get("config", config), "model content-knn")
        return cls(parsed, space_in(config, tensors), tensors["vectors"], tensors["popular"])
