"""Non-negative matrix factorisation of ratings: what is missing is not zero.

Shape letters: U users, I items, D dimension, N ratings, B askers.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import scipy.sparse as sp
from pydantic import Field

from tastemaker.errors import CompatibilityError, DataError
from tastemaker.models.biases import mean_ratings, ratings_of
from tastemaker.models.log import Askers, Log
from tastemaker.models.recommender import Recommender
from tastemaker.strict import Strict
from tastemaker.types import Bool, Float32, Float64

_TINY = 1e-9
_FOLD_IN_EPOCHS = 50
_BLOCK_RATINGS = 2**18


class NmfConfig(Strict):
    """NMF of ratings."""

    dim: int = Field(15, ge=1, description="factors")
    epochs: int = Field(50, ge=1, description="updates of all factors")
    regularization: float = Field(0.06, ge=0, description="penalty, times the ratings of the row")
    seed: int = Field(0, ge=0, description="start of the factors")


class Nmf(Recommender):
    """rating = p q with p, q >= 0, by multiplicative updates over the ratings that there are [Luo et al. 2014, Eq. 8].

    p <- p * sum(r q) / (sum(guess q) + regularization * n p), and the same of items, both from the factors before. Without biases.
    Strangers are folded in by the same updates with the items' factors held.
    """

    kind = "nmf"
    Config: ClassVar[type[Strict]] = NmfConfig
    predicts_values = True
    user_tensors = ("users",)

    def __init__(self, config: NmfConfig, user_UD: Float32, item_ID: Float32, mean_I: Float32) -> None:
        if not user_UD.shape[1] == item_ID.shape[1] == config.dim:
            raise CompatibilityError("factors of an NMF", value=user_UD.shape[1], limit=config.dim)
        self.config: NmfConfig = config
        self.num_items = len(item_ID)
        self._user_UD, self._item_ID, self._mean_I = user_UD, item_ID, mean_I

    @classmethod
    def fit(cls, log: Log, config: NmfConfig) -> Self:
        """See `Recommender.fit`.

        Raises:
            DataError: The log is empty, or a rating is below 0.
        """
        if not len(log) or log.value_N.min() < 0:
            raise DataError(
                "ratings of an NMF", limit="some, 0 or more", mend="give such, or use the kind svd"
            )
        rating_UI = mean_ratings(log.user_N, log.item_N, log.value_N, (log.num_users, log.num_items))
        draws = np.random.default_rng(config.seed)
        user_UD, item_ID = (draws.random((size, config.dim)) for size in rating_UI.shape)
        losses = []
        for _ in range(config.epochs):
            guess_UI = _guessed(rating_UI, user_UD, item_ID)
            losses.append(float(np.mean((guess_UI.data - rating_UI.data) ** 2)))
            new_UD = _updated(rating_UI, guess_UI, user_UD, item_ID, config.regularization)
            item_ID = _updated(rating_UI.T, guess_UI.T, item_ID, user_UD, config.regularization)
            user_UD = new_UD
        count_I = np.bincount(rating_UI.indices, minlength=log.num_items)
        total_I = np.bincount(rating_UI.indices, rating_UI.data, log.num_items)
        mean_I = np.where(count_I > 0, total_I / np.maximum(count_I, 1), rating_UI.data.mean())
        user_UD[np.diff(rating_UI.indptr) == 0] = 0
        item_ID[count_I == 0] = 0
        model = cls(config, user_UD.astype(np.float32), item_ID.astype(np.float32), mean_I.astype(np.float32))
        model.losses = tuple(losses)
        return model

    def scores(self, askers: Askers) -> Float32:
        """See `Recommender.scores`; the item's mean rating where nothing is known of the asker or the item."""
        place, row = askers.users(len(self._user_UD))
        learned = _has_any(self._user_UD[row])
        place, row = place[learned], row[learned]
        rest, strangers = askers.without(place)
        user_BD = np.empty((len(askers), self.config.dim))
        user_BD[place], user_BD[rest] = self._user_UD[row], self._fold_in(strangers)
        score_BI = (user_BD @ self._item_ID.T).astype(np.float32)
        unknown_BI = ~_has_any(user_BD)[:, None] | ~_has_any(self._item_ID)
        return np.where(unknown_BI, self._mean_I, score_BI)

    def _fold_in(self, askers: Askers) -> Float64:
        rating_BI = ratings_of(askers, self.num_items)
        rating_BI.data = np.maximum(rating_BI.data, 0)
        item_ID = self._item_ID.astype(np.float64)
        user_BD = np.full((len(askers), self.config.dim), 0.5)
        for _ in range(_FOLD_IN_EPOCHS if rating_BI.nnz else 0):
            guess_BI = _guessed(rating_BI, user_BD, item_ID)
            user_BD = _updated(rating_BI, guess_BI, user_BD, item_ID, self.config.regularization)
        user_BD[np.diff(rating_BI.indptr) == 0] = 0
        return user_BD

    def tensors(self) -> dict[str, np.ndarray]:
        """See `Recommender.tensors`."""
        return {"users": self._user_UD, "items": self._item_ID, "item_means": self._mean_I}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        """See `Recommender.from_state`."""
        parsed = NmfConfig.parse(config, "model nmf")
        return cls(parsed, tensors["users"], tensors["items"], tensors["item_means"])


def _has_any(vector_RD: Float32 | Float64) -> Bool:
    """(R,) which vectors are not all zero, as those of whom nothing was learned are."""
    return np.asarray(vector_RD.any(axis=1))


def _guessed(rating_UI: sp.csr_matrix, user_UD: Float64, item_ID: Float64) -> sp.csr_matrix:
    """P q where there is a rating."""
    row_N = np.repeat(np.arange(rating_UI.shape[0]), np.diff(rating_UI.indptr))
    guess_N = np.empty(len(row_N))
    for at in range(0, len(row_N), _BLOCK_RATINGS):
        part = slice(at, at + _BLOCK_RATINGS)
        guess_N[part] = np.einsum("nd,nd->n", user_UD[row_N[part]], item_ID[rating_UI.indices[part]])
    return sp.csr_matrix((guess_N, rating_UI.indices, rating_UI.indptr), rating_UI.shape)


def _updated(
    rating_RC: sp.spmatrix, guess_RC: sp.spmatrix, row_RD: Float64, column_CD: Float64, regularization: float
) -> Float64:
    count_R1 = _counts(rating_RC)[:, None]
    over_RD = rating_RC @ column_CD
    under_RD = guess_RC @ column_CD + regularization * count_R1 * row_RD
    updated_RD: Float64 = row_RD * over_RD / np.maximum(under_RD, _TINY)
    return np.where(count_R1 > 0, updated_RD, row_RD)


def _counts(rating_RC: sp.spmatrix) -> Float64:
    """(R,) ratings of each row, in whatever layout."""
    rows = rating_RC.tocoo().row
    return np.bincount(rows, minlength=rating_RC.shape[0]).astype(np.float64)
