"""Models of the zoo that a bundle holds, with the indexes of their items; and, where they know them, with the items put since.

Shape letters: I items of the bundle, N later ones, W rows that a step writes, F features, D dimension.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from tastemaker.data.schema import Column
from tastemaker.index.extended import ExtendedIndex, GrowingVectors
from tastemaker.models.cold.later import KnowsLater
from tastemaker.models.recommender import Recommender
from tastemaker.models.zoo import Packed
from tastemaker.stages.live_items import ContentOf, LaterItems, content_vectors
from tastemaker.stages.model_source import ModelSource
from tastemaker.stages.overlay import Step

if TYPE_CHECKING:
    from tastemaker.bundle.reader import Bundle
    from tastemaker.index.vector_index import VectorIndex


def index_of(name: str) -> str:
    """The file of a model's item vectors to search in, where there are many items; without one they are searched exactly."""
    return f"{name}.faiss"


def has_model(bundle: "Bundle", name: str) -> bool:
    """Whether a bundle has a model of the zoo of that name."""
    return bundle.has(f"{name}.json") and {"kind", "model"} <= bundle.json(f"{name}.json").keys()


@dataclass(frozen=True, slots=True)
class BundledModel:
    """A model of a bundle; `index` is None where it has no vectors, and scores whole catalogues."""

    name: str
    model: Recommender
    index: "VectorIndex | None"

    @classmethod
    def read(cls, bundle: "Bundle", name: str) -> "BundledModel":
        """That of a name, with the index that the bundle has of its items, or an exact one."""
        model = bundle.model(name, Packed)
        vectors_ID = model.item_vectors()
        if bundle.has(index_of(name)):
            return cls(name, model, bundle.searched(index_of(name)))
        if vectors_ID is None:
            return cls(name, model, None)
        if bundle.shard is not None:
            from tastemaker.bundle.part import exact_slice  # late: only those who search need FAISS

            return cls(name, model, exact_slice(bundle, vectors_ID))
        from tastemaker.index.faiss_index import FaissIndex

        return cls(name, model, FaissIndex.build(vectors_ID))

    def source(self, later: LaterItems | None = None) -> ModelSource:
        """It proposes items of the bundle, and later ones where these are given."""
        if later is None:
            return ModelSource(self.name, self.model, self.index)
        assert self.index is not None, "who knows later items has vectors"
        assert isinstance(self.model, KnowsLater), "such alone are given later items"
        model = self.model.with_later(later.features_NF)
        if not len(later.vectors_ND):
            return ModelSource(self.name, model, self.index)
        return ModelSource(self.name, model, ExtendedIndex(self.index, later.vectors_ND))


class GrowingModel:
    """The items behind a model's own, as they come; its own vectors are not copied. One thread takes steps.

    Args:
        model: Of a bundle.
        index: Of its items.
        content_of: See `BundleParts`.
    """

    def __init__(self, model: KnowsLater, index: "VectorIndex", content_of: ContentOf | None) -> None:
        self._model, self._content_of, self._num_bundle = model, content_of, index.num_items
        none = pa.table({Column.ITEM_ID: pa.array([], pa.string())})
        num_features = model.later_features(none, np.zeros((0, model.space.dim), np.float32)).shape[1]
        self._features, self._vectors = GrowingVectors(num_features), GrowingVectors(index.dim)

    def after(self, step: Step) -> LaterItems:
        """All that there are after a step."""
        is_new_W = step.rows_W >= self._num_bundle
        if is_new_W.any():
            rows_W, items = step.rows_W[is_new_W] - self._num_bundle, step.items.filter(pa.array(is_new_W))
            content_WC = content_vectors(self._model.space, items, self._content_of)
            features_WF = self._model.later_features(items, content_WC)
            self._features.write(rows_W, features_WF)
            self._vectors.write(rows_W, self._model.later_vectors(features_WF))
        return LaterItems(self._features.vectors, self._vectors.vectors)
