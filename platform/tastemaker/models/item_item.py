"""Item-to-item models: a score of an item is the sum of its weights from the items in the history.

EASE [Steck 2019] is solved in closed form; neighbourhood models come from `implicit`. Both keep, for each
history item, its strongest weights only, as a sparse matrix. A half-life makes newer history items count more
at query time; the fit itself does not see it.

Shape letters: B requests, I catalogue, U users.
"""

import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from pydantic import Field

from tastemaker.errors import CompatibilityError, MissingExtraError
from tastemaker.features.ragged import ranges
from tastemaker.features.recency import recency_weights
from tastemaker.models.log import each_once
from tastemaker.strict import Strict
from tastemaker.types import Float32, Int32

_BLOCK_ROWS = 1024
_DENSE_SHARE = 0.2
_SPARSE_BELOW = 20
"""Times the weights of a history must be fewer than the items, for it to pay that they are sorted and not laid out."""


class ItemItemConfig(Strict):
    """What an item-to-item model is, beside its weights."""

    kind: Literal["ease", "cosine", "tfidf", "bm25"] = Field(description="how the weights were fitted")
    num_items: int = Field(ge=1, description="items of the catalogue")
    half_life: float | None = Field(
        None, gt=0, description="items back in a history where weight is half; empty: none"
    )


class ItemItem:
    """Sparse item-to-item weights. Row i holds what a history item i gives to every other item."""

    def __init__(self, config: ItemItemConfig, weights_II: sp.csr_matrix) -> None:
        if weights_II.shape != (config.num_items, config.num_items):
            raise CompatibilityError(
                "item-to-item weights", value=weights_II.shape, limit=(config.num_items, config.num_items),
                mend="use the weights that were fitted with this config",
            )  # fmt: skip
        self.config = config
        self._indptr = weights_II.indptr.astype(np.int64)
        self._indices = weights_II.indices.astype(np.int32)
        self._data = weights_II.data.astype(np.float32)

    def with_half_life(self, half_life: float | None) -> "ItemItem":
        """The same weights read with another half-life; nothing is refitted."""
        config = self.config.model_copy(update={"half_life": half_life})
        return ItemItem(config, self.weights())

    def weights(self) -> sp.csr_matrix:
        """The weights, (I, I)."""
        shape = (self.config.num_items, self.config.num_items)
        return sp.csr_matrix((self._data, self._indices, self._indptr), shape)

    def scores(self, histories: Sequence[Int32]) -> Float32:
        """Scores (B, I) of all items for histories that are ordered oldest first; zeros for an empty one.

        An item that a history has more than once counts as in the fit: once, at its newest place.
        """
        histories = [each_once(history_L) for history_L in histories]
        lengths = [len(history_L) for history_L in histories]
        weight_N = [recency_weights(length, self.config.half_life) for length in lengths]
        history_BI = sp.csr_matrix(
            (
                np.concatenate([*weight_N, np.empty(0)]).astype(np.float32),
                np.concatenate([*histories, np.empty(0, np.int32)]).astype(np.int32),
                np.concatenate([[0], np.cumsum(lengths)]),
            ),
            (len(histories), self.config.num_items),
        )
        product = history_BI @ self._laid_out
        return np.asarray(product.toarray() if sp.issparse(product) else product, np.float32)

    @cached_property
    def _laid_out(self) -> sp.csr_matrix | Float32:
        """The weights as a plain array where most items weigh on most others: products with it are faster."""
        weights = self.weights()
        is_dense = weights.nnz > _DENSE_SHARE * self.config.num_items**2
        return weights.toarray() if is_dense else weights

    def neighbours(self, history: Int32) -> tuple[Int32, Float32]:
        """The items to which a history gives anything, ascending, and their scores; all others score 0.

        The price is that of the history items' weights, or of the catalogue where these are as many. What comes more than once
        counts once, see `scores`.
        """
        history = each_once(history)
        weight_L = recency_weights(len(history), self.config.half_life)
        begin, end = self._indptr[history], self._indptr[history + 1]
        at = ranges(begin, end - begin)
        value = self._data[at] * np.repeat(weight_L, end - begin)
        if len(at) * _SPARSE_BELOW > self.config.num_items:
            score_I = np.bincount(self._indices[at], value, self.config.num_items).astype(np.float32)
            rows = np.flatnonzero(score_I).astype(np.int32)
            return rows, score_I[rows]
        rows, place = np.unique(self._indices[at], return_inverse=True)
        return rows, np.bincount(place, value, len(rows)).astype(np.float32)

    def config_dict(self) -> dict[str, Any]:
        """What `from_state` needs beside the tensors; JSON."""
        return self.config.model_dump(mode="json")

    def tensors(self) -> dict[str, np.ndarray]:
        """The weights as the three arrays of a CSR matrix."""
        return {"indptr": self._indptr, "indices": self._indices, "data": self._data}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        """The model that `config_dict` and `tensors` describe.

        Raises:
            CompatibilityError: Config and weights are of different catalogues.
        """
        parsed = ItemItemConfig.parse(config, "item-to-item model")
        num_rows = len(tensors["indptr"]) - 1
        weights = sp.csr_matrix(
            (tensors["data"], tensors["indices"], tensors["indptr"]), (num_rows, num_rows)
        )
        return cls(parsed, weights)


