"""Matrix factorisation of ratings, solved by alternating least squares.

Shape letters: R rows (users or items), C columns (the others), D dimension, B askers, L ratings of a row.
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
from tastemaker.types import Float32, Float64


class ExplicitAlsConfig(Strict):
    """ALS of ratings."""

    dim: int = Field(32, ge=1, description="factors")
    regularization: float = Field(0.05, gt=0, description="ridge penalty, times the ratings of the row")
    iterations: int = Field(15, ge=1, description="sweeps over items and users")
    seed: int = Field(0, ge=0, description="start of the factors")


class ExplicitAls(Recommender):
    """rating = mean + user + item + p q, with a penalty of regularization * (number of ratings) on each row's factors and bias.

    [Zhou et al. 2008, ALS-WR], with biases solved for beside the factors. Users come last in a sweep, so that a user of the
    log and a stranger with the same ratings have the same factors: none are kept. Askers of whose ratings nothing is known get
    mean + item.
    """

    kind = "als-explicit"
    Config: ClassVar[type[Strict]] = ExplicitAlsConfig
    predicts_values = True

    def __init__(
        self, config: ExplicitAlsConfig, mean: float, item_factors_ID: Float32, item_bias_I: Float32
    ) -> None:
        if item_factors_ID.shape != (len(item_bias_I), config.dim):
            raise CompatibilityError(
                "factors of an ALS of ratings",
                value=item_factors_ID.shape,
                limit=(len(item_bias_I), config.dim),
            )
        self.config: ExplicitAlsConfig = config
        self.num_items, self._mean = len(item_bias_I), mean
        self._factors_ID, self._bias_I = item_factors_ID, item_bias_I

    @classmethod
    def fit(cls, log: Log, config: ExplicitAlsConfig) -> Self:
        """See `Recommender.fit`.

        Raises:
            DataError: The log is empty.
        """
        if not len(log):
            raise DataError("the log of an ALS of ratings is empty", mend="import ratings")
        rating_UI = mean_ratings(log.user_N, log.item_N, log.value_N, (log.num_users, log.num_items))
        mean = float(rating_UI.data.mean())
        rating_UI.data -= np.float32(mean)
        rating_IU = sp.csr_matrix(rating_UI.T)
        factors_ID = np.random.default_rng(config.seed).normal(0, 0.1, (log.num_items, config.dim))
        items = np.column_stack([factors_ID, np.zeros(log.num_items)])
        losses = []
        for _ in range(config.iterations):
            users = _solved(rating_UI, items, config.regularization)
            items = _solved(rating_IU, users, config.regularization)
            losses.append(_squared_error(rating_IU, items, users))
        model = cls(config, mean, items[:, :-1].astype(np.float32), items[:, -1].astype(np.float32))
        model.losses = tuple(losses)
        return model

    def scores(self, askers: Askers) -> Float32:
        """See `Recommender.scores`; in the units of the ratings."""
        rating_BI = ratings_of(askers, self.num_items)
        rating_BI.data -= np.float32(self._mean)
        items = np.column_stack([self._factors_ID, self._bias_I]).astype(np.float64)
        users = _solved(rating_BI, items, self.config.regularization)
        score_BI = users[:, :-1] @ items[:, :-1].T + users[:, -1:] + items[:, -1] + self._mean
        return score_BI.astype(np.float32)

    def config_dict(self) -> dict[str, Any]:
        """See `Recommender.config_dict`."""
        return super().config_dict() | {"mean": self._mean}

    def tensors(self) -> dict[str, np.ndarray]:
        """See `Recommender.tensors`."""
        return {"item_factors": self._factors_ID, "item_bias": self._bias_I}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        """See `Recommender.from_state`."""
        own = dict(config)
        mean = float(own.pop("mean"))
        parsed = ExplicitAlsConfig.parse(own, "model als-explicit")
        return cls(parsed, mean, tensors["item_factors"], tensors["item_bias"])


def _solved(rating_RC: sp.csr_matrix, columns: Float64, regularization: float) -> Float64:
    """(R, D + 1) factors and bias of each row, given those of the columns; zeros for a row without ratings."""
    width = columns.shape[1]
    design_CD = columns.copy()
    design_CD[:, -1] = 1.0
    rest_N = rating_RC.data - columns[rating_RC.indices, -1]
    found = np.zeros((rating_RC.shape[0], width))
    diagonal = np.arange(width)
    for row, (begin, end) in enumerate(zip(rating_RC.indptr[:-1], rating_RC.indptr[1:], strict=True)):
        if begin == end:
            continue
        X_LD = design_CD[rating_RC.indices[begin:end]]
        gram = X_LD.T @ X_LD
        gram[diagonal, diagonal] += regularization * (end - begin)
        found[row] = np.linalg.solve(gram, X_LD.T @ rest_N[begin:end])
    return found


def _squared_error(rating_RC: sp.csr_matrix, rows: Float64, columns: Float64) -> float:
    """Mean over the ratings."""
    row_N = np.repeat(np.arange(len(rows)), np.diff(rating_RC.indptr))
    of_rows, of_columns = rows[row_N], columns[rating_RC.indices]
    guess_N = np.einsum("nd,nd->n", of_rows[:, :-1], of_columns[:, :-1]) + of_rows[:, -1] + of_columns[:, -1]
    return float(np.mean((rating_RC.data - guess_N) ** 2))
