"""Implicit matrix factorisation with a weight for all that is missing and penalties by frequency, solved block by block.

Shape letters: R rows (users or items), C columns (the others), D dimension, P dimensions of a block, N interactions, B askers,
L items of an asker.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar, Self

import numpy as np
import scipy.sparse as sp
from pydantic import Field

from tastemaker.errors import CompatibilityError, DataError
from tastemaker.models.item_propensities import ItemPropensity
from tastemaker.models.log import Askers, Log
from tastemaker.models.memory.strangers import ByHistory, popularity_of
from tastemaker.strict import Strict
from tastemaker.types import Float32

_BLOCK_VALUES = 2**23
_RIDGE = 1e-6


class IalsConfig(Strict):
    """iALS++."""

    LATER: ClassVar = frozenset({"propensity"})

    dim: int = Field(128, ge=1, description="factors")
    regularization: float = Field(0.003, ge=0, description="penalty on the factors")
    unobserved_weight: float = Field(
        0.1, gt=0, description="weight of a pair without interaction; one with it has 1"
    )
    frequency_power: float = Field(
        1.0,
        ge=0,
        le=1,
        description="how much more those with many interactions are penalised: 0 not, 1 by their number",
    )
    propensity: ItemPropensity | None = Field(
        None, description="how likely items were to be seen; empty: each alike"
    )
    block: int = Field(32, ge=1, description="factors solved for at once; as many as there are is plain ALS")
    iterations: int = Field(16, ge=1, description="sweeps over users and items")
    scale: float = Field(0.1, gt=0, description="standard deviation of a start vector's length")
    seed: int = Field(0, ge=0, description="start of the factors")


class Ials(ByHistory):
    """Minimises sum over interactions of (1 - p q)^2 + a sum over all pairs of (p q)^2 + penalties [Rendle et al. 2022, Eq. 1 to 3].

    A row with n interactions among C others is penalised by regularization * (n + a C)^power, and factors are solved for
    in blocks by Newton's step [Rendle et al. 2021, iALS++]. Whoever asks is folded in from the history; no user is kept.

    With propensities the first sum's terms count 1 / p of their item: on average that is the sum over all pairs that would have been taken, had
    all been seen, and since the second sum is over all pairs anyway, the whole is unbiased. (Not so the weights of `als`, which also take
    pairs out of the zeros.)
    """

    kind = "ials"
    scores_are_products = True
    Config: ClassVar[type[Strict]] = IalsConfig

    def __init__(
        self, config: IalsConfig, item_ID: Float32, popular_I: Float32, weight_I: Float32 | None = None
    ) -> None:
        if item_ID.ndim != 2 or item_ID.shape[1] != config.dim:
            raise CompatibilityError(
                "item factors of an iALS", value=item_ID.shape, limit=f"(items, {config.dim})"
            )
        self.config: IalsConfig = config
        self.num_items = len(item_ID)
        self._item_ID, self.popular_I, self._weight_I = item_ID, popular_I, weight_I
        self._gram_DD = config.unobserved_weight * (item_ID.T @ item_ID)

    @classmethod
    def fit(cls, log: Log, config: IalsConfig) -> Self:
        """See `Recommender.fit`.

        Raises:
            DataError: The log is empty.
        """
        if not len(log):
            raise DataError("the log of an iALS is empty", mend="import events")
        taken_UI, weight_I = log.matrix(), None
        popular_I = popularity_of(taken_UI)
        if config.propensity is not None:
            weight_I = config.propensity.weights(log)
            taken_UI.data = weight_I[taken_UI.indices]
        taken_IU = sp.csr_matrix(taken_UI.T)
        draws = np.random.default_rng(config.seed)
        deviation = config.scale / np.sqrt(config.dim)
        user_UD, item_ID = (
            draws.normal(0, deviation, (size, config.dim)).astype(np.float32) for size in taken_UI.shape
        )
        losses = []
        for _ in range(config.iterations):
            _sweep(taken_UI, user_UD, item_ID, config)
            _sweep(taken_IU, item_ID, user_UD, config)
            losses.append(_loss(taken_UI, user_UD, item_ID, config))
        model = cls(config, item_ID, popular_I, weight_I)
        model.losses = tuple(losses)
        return model

    def item_vectors(self) -> Float32:
        """See `Recommender.item_vectors`."""
        return self._item_ID

    def user_vectors(self, askers: Askers) -> Float32:
        """See `Recommender.user_vectors`; zeros for an empty history."""
        taken_BI = askers.matrix(self.num_items)
        penalty_B = _penalty(taken_BI, self.config) + np.float32(_RIDGE)
        user_BD = np.zeros((len(askers), self.config.dim), np.float32)
        for row, (begin, end) in enumerate(pairwise(taken_BI.indptr)):
            if begin == end:
                continue
            item_L = taken_BI.indices[begin:end]
            taken_LD = self._item_ID[item_L]
            weighed_LD = taken_LD if self._weight_I is None else taken_LD * self._weight_I[item_L, None]
            curve_DD = self._gram_DD + weighed_LD.T @ taken_LD
            np.fill_diagonal(curve_DD, curve_DD.diagonal() + penalty_B[row])
            user_BD[row] = np.linalg.solve(curve_DD, weighed_LD.sum(axis=0))
        return user_BD

    def personal_scores(self, askers: Askers) -> Float32:
        """See `ByHistory`."""
        score_BI: Float32 = self.user_vectors(askers) @ self._item_ID.T
        return score_BI

    def tensors(self) -> dict[str, np.ndarray]:
        """See `Recommender.tensors`."""
        weights = {} if self._weight_I is None else {"weights": self._weight_I}
        return {"items": self._item_ID, "popular": self.popular_I, **weights}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        """See `Recommender.from_state`."""
        parsed = IalsConfig.parse(config, "model ials")
        return cls(parsed, tensors["items"], tensors["popular"], tensors.get("weights"))


def _penalty(taken_RC: sp.csr_matrix, config: IalsConfig) -> Float32:
    """(R,) of each row's squared factors."""
    frequency_R = np.diff(taken_RC.indptr) + config.unobserved_weight * taken_RC.shape[1]
    penalty_R: Float32 = (config.regularization * frequency_R**config.frequency_power).astype(np.float32)
    return penalty_R


