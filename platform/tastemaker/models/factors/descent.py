"""Learning the tables of SVD and SVD++ by gradients over blocks of users. What the models are: see `svd`.

The slopes are written out rather than left to autograd: a block's errors are a sparse matrix, and its products with the factors are all
that a step needs.

Shape letters: U users, I items, D dimension, B users of a block, N ratings.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from tastemaker.types import Float32, Int64

Tables = dict[str, np.ndarray[Any, Any]]
"""`users` (U, D), `items` (I, D), `user_bias` (U,), `item_bias` (I,), and of SVD++ `taken` (I, D)."""


@dataclass(frozen=True, slots=True)
class Penalties:
    """On factors and biases by rating, and on what is learned of items taken by user who took them."""

    factors: float
    biases: float
    taken: float = 0.0


def learn(
    rating_UI: sp.csr_matrix,
    penalties: Penalties,
    *,
    dim: int,
    heeds_taken: bool,
    epochs: int,
    learning_rate: float,
    batch_ratings: int,
    seed: int,
) -> tuple[Tables, list[float]]:
    """The tables, the users' with what they took, and each epoch's mean squared error while learning.

    The steps are Adam's; its step size falls line by line to a fiftieth.
    """
    import torch

    num_users, num_items = rating_UI.shape
    mean = float(rating_UI.data.mean())
    draws = np.random.default_rng(seed)
    tables = _start(num_users, num_items, dim, draws, heeds_taken=heeds_taken)
    slopes = {name: np.zeros_like(value) for name, value in tables.items()}
    moved = []
    for name, value in tables.items():
        moved.append(torch.from_numpy(value).requires_grad_())
        moved[-1].grad = torch.from_numpy(slopes[name])
    optimizer = torch.optim.Adam(moved, learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, epochs)
    losses = []
    for _ in range(epochs):
        squares = 0.0
        for user_B in _blocks(rating_UI, batch_ratings, draws):
            squares += fill_slopes(slopes, tables, rating_UI[user_B], user_B, mean, penalties)
            optimizer.step()
            slopes["users"][user_B], slopes["user_bias"][user_B] = 0.0, 0.0
        schedule.step()
        losses.append(squares / rating_UI.nnz)
    if heeds_taken:
        tables["users"] += of_taken(rating_UI, tables["taken"])
    tables["users"][np.diff(rating_UI.indptr) == 0] = 0
    tables["items"][np.bincount(rating_UI.indices, minlength=num_items) == 0] = 0
    return tables | {"mean": np.array([mean])}, losses


def of_taken(taken_BI: sp.csr_matrix, taken_ID: Float32) -> Float32:
    """(B, D) the sum of the rows of the items that each has, over the root of their number [Koren 2008, Eq. 15]."""
    there_BI = _with(taken_BI, np.ones(taken_BI.nnz, taken_ID.dtype))
    size_B1 = np.sqrt(np.maximum(np.diff(taken_BI.indptr), 1)).astype(taken_ID.dtype)[:, None]
    sum_BD: Float32 = (there_BI @ taken_ID) / size_B1
    return sum_BD


def fill_slopes(
    slopes: Tables,
    tables: Mapping[str, np.ndarray[Any, Any]],
    rating_BI: sp.csr_matrix,
    user_B: Int64,
    mean: float,
    penalties: Penalties,
) -> float:
    """Writes into `slopes` those of a block's loss, and gives the sum of its squared errors.

    The loss is (squared errors + penalties) / ratings. Rows of users who are not in the block are left as they are.
    """
    items_ID, item_N, indptr = tables["items"], rating_BI.indices, rating_BI.indptr
    size_B, scale = np.diff(indptr), 2 / rating_BI.nnz
    row_N = np.repeat(np.arange(len(user_B)), size_B)
    own_BD, bias_B = tables["users"][user_B], tables["user_bias"][user_B]
    user_BD = own_BD + of_taken(rating_BI, tables["taken"]) if "taken" in tables else own_BD
    error_N = rating_BI.data - mean - bias_B[row_N] - tables["item_bias"][item_N]
    error_N -= np.einsum("nd,nd->n", user_BD[row_N], items_ID[item_N])
    error_BI = _with(rating_BI, error_N)
    pull_BD = error_BI @ items_ID
    weight_B = size_B.astype(error_N.dtype)
    count_I = np.bincount(item_N, minlength=len(items_ID)).astype(error_N.dtype)
    slopes["users"][user_B] = scale * (penalties.factors * weight_B[:, None] * own_BD - pull_BD)
    slopes["items"][:] = scale * (penalties.factors * count_I[:, None] * items_ID - error_BI.T @ user_BD)
    by_user_B = np.bincount(row_N, error_N, len(user_B))
    by_item_I = np.bincount(item_N, error_N, len(items_ID))
    slopes["user_bias"][user_B] = scale * (penalties.biases * weight_B * bias_B - by_user_B)
    slopes["item_bias"][:] = scale * (penalties.biases * count_I * tables["item_bias"] - by_item_I)
    if "taken" in tables:
        there_BI = _with(rating_BI, np.ones_like(error_N))
        pulled_ID = there_BI.T @ (pull_BD / np.sqrt(weight_B)[:, None])
        slopes["taken"][:] = scale * (penalties.taken * count_I[:, None] * tables["taken"] - pulled_ID)
    return float(error_N @ error_N)


def _start(
    num_users: int, num_items: int, dim: int, draws: np.random.Generator, *, heeds_taken: bool
) -> Tables:
    """Factors of standard deviation 0.1, biases 0."""
    sizes = {"users": num_users, "items": num_items} | ({"taken": num_items} if heeds_taken else {})
    factors = {name: draws.normal(0, 0.1, (size, dim)).astype(np.float32) for name, size in sizes.items()}
    return factors | {
        "user_bias": np.zeros(num_users, np.float32),
        "item_bias": np.zeros(num_items, np.float32),
    }


def _blocks(rating_UI: sp.csr_matrix, batch_ratings: int, draws: np.random.Generator) -> Iterator[Int64]:
    """Users with ratings in an order of chance, cut where enough ratings are together."""
    count_U = np.diff(rating_UI.indptr)
    order = draws.permutation(np.flatnonzero(count_U))
    block_U = np.cumsum(count_U[order]) // batch_ratings
    yield from np.split(order, np.flatnonzero(np.diff(block_U)) + 1)


def _with(rows: sp.csr_matrix, data: np.ndarray[Any, Any]) -> sp.csr_matrix:
    """Other values in the same places."""
    return sp.csr_matrix((data, rows.indices, rows.indptr), rows.shape)
