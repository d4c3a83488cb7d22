"""Matrix factorisation by alternating least squares [Hu, Koren, Volinsky 2008], fitted by `implicit`.

Only item factors and their Gram matrix are kept: whoever asks is folded in from the history, so that unknown
users need no refit and no user's factors are stored.

Shape letters: B requests, L history, I catalogue, D dimension.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
from pydantic import Field

from tastemaker.errors import CompatibilityError, MissingExtraError
from tastemaker.features.recency import recency_weights
from tastemaker.models.log import each_once
from tastemaker.pacing import step
from tastemaker.strict import Strict
from tastemaker.types import Float32, Int32

_BLOCK_ROWS = 65_536


class AlsConfig(Strict):
    """How the factors are fitted and how a history is folded in."""

    dim: int = Field(64, ge=1, description="factors")
    regularization: float = Field(0.05, ge=0, description="ridge penalty on the factors")
    alpha: float = Field(1.0, gt=0, description="confidence of an interaction; an absent one has 1")
    iterations: int = Field(15, ge=1, description="sweeps over users and items")
    seed: int = Field(0, ge=0, description="start of the factors")
    half_life: float | None = Field(
        None, gt=0, description="items back in a history where weight is half; empty: none"
    )


class Als:
    """Item factors with the Gram matrix that folds a history in."""

    def __init__(self, config: AlsConfig, item_factors_ID: Float32) -> None:
        if item_factors_ID.ndim != 2 or item_factors_ID.shape[1] != config.dim:
            raise CompatibilityError(
                "ALS item factors", value=item_factors_ID.shape, limit=f"(items, {config.dim})",
                mend="use the factors that were fitted with this config",
            )  # fmt: skip
        self.config = config
        self.item_factors_ID = np.ascontiguousarray(item_factors_ID, np.float32)
        self.gram_DD = _gram(self.item_factors_ID) + config.regularization * np.eye(config.dim)
        self._inverse_DD = np.linalg.inv(self.gram_DD)

    def fold_in(self, histories: Sequence[Int32], confidences: Sequence[Float32] | None = None) -> Float32:
        """User factors (B, D) of histories that are ordered oldest first; zeros where a history is empty.

        Where no confidences are given, an item that comes more than once counts as in the fit: once, at its newest place.
        Solves (Y'Y + reg + Y_h' (C - 1) Y_h) x = Y_h' C w, with C the confidences of the history's items, alpha where they
        are not given, and w the recency weights [Hu et al. 2008, Eq. 4].
        """
        out = np.zeros((len(histories), self.config.dim), np.float32)
        for place, (row, history) in enumerate(zip(out, histories, strict=True)):
            if len(history):
                if confidences is None:
                    row[:] = self._fold(each_once(history), None)
                else:
                    row[:] = self._fold(history, confidences[place])
        return out

    def _fold(self, history: Int32, confidence_L: Float32 | None) -> np.ndarray:
        Y_LD = self.item_factors_ID[history].astype(np.float64)
        weight_L = recency_weights(len(history), self.config.half_life)
        if confidence_L is None and self.config.alpha == 1.0:
            return np.asarray(self._inverse_DD @ (weight_L @ Y_LD))
        c_L = np.full(len(history), self.config.alpha) if confidence_L is None else confidence_L
        return np.linalg.solve(self.gram_DD + (Y_LD.T * (c_L - 1.0)) @ Y_LD, (c_L * weight_L) @ Y_LD)

    def scores(self, histories: Sequence[Int32]) -> Float32:
        """Scores (B, I) of all items."""
        return np.asarray(self.fold_in(histories) @ self.item_factors_ID.T)

    def config_dict(self) -> dict[str, Any]:
        """What `from_state` needs beside the tensors; JSON."""
        return self.config.model_dump(mode="json")

    def tensors(self) -> dict[str, np.ndarray]:
        """The item factors; the Gram matrix follows from them."""
        return {"item_factors": self.item_factors_ID}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        """The model that `config_dict` and `tensors` describe.

        Raises:
            CompatibilityError: The factors have another dimension than the config says.
        """
        return cls(AlsConfig.parse(config, "ALS model"), tensors["item_factors"])


def _gram(factors_ID: Float32) -> np.ndarray:
    """Y'Y (D, D) in double precision, block by block: a copy of millions of factors costs memory."""
    blocks = (factors_ID[at : at + _BLOCK_ROWS] for at in range(0, len(factors_ID), _BLOCK_ROWS))
    gram_DD = np.zeros((factors_ID.shape[1], factors_ID.shape[1]))
    for block_ND in blocks:
        step()
        block = block_ND.astype(np.float64)
        gram_DD += block.T @ block
    return gram_DD


def fit_als(histories_UI: sp.csr_matrix, config: AlsConfig) -> Als:
    """Factors of the histories (user by item, one where the user has the item).

    One thread does it all, so that the seed decides the result.

    Raises:
        MissingExtraError: `implicit` is not installed.
    """
    try:
        from implicit.cpu.als import AlternatingLeastSquares
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtraError(
            "ALS needs the package implicit", mend="pip install 'tastemaker[train]'"
        ) from error
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=config.dim, regularization=config.regularization, alpha=config.alpha,
            iterations=config.iterations, num_threads=1, random_state=config.seed,
        )  # fmt: skip
        model.fit(sp.csr_matrix(histories_UI, dtype=np.float32), show_progress=False)
    return Als(config, np.asarray(model.item_factors, np.float32))
