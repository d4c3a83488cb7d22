"""How generous users and how good items are, beside their common mean: what every rating is compared with.

Shape letters: U users, I items, N ratings, B askers.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from tastemaker.models.log import Askers
from tastemaker.types import Float32, Float64, Int32, Int64

_EPOCHS = 10


@dataclass(frozen=True, slots=True)
class Biases:
    """Baseline estimates mean + user + item [Koren 2010, Eq. 1].

    `shrink_users` and `shrink_items` are added to the number of ratings that a mean is of, so that few weigh less.
    """

    mean: float
    user_U: Float32
    item_I: Float32
    shrink_users: float
    shrink_items: float

    @classmethod
    def fit(
        cls, rating_UI: sp.csr_matrix, shrink_users: float = 15.0, shrink_items: float = 10.0
    ) -> "Biases":
        """Of ratings, each stored value one: alternating least squares, items first."""
        rows_UI = rating_UI.tocoo()
        user_N, item_N, rating_N = rows_UI.row, rows_UI.col, rows_UI.data.astype(np.float64)
        mean = float(rating_N.mean()) if len(rating_N) else 0.0
        num_users, num_items = rating_UI.shape
        user_U, item_I = np.zeros(num_users), np.zeros(num_items)
        for _ in range(_EPOCHS):
            item_I = _shrunk(item_N, rating_N - mean - user_U[user_N], num_items, shrink_items)
            user_U = _shrunk(user_N, rating_N - mean - item_I[item_N], num_users, shrink_users)
        return cls(mean, user_U.astype(np.float32), item_I.astype(np.float32), shrink_users, shrink_items)

    def of_askers(self, place_N: Int64, item_N: Int32, rating_N: Float32, num_askers: int) -> Float32:
        """(B,) users' biases by ratings that they gave, each of the asker at a place."""
        rest_N = rating_N.astype(np.float64) - self.mean - self.item_I[item_N]
        return _shrunk(place_N, rest_N, num_askers, self.shrink_users).astype(np.float32)

    def tensors(self) -> dict[str, np.ndarray]:
        """As arrays."""
        numbers = np.array([self.mean, self.shrink_users, self.shrink_items])
        return {"biases.numbers": numbers, "biases.user": self.user_U, "biases.item": self.item_I}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray]) -> "Biases":
        """What `tensors` gave."""
        mean, shrink_users, shrink_items = map(float, tensors["biases.numbers"])
        return cls(mean, tensors["biases.user"], tensors["biases.item"], shrink_users, shrink_items)


def _shrunk(at_N: Int64 | Int32, rest_N: Float64, size: int, shrink: float) -> Float64:
    count = np.bincount(at_N, minlength=size)
    total = np.bincount(at_N, rest_N, minlength=size)
    shrunk: Float64 = np.divide(total, count + shrink, out=np.zeros(size), where=count + shrink > 0)
    return shrunk


def mean_ratings(
    user_N: Int32 | Int64, item_N: Int32, value_N: Float32, shape: tuple[int, int]
) -> sp.csr_matrix:
    """(U, I) float32: each user's rating of each item, the mean where there are several. Zeros are stored too."""
    key_N = user_N.astype(np.int64) * shape[1] + item_N
    key_M, place_N = np.unique(key_N, return_inverse=True)
    value_M = np.bincount(place_N, value_N, len(key_M)) / np.maximum(np.bincount(place_N), 1)
    row_M, column_M = np.divmod(key_M, shape[1])
    offsets = np.searchsorted(row_M, np.arange(shape[0] + 1))
    return sp.csr_matrix((value_M.astype(np.float32), column_M.astype(np.int32), offsets), shape)


def ratings_of(askers: Askers, num_items: int) -> sp.csr_matrix:
    """(B, I) float32: `mean_ratings` of what is known of the askers' ratings."""
    place_N, item_N, rating_N = askers.taken(num_items)
    rated_N = ~np.isnan(rating_N)
    return mean_ratings(place_N[rated_N], item_N[rated_N], rating_N[rated_N], (len(askers), num_items))
