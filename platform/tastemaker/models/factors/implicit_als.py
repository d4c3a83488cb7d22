"""ALS of implicit feedback as a recommender: what it fits and folds in with is in `als`.

Shape letters: B askers, L history, K its items, each once, I items, D dimension.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import Field

from tastemaker.errors import DataError
from tastemaker.models.als import Als, AlsConfig, fit_als
from tastemaker.models.log import Askers, Log, newest_places
from tastemaker.models.memory.strangers import ByHistory, popularity_of
from tastemaker.strict import Strict
from tastemaker.types import Float32, Int64


class ImplicitAlsConfig(Strict):
    """Implicit ALS."""

    dim: int = Field(64, ge=1, description="factors")
    regularization: float = Field(0.05, ge=0, description="ridge penalty on the factors")
    alpha: float = Field(1.0, ge=0, description="confidence of an interaction of value r is 1 + alpha r")
    values: bool = Field(
        False, description="whether r is the log's value, summed; else 1. It must not be below 0"
    )
    iterations: int = Field(15, ge=1, description="sweeps over users and items")
    seed: int = Field(0, ge=0, description="start of the factors")
    half_life: float | None = Field(
        None, gt=0, description="items back in a history where weight is half; empty: none"
    )


class ImplicitAls(ByHistory):
    """Factors by confidence-weighted least squares [Hu, Koren, Volinsky 2008]; whoever asks is folded in from the history.

    An item that stands in a history more than once counts as in the fit: once, at its newest place, or with the sum of its values.
    One none of whose values is known counts as the mean of the log's.
    """

    kind = "als"
    scores_are_products = True
    Config: ClassVar[type[Strict]] = ImplicitAlsConfig

    def __init__(
        self, config: ImplicitAlsConfig, item_factors_ID: Float32, popular_I: Float32, mean_value: float
    ) -> None:
        self.config: ImplicitAlsConfig = config
        self.num_items, self._mean_value = len(item_factors_ID), mean_value
        self.popular_I = popular_I
        self._model = Als(_engine(config), item_factors_ID)

    @classmethod
    def fit(cls, log: Log, config: ImplicitAlsConfig) -> Self:
        """See `Recommender.fit`.

        Raises:
            DataError: The log is empty, or a value below 0 is to be a confidence.
        """
        if not len(log):
            raise DataError("the log of an ALS is empty", mend="import events")
        if config.values and log.value_N.min() < 0:
            raise DataError(
                "a value of the log", value=float(log.value_N.min()), limit="0 or more", mend="unset `values`"
            )
        weight_UI = log.matrix(values=config.values)
        mean_value, popular_I = float(weight_UI.data.mean()), popularity_of(weight_UI)
        weight_UI.data = 1.0 + config.alpha * weight_UI.data
        return cls(config, fit_als(weight_UI, _engine(config)).item_factors_ID, popular_I, mean_value)

    def item_vectors(self) -> Float32:
        """See `Recommender.item_vectors`."""
        return self._model.item_factors_ID

    def user_vectors(self, askers: Askers) -> Float32:
        """See `Recommender.user_vectors`; zeros for an empty history."""
        histories, confidences = [], []
        for place, history_L in enumerate(askers.histories):
            known_L = (history_L >= 0) & (history_L < self.num_items)
            item_K, of_L = newest_places(np.asarray(history_L, np.int32)[known_L])
            value_L = None if askers.values is None else askers.values[place][known_L]
            histories.append(item_K)
            confidences.append(self._confidence(len(item_K), of_L, value_L))
        return self._model.fold_in(histories, confidences)

    def _confidence(self, num_items: int, of_L: Int64, value_L: Float32 | None) -> Float32:
        """(K,) of so many items, by the values at the places that are of each."""
        value_K = np.ones(num_items)
        if self.config.values:
            value_K = np.full(num_items, self._mean_value)
            if value_L is not None:
                told_L = ~np.isnan(value_L)
                value_K[of_L[told_L]] = 0.0
                np.add.at(value_K, of_L[told_L], value_L[told_L])
        return (1.0 + self.config.alpha * np.maximum(value_K, 0)).astype(np.float32)

    def personal_scores(self, askers: Askers) -> Float32:
        """See `ByHistory`."""
        return np.asarray(self.user_vectors(askers) @ self.item_vectors().T, np.float32)

    def config_dict(self) -> dict[str, Any]:
        """See `Recommender.config_dict`."""
        return super().config_dict() | {"mean_value": self._mean_value}

    def tensors(self) -> dict[str, np.ndarray]:
        """See `Recommender.tensors`."""
        return self._model.tensors() | {"popular": self.popular_I}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        """See `Recommender.from_state`."""
        own = dict(config)
        mean_value = float(own.pop("mean_value"))
        parsed = ImplicitAlsConfig.parse(own, "model als")
        return cls(parsed, tensors["item_factors"], tensors["popular"], mean_value)


def _engine(config: ImplicitAlsConfig) -> AlsConfig:
    """Its matrix holds the confidences themselves, so that alpha is spent."""
    return AlsConfig(
        dim=config.dim, regularization=config.regularization, alpha=1.0, iterations=config.iterations,
        seed=config.seed, half_life=config.half_life,
    )  # fmt: skip
