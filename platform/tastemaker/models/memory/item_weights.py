"""Item-to-item models as recommenders: EASE and item-kNN. The models themselves are in `item_item`.

Shape letters: B askers, I items.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import numpy as np
import scipy.sparse as sp
from pydantic import Field

from tastemaker.models.item_item import ItemItem, fit_ease, fit_item_knn
from tastemaker.models.item_propensities import ItemPropensity
from tastemaker.models.log import Askers, Log, known_rows
from tastemaker.models.memory.strangers import ByHistory, popularity_of
from tastemaker.strict import Strict
from tastemaker.types import Float32


class EaseConfig(Strict):
    """EASE."""

    LATER: ClassVar = frozenset({"propensity"})

    l2: float = Field(250.0, gt=0, description="ridge penalty")
    keep: int | None = Field(None, ge=1, description="strongest weights kept per item; empty keeps all")
    propensity: ItemPropensity | None = Field(
        None, description="how likely items were to be seen; empty: each alike"
    )
    half_life: float | None = Field(
        None, gt=0, description="items back in a history where weight is half; empty: none"
    )


class ItemKnnConfig(Strict):
    """Item-kNN."""

    similarity: Literal["cosine", "tfidf", "bm25"] = Field("cosine", description="how near two items are")
    num_neighbours: int = Field(100, ge=1, description="neighbours kept per item")
    neighbours_of: Literal["history", "target"] = Field(
        "target",
        description="whose neighbours are kept: an item of the history gives to those next to it, or a target takes from them",
    )
    half_life: float | None = Field(
        None, gt=0, description="items back in a history where weight is half; empty: none"
    )


class _ItemWeights(ByHistory):
    """A score is the sum of the weights that the items of the history give."""

    def __init__(self, config: Strict, model: ItemItem, popular_I: Float32) -> None:
        self.config, self.num_items, self._model = config, model.config.num_items, model
        self.popular_I = popular_I

    def personal_scores(self, askers: Askers) -> Float32:
        """See `ByHistory`."""
        return self._model.scores([known_rows(history_L, self.num_items) for history_L in askers.histories])

    def config_dict(self) -> dict[str, Any]:
        """See `Recommender.config_dict`."""
        return {"config": super().config_dict(), "weights": self._model.config_dict()}

    def tensors(self) -> dict[str, np.ndarray]:
        """See `Recommender.tensors`."""
        return self._model.tensors() | {"popular": self.popular_I}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        """See `Recommender.from_state`."""
        own = cls.Config.parse(config["config"], f"model {cls.kind}")
        return cls(own, ItemItem.from_state(config["weights"], tensors), tensors["popular"])


class Ease(_ItemWeights):
    """EASE [Steck 2019]: the weights that best give histories back, none from an item to itself.

    With propensities they give back what would have been taken, had all been seen: a seen pair stands for 1 / p of its target [Saito et al.
    2020, with squares for cross-entropy], which for propensities of items is exactly each item's score over its p.
    """

    kind = "ease"
    Config: ClassVar[type[Strict]] = EaseConfig

    @classmethod
    def fit(cls, log: Log, config: EaseConfig) -> Self:
        """See `Recommender.fit`."""
        taken_UI = log.matrix()
        model = fit_ease(taken_UI, config.l2, keep=config.keep, half_life=config.half_life)
        if config.propensity is not None:
            scaled_II = model.weights() @ sp.diags_array(config.propensity.weights(log))
            model = ItemItem(model.config, sp.csr_matrix(scaled_II))
        return cls(config, model, popularity_of(taken_UI))


class ItemKnn(_ItemWeights):
    """Item-kNN [Sarwar et al. 2001] on who took what, by `implicit`. Of ratings: see `rating_knn`."""

    kind = "item-knn"
    Config: ClassVar[type[Strict]] = ItemKnnConfig

    @classmethod
    def fit(cls, log: Log, config: ItemKnnConfig) -> Self:
        """See `Recommender.fit`."""
        taken_UI = log.matrix()
        model = fit_item_knn(
            taken_UI, similarity=config.similarity, num_neighbours=config.num_neighbours,
            half_life=config.half_life,
        )  # fmt: skip
        if config.neighbours_of == "target":
            model = ItemItem(model.config, sp.csr_matrix(model.weights().T))
        return cls(config, model, popularity_of(taken_UI))