def _sweep(taken_RC: sp.csr_matrix, row_RD: Float32, column_CD: Float32, config: IalsConfig) -> None:
    """Solves for all rows, in place, one block of factors after the other."""
    gram_DD = config.unobserved_weight * (column_CD.T @ column_CD)
    penalty_R = _penalty(taken_RC, config)
    step = max(1, _BLOCK_VALUES // max(config.block**2, config.dim))
    for begin in range(0, config.dim, config.block):
        block = slice(begin, begin + config.block)
        column_CP = column_CD[:, block]
        outer_CQ = np.einsum("cp,cq->cpq", column_CP, column_CP).reshape(len(column_CP), -1)
        for at in range(0, len(row_RD), step):
            rows = slice(at, at + step)
            part = row_RD[rows]
            _solve_block(taken_RC[rows], part, column_CD, outer_CQ, gram_DD, penalty_R[rows], block)


def _solve_block(
    taken_RC: sp.csr_matrix,
    row_RD: Float32,
    column_CD: Float32,
    outer_CQ: Float32,
    gram_DD: Float32,
    penalty_R: Float32,
    block: slice,
) -> None:
    """Newton's step in one block of factors, which is exact: the loss is quadratic in them."""
    column_CP = column_CD[:, block]
    width = column_CP.shape[1]
    error_N = taken_RC.data * (_guessed(taken_RC, row_RD, column_CD) - 1)
    error_RC = sp.csr_matrix((error_N, taken_RC.indices, taken_RC.indptr), taken_RC.shape)
    slope_RP = error_RC @ column_CP + row_RD @ gram_DD[:, block] + penalty_R[:, None] * row_RD[:, block]
    curve_RPP = (taken_RC @ outer_CQ).reshape(-1, width, width) + gram_DD[block, block]
    diagonal = np.arange(width)
    curve_RPP[:, diagonal, diagonal] += penalty_R[:, None] + np.float32(_RIDGE)
    row_RD[:, block] -= np.linalg.solve(curve_RPP, slope_RP[:, :, None])[:, :, 0]


def _guessed(taken_RC: sp.csr_matrix, row_RD: Float32, column_CD: Float32) -> Float32:
    row_N = np.repeat(np.arange(len(row_RD)), np.diff(taken_RC.indptr))
    step = max(1, _BLOCK_VALUES // row_RD.shape[1])
    parts = [
        np.einsum("nd,nd->n", row_RD[row_N[at : at + step]], column_CD[taken_RC.indices[at : at + step]])
        for at in range(0, len(row_N), step)
    ]
    return np.concatenate([*parts, np.empty(0, np.float32)])


def _loss(taken_UI: sp.csr_matrix, user_UD: Float32, item_ID: Float32, config: IalsConfig) -> float:
    """What is minimised, by interaction."""
    observed = float((taken_UI.data * (_guessed(taken_UI, user_UD, item_ID) - 1) ** 2).sum())
    everywhere = float(((user_UD.T @ user_UD) * (item_ID.T @ item_ID)).sum())
    of_users = float((_penalty(taken_UI, config) * (user_UD**2).sum(axis=1)).sum())
    of_items = float((_penalty(sp.csr_matrix(taken_UI.T), config) * (item_ID**2).sum(axis=1)).sum())
    total: float = (observed + config.unobserved_weight * everywhere + of_users + of_items) / taken_UI.nnz
    return total
