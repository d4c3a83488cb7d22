"""SVD with biases and SVD++: factors of ratings. How they are learned: see `descent`.

Shape letters: U users, I items, D dimension, B askers.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import Field

from tastemaker.errors import CompatibilityError, DataError
from tastemaker.models.biases import mean_ratings, ratings_of
from tastemaker.models.factors.descent import Penalties, learn, of_taken
from tastemaker.models.log import Askers, Log
from tastemaker.models.recommender import Recommender
from tastemaker.strict import Strict
from tastemaker.types import Float32


class SvdConfig(Strict):
    """SVD with biases."""

    dim: int = Field(50, ge=1, description="factors")
    epochs: int = Field(30, ge=1, description="passes over the ratings")
    learning_rate: float = Field(
        0.02, gt=0, description="step size of Adam; it falls over the epochs, in the end to a fiftieth"
    )
    regularization: float = Field(0.12, ge=0, description="penalty on factors, by rating")
    bias_regularization: float = Field(0.01, ge=0, description="penalty on biases, by rating")
    batch_ratings: int = Field(4096, ge=1, description="ratings of a step; all of a user are in one")
    seed: int = Field(0, ge=0, description="start of the factors, and the order of users")

    @property
    def penalties(self) -> Penalties:
        """What is added to the squared errors."""
        return Penalties(self.regularization, self.bias_regularization)


class Svd(Recommender):
    """rating = mean + user + item + p q, penalised by rating [Koren, Bell, Volinsky 2009, Eq. 5].

    The steps are Adam's over blocks of users, not those of single ratings. Strangers are folded in: their bias and factors
    are solved for under the same penalties, with the items' held.
    """

    kind = "svd"
    Config: ClassVar[type[Strict]] = SvdConfig
    predicts_values = True
    user_tensors = ("users", "user_bias")
    heeds_taken: ClassVar[bool] = False

    def __init__(self, config: SvdConfig, tensors: Mapping[str, np.ndarray]) -> None:
        width = tensors["items"].shape[1]
        if width != config.dim or tensors["users"].shape[1] != width:
            raise CompatibilityError(f"factors of model {self.kind}", value=width, limit=config.dim)
        self.config: SvdConfig = config
        self.num_items = len(tensors["items"])
        self._tensors = dict(tensors)
        self._mean = float(tensors["mean"][0])

    @classmethod
    def fit(cls, log: Log, config: SvdConfig) -> Self:
        """See `Recommender.fit`.

        Raises:
            DataError: The log is empty.
        """
        if not len(log):
            raise DataError(f"the log of model {cls.kind} is empty", mend="import ratings")
        rating_UI = mean_ratings(log.user_N, log.item_N, log.value_N, (log.num_users, log.num_items))
        tensors, losses = learn(
            rating_UI, config.penalties, dim=config.dim, heeds_taken=cls.heeds_taken, epochs=config.epochs,
            learning_rate=config.learning_rate, batch_ratings=config.batch_ratings, seed=config.seed,
        )  # fmt: skip
        model = cls(config, tensors)
        model.losses = tuple(losses)
        return model

    def scores(self, askers: Askers) -> Float32:
        """See `Recommender.scores`; in the units of the ratings."""
        place, row = askers.users(len(self._tensors["users"]))
        learned = np.asarray(self._tensors["users"][row].any(axis=1))
        place, row = place[learned], row[learned]
        rest, strangers = askers.without(place)
        user_BD = np.empty((len(askers), self.config.dim), np.float32)
        bias_B = np.empty(len(askers), np.float32)
        user_BD[place], bias_B[place] = self._tensors["users"][row], self._tensors["user_bias"][row]
        user_BD[rest], bias_B[rest] = self._fold_in(strangers)
        score_BI: Float32 = user_BD @ self._tensors["items"].T + bias_B[:, None]
        score_BI += self._tensors["item_bias"] + np.float32(self._mean)
        return score_BI.astype(np.float32, copy=False)

    def _fold_in(self, askers: Askers) -> tuple[Float32, Float32]:
        """Factors (B, D) and biases (B,) by histories alone."""
        rating_BI = ratings_of(askers, self.num_items)
        items = self._tensors["items"].astype(np.float64)
        user_BD = self._by_taken(askers).astype(np.float64)
        bias_B = np.zeros(len(askers))
        penalty_D = np.append(
            np.full(items.shape[1], self.config.regularization), self.config.bias_regularization
        )
        penalty_D += 1e-6
        for b, (begin, end) in enumerate(pairwise(rating_BI.indptr)):
            if begin == end:
                continue
            rows, rating_L = rating_BI.indices[begin:end], rating_BI.data[begin:end]
            rest_L = rating_L - self._mean - self._tensors["item_bias"][rows] - items[rows] @ user_BD[b]
            design = np.column_stack([items[rows], np.ones(len(rows))])
            gram = design.T @ design + np.diag(penalty_D * len(rows))
            found = np.linalg.solve(gram, design.T @ rest_L)
            user_BD[b] += found[:-1]
            bias_B[b] = found[-1]
        return user_BD.astype(np.float32), bias_B.astype(np.float32)

    def _by_taken(self, askers: Askers) -> Float32:
        """(B, D) what it says of somebody that they rated these items at all."""
        if not self.heeds_taken:
            return np.zeros((len(askers), self.config.dim), np.float32)
        return of_taken(askers.matrix(self.num_items), self._tensors["taken"])

    def tensors(self) -> dict[str, np.ndarray]:
        """See `Recommender.tensors`."""
        return self._tensors

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        """See `Recommender.from_state`."""
        parsed = cls.Config.parse(config, f"model {cls.kind}")
        assert isinstance(parsed, SvdConfig)
        return cls(parsed, tensors)


class SvdPlusPlusConfig(SvdConfig):
    """SVD++."""

    taken_regularization: float = Field(
        1.0, ge=0, description="penalty on what is learned of items taken, by user who took them"
    )

    @property
    def penalties(self) -> Penalties:
        """See `SvdConfig.penalties`."""
        return Penalties(self.regularization, self.bias_regularization, self.taken_regularization)


class SvdPlusPlus(Svd):
    """SVD whose users' factors are p + the sum of y over the items that they rated / sqrt(their number) [Koren 2008, Eq. 15]."""

    kind = "svdpp"
    Config: ClassVar[type[Strict]] = SvdPlusPlusConfig
    heeds_taken = True
