"""Neighbours by ratings: how the users most like the asker rated an item, or how the asker rated the items most like it.

Shape letters: B askers, U users, I items, N those who may be neighbours, T those that are guessed, K neighbours.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import numpy as np
import scipy.sparse as sp
from pydantic import Field

from tastemaker.errors import DataError
from tastemaker.models.biases import Biases, mean_ratings
from tastemaker.models.log import Askers, Log
from tastemaker.models.memory.similarity import Measure, Similarity
from tastemaker.models.recommender import Recommender
from tastemaker.strict import Strict
from tastemaker.types import Float32, Int64

_MOST_ITEMS = 30_000


class RatingKnnConfig(Strict):
    """Neighbours by ratings."""

    of: Literal["users", "items"] = Field("users", description="who are neighbours")
    similarity: Measure = Field("msd", description="how alike two of them rate, or are rated")
    around: Literal["baseline", "mean"] = Field(
        "baseline",
        description="what a rating is compared with: mean + user + item, or the neighbour's own mean",
    )
    num_neighbours: int = Field(40, ge=1, description="most that count")
    least_common: int = Field(1, ge=1, description="ratings in common that a neighbour must have")
    shrinkage: float = Field(
        100.0, ge=0, description="of the similarity pearson-baseline: common ratings that count half"
    )
    shrink_users: float = Field(15.0, ge=0, description="ratings of a user that count half in the baseline")
    shrink_items: float = Field(10.0, ge=0, description="ratings of an item that count half in the baseline")


class RatingKnn(Recommender):
    """Guesses the asker's rating of an item: what it is compared with, and how far the nearest neighbours were off it.

    guess = b + sum over the K nearest, which are alike, of s (r - b') / sum of s [Koren 2010, Eq. 3], b being mean + user + item;
    or, `around` the mean, the mean of the user (of the item) [Resnick et al. 1994]. Askers of whose ratings nothing is known
    get what is compared with alone.
    """

    kind = "rating-knn"
    Config: ClassVar[type[Strict]] = RatingKnnConfig
    predicts_values = True

    def __init__(self, config: RatingKnnConfig, rating_UI: sp.csr_matrix, biases: Biases) -> None:
        self.config: RatingKnnConfig = config
        self.num_items = rating_UI.shape[1]
        self._rating_UI, self._biases = rating_UI, biases
        self._mean_I = _means(sp.csr_matrix(rating_UI.T), biases.mean)
        self._rest_UI = self._rest(rating_UI, biases.user_U)
        compared_UI = self._compared(rating_UI, biases.user_U)
        if config.of == "users":
            self._similarity = self._similarity_with(compared_UI)
        else:
            compared_IU = sp.csr_matrix(compared_UI.T)
            self._alike_II = self._similarity_with(compared_IU).to(compared_IU)

    def _similarity_with(self, rows: sp.csr_matrix) -> Similarity:
        return Similarity(rows, self.config.similarity, self.config.least_common, self.config.shrinkage)

    @classmethod
    def fit(cls, log: Log, config: RatingKnnConfig) -> Self:
        """See `Recommender.fit`.

        Raises:
            DataError: Neighbours of items, and too many items.
        """
        if config.of == "items" and log.num_items > _MOST_ITEMS:
            raise DataError(
                "items of a rating-knn of items", value=log.num_items, limit=f"at most {_MOST_ITEMS}",
                mend="use the kind als-explicit or svd",
            )  # fmt: skip
        rating_UI = mean_ratings(log.user_N, log.item_N, log.value_N, (log.num_users, log.num_items))
        return cls(config, rating_UI, Biases.fit(rating_UI, config.shrink_users, config.shrink_items))

    def scores(self, askers: Askers) -> Float32:
        """See `Recommender.scores`; in the units of the ratings."""
        place_N, item_N, rating_N = askers.taken(self.num_items)
        rated_N = ~np.isnan(rating_N)
        place_N, item_N, rating_N = place_N[rated_N], item_N[rated_N], rating_N[rated_N]
        history_BI = mean_ratings(place_N, item_N, rating_N, (len(askers), self.num_items))
        bias_B = self._biases.of_askers(place_N, item_N, rating_N, len(askers))
        rest_BI = self._rest(history_BI, bias_B)
        if self.config.of == "items":
            off_BI = self._by_items(rest_BI)
        else:
            off_BI = self._by_users(askers, self._compared(history_BI, bias_B))
        return self._centre(history_BI, bias_B) + off_BI

    def _centre(self, history_BI: sp.csr_matrix, bias_B: Float32) -> Float32:
        """(B, I) what a rating of each is compared with."""
        if self.config.around == "baseline":
            return (np.float32(self._biases.mean) + bias_B[:, None] + self._biases.item_I).astype(np.float32)
        if self.config.of == "items":
            return np.tile(self._mean_I, (history_BI.shape[0], 1))
        return np.repeat(_means(history_BI, self._biases.mean)[:, None], self.num_items, axis=1)

    def _rest(self, rating_RI: sp.csr_matrix, bias_R: Float32) -> sp.csr_matrix:
        """Ratings of users with these biases, less what they are compared with."""
        if self.config.around == "baseline":
            return self._beside_baseline(rating_RI, bias_R)
        if self.config.of == "items":
            return _less(rating_RI, self._mean_I[rating_RI.indices])
        return _less(rating_RI, _means(rating_RI, self._biases.mean)[_rows(rating_RI)])

    def _compared(self, rating_RI: sp.csr_matrix, bias_R: Float32) -> sp.csr_matrix:
        """What it is by that they are found alike."""
        is_plain = self.config.similarity != "pearson-baseline"
        return rating_RI if is_plain else self._beside_baseline(rating_RI, bias_R)

    def _beside_baseline(self, rating_RI: sp.csr_matrix, bias_R: Float32) -> sp.csr_matrix:
        centre_N = np.float32(self._biases.mean) + bias_R[_rows(rating_RI)]
        return _less(rating_RI, centre_N + self._biases.item_I[rating_RI.indices])

    def _by_users(self, askers: Askers, compared_BI: sp.csr_matrix) -> Float32:
        alike_BU = self._similarity.to(compared_BI)
        place, row = askers.users(self._rating_UI.shape[0])
        alike_BU[place, row] = 0.0
        by_item = self._rest_UI.tocsc()
        found_BI = np.zeros((len(askers), self.num_items), np.float32)
        for item in range(self.num_items):
            at = slice(by_item.indptr[item], by_item.indptr[item + 1])
            found_BI[:, item] = self._off(alike_BU[:, by_item.indices[at]], by_item.data[at])
        return found_BI

    def _by_items(self, rest_BI: sp.csr_matrix) -> Float32:
        found_BI = np.zeros(rest_BI.shape, np.float32)
        for asker in range(rest_BI.shape[0]):
            at = slice(rest_BI.indptr[asker], rest_BI.indptr[asker + 1])
            alike_IN = self._alike_II[:, rest_BI.indices[at]]
            found_BI[asker] = self._off(alike_IN, rest_BI.data[at])
        return found_BI

    def _off(self, alike_TN: Float32, rest_N: Float32) -> Float32:
        """(T,) mean of how far off the nearest of N were, by how alike they are; 0 where none is."""
        num, k = alike_TN.shape[1], self.config.num_neighbours
        if num > k:
            near_TK = np.argpartition(alike_TN, num - k, axis=1)[:, num - k :]
            weight_TK = np.maximum(np.take_along_axis(alike_TN, near_TK, axis=1), 0)
            off_TK = rest_N[near_TK]
        else:
            weight_TK, off_TK = np.maximum(alike_TN, 0), rest_N[None, :]
        weight_T = weight_TK.sum(axis=1)
        off_T = (weight_TK * off_TK).sum(axis=1)
        mean_T: Float32 = np.divide(off_T, weight_T, out=np.zeros_like(weight_T), where=weight_T > 0)
        return mean_T

    def config_dict(self) -> dict[str, Any]:
        """See `Recommender.config_dict`."""
        return super().config_dict() | {"num_items": self.num_items}

    def tensors(self) -> dict[str, np.ndarray]:
        """See `Recommender.tensors`: the ratings themselves, and the biases."""
        return {
            "offsets": self._rating_UI.indptr.astype(np.int64),
            "items": self._rating_UI.indices.astype(np.int32),
            "ratings": self._rating_UI.data,
            **self._biases.tensors(),
        }

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        """See `Recommender.from_state`."""
        own = dict(config)
        num_items = int(own.pop("num_items"))
        parts = (tensors["ratings"], tensors["items"], tensors["offsets"])
        rating_UI = sp.csr_matrix(parts, (len(tensors["offsets"]) - 1, num_items))
        return cls(RatingKnnConfig.parse(own, "model rating-knn"), rating_UI, Biases.from_tensors(tensors))


def _means(rating_RC: sp.csr_matrix, default: float) -> Float32:
    """Mean of each row's stored values, `default` where there are none."""
    count_R = np.diff(rating_RC.indptr)
    total_R = np.bincount(_rows(rating_RC), rating_RC.data, len(count_R))
    mean_R: Float32 = np.where(count_R > 0, total_R / np.maximum(count_R, 1), default).astype(np.float32)
    return mean_R


def _rows(rating_RC: sp.csr_matrix) -> Int64:
    return np.repeat(np.arange(rating_RC.shape[0]), np.diff(rating_RC.indptr))


def _less(rating_RC: sp.csr_matrix, centre_N: Float32) -> sp.csr_matrix:
    rest_N = (rating_RC.data - centre_N).astype(np.float32)
    return sp.csr_matrix((rest_N, rating_RC.indices, rating_RC.indptr), rating_RC.shape)