def fit_ease(
    histories_UI: sp.csr_matrix, l2: float, *, keep: int | None = None, half_life: float | None = None
) -> ItemItem:
    """EASE: item-to-item weights, zero on the diagonal, that best reproduce histories [Steck 2019, Eq. 8].

    Where there are fewer users than items the inverse is taken in the users' space (Woodbury), which gives
    the same weights: P = (I - X' (X X' + l2)^-1 X) / l2.

    Args:
        histories_UI: User by item, one where the user has the item.
        l2: Ridge penalty, above 0.
        keep: Strongest weights (by magnitude) kept per history item; unset keeps all.
        half_life: See `ItemItemConfig`.
    """
    X_UI = sp.csr_matrix(histories_UI, dtype=np.float64)
    num_users, num_items = X_UI.shape
    inverse = _InverseByUsers(X_UI, l2) if num_users < num_items else _InverseByItems(X_UI, l2)
    blocks = []
    for start in range(0, num_items, _BLOCK_ROWS):
        rows = np.arange(start, min(start + _BLOCK_ROWS, num_items))
        weight = inverse.rows(rows) / -inverse.diagonal
        weight[np.arange(len(rows)), rows] = 0.0
        blocks.append(_strongest(weight.astype(np.float32), keep))
    config = ItemItemConfig(kind="ease", num_items=num_items, half_life=half_life)
    return ItemItem(config, sp.vstack(blocks, format="csr"))


class _InverseByItems:
    """Rows of (X'X + l2)^-1, inverted as it stands."""

    def __init__(self, X_UI: sp.csr_matrix, l2: float) -> None:
        gram_II = (X_UI.T @ X_UI).toarray()
        gram_II[np.diag_indices_from(gram_II)] += l2
        self._inverse_II = scipy.linalg.inv(gram_II, overwrite_a=True, check_finite=False)
        self.diagonal = np.diagonal(self._inverse_II).copy()

    def rows(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(self._inverse_II[rows])


class _InverseByUsers:
    """Rows of (X'X + l2)^-1 through the smaller (X X' + l2)^-1."""

    def __init__(self, X_UI: sp.csr_matrix, l2: float) -> None:
        gram_UU = (X_UI @ X_UI.T).toarray()
        gram_UU[np.diag_indices_from(gram_UU)] += l2
        self._X_IU = X_UI.T.tocsr()
        self._solved_UI = scipy.linalg.solve(gram_UU, X_UI.toarray(), assume_a="pos", check_finite=False)
        self._l2 = l2
        self.diagonal = (1.0 - np.asarray(X_UI.multiply(self._solved_UI).sum(axis=0)).ravel()) / l2

    def rows(self, rows: np.ndarray) -> np.ndarray:
        out = -(self._X_IU[rows] @ self._solved_UI)
        out[np.arange(len(rows)), rows] += 1.0
        return np.asarray(out / self._l2)


def _strongest(weight_RI: Float32, keep: int | None) -> sp.csr_matrix:
    """The `keep` weights of largest magnitude of each row, as a sparse matrix."""
    num_items = weight_RI.shape[1]
    if keep is None or keep >= num_items:
        return sp.csr_matrix(weight_RI)
    kept_RK = np.sort(np.argpartition(-np.abs(weight_RI), keep - 1, axis=1)[:, :keep], axis=1)
    indptr = np.arange(len(weight_RI) + 1) * keep
    data = np.take_along_axis(weight_RI, kept_RK, axis=1).ravel()
    pruned = sp.csr_matrix((data, kept_RK.ravel(), indptr), weight_RI.shape)
    pruned.eliminate_zeros()
    return pruned


def fit_item_knn(
    histories_UI: sp.csr_matrix,
    *,
    similarity: Literal["cosine", "tfidf", "bm25"] = "cosine",
    num_neighbours: int = 100,
    half_life: float | None = None,
) -> ItemItem:
    """Nearest neighbours by `implicit`: an item in the history gives to its nearest their similarity to it.

    Raises:
        MissingExtraError: `implicit` is not installed.
    """
    try:
        from implicit.nearest_neighbours import BM25Recommender, CosineRecommender, TFIDFRecommender
        from implicit.utils import ParameterWarning
    except ImportError as error:
        raise MissingExtraError(
            "item-kNN needs the package implicit", mend="pip install 'tastemaker[train]'"
        ) from error
    kinds = {"cosine": CosineRecommender, "tfidf": TFIDFRecommender, "bm25": BM25Recommender}
    X_UI = sp.csr_matrix(histories_UI, dtype=np.float64)
    num_items = X_UI.shape[1]
    model = kinds[similarity](
        K=num_neighbours + 1, num_threads=1
    )  # the item itself is among its own neighbours
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.simplefilter("ignore", ParameterWarning)  # implicit warns of its own conversion to CSR
        model.fit(X_UI, show_progress=False)
    weights_II = sp.csr_matrix(model.similarity, dtype=np.float32)
    # Items of users alone who took all but one have weight 0, and 0/0 by the norm.
    weights_II.data = np.nan_to_num(weights_II.data, nan=0.0)
    weights_II.setdiag(0.0)
    weights_II.eliminate_zeros()
    return ItemItem(ItemItemConfig(kind=similarity, num_items=num_items, half_life=half_life), weights_II)
