"""SVD with biases and SVD++: factors of ratings, learned by gradients over blocks of users.

Shape letters: U users, I items, D dimension, B users of a block or askers, N ratings.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import scipy.sparse as sp
from pydantic import Field

from tastemaker.errors import CompatibilityError, DataError
from tastemaker.models.biases import mean_ratings, ratings_of
from tastemaker.models.log import Askers, Log
from tastemaker.models.recommender import Recommender
from tastemaker.strict import Strict
from tastemaker.types import Float32, Int64

if TYPE_CHECKING:
    import torch


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
        tensors, losses = _learn(rating_UI, config, heeds_taken=cls.heeds_taken)
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
        return _of_taken(askers.matrix(self.num_items), self._tensors["taken"])

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


class SvdPlusPlus(Svd):
    """SVD whose users' factors are p + the sum of y over the items that they rated / sqrt(their number) [Koren 2008, Eq. 15]."""

    kind = "svdpp"
    Config: ClassVar[type[Strict]] = SvdPlusPlusConfig
    heeds_taken = True


def _of_taken(taken_BI: sp.csr_matrix, taken_ID: Float32) -> Float32:
    size_B1 = np.sqrt(np.maximum(np.diff(taken_BI.indptr), 1)).astype(np.float32)[:, None]
    sum_BD: Float32 = np.asarray(taken_BI @ taken_ID, np.float32)
    sum_BD /= size_B1
    return sum_BD


def _learn(
    rating_UI: sp.csr_matrix, config: SvdConfig, *, heeds_taken: bool
) -> tuple[dict[str, np.ndarray], list[float]]:
    """What was learned, users' factors with what they took; and each epoch's mean squared error while learning."""
    import torch

    num_users, num_items = rating_UI.shape
    mean = float(rating_UI.data.mean())
    draws = np.random.default_rng(config.seed)
    shapes = {"users": num_users, "items": num_items} | ({"taken": num_items} if heeds_taken else {})
    tables = {
        name: torch.from_numpy(draws.normal(0, 0.1, (size, config.dim)).astype(np.float32)).requires_grad_()
        for name, size in shapes.items()
    }
    tables |= {
        name: torch.zeros(size, requires_grad=True)
        for name, size in {"user_bias": num_users, "item_bias": num_items}.items()
    }
    optimizer = torch.optim.Adam(list(tables.values()), config.learning_rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, config.epochs)
    losses = []
    for _ in range(config.epochs):
        total = 0.0
        for user_B in _blocks(rating_UI, config.batch_ratings, draws):
            optimizer.zero_grad()
            squares, penalty, num = _loss(tables, rating_UI[user_B], user_B, mean, config)
            ((squares + penalty) / num).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += float(squares.detach())
        schedule.step()
        losses.append(total / rating_UI.nnz)
    found = {name: table.detach().numpy() for name, table in tables.items()}
    if heeds_taken:
        taken_UI = sp.csr_matrix(
            (np.ones(rating_UI.nnz, np.float32), rating_UI.indices, rating_UI.indptr), rating_UI.shape
        )
        found["users"] = found["users"] + _of_taken(taken_UI, found["taken"])
    has_U, has_I = np.diff(rating_UI.indptr) > 0, np.bincount(rating_UI.indices, minlength=num_items) > 0
    found["users"][~has_U] = 0
    found["items"][~has_I] = 0
    return found | {"mean": np.array([mean])}, losses


def _blocks(rating_UI: sp.csr_matrix, batch_ratings: int, draws: np.random.Generator) -> Iterator[Int64]:
    """Users with ratings in an order of chance, cut where enough ratings are together."""
    count_U = np.diff(rating_UI.indptr)
    order = draws.permutation(np.flatnonzero(count_U))
    block_U = np.cumsum(count_U[order]) // batch_ratings
    yield from np.split(order, np.flatnonzero(np.diff(block_U)) + 1)


def _loss(
    tables: "Mapping[str, torch.Tensor]",
    rating_BI: sp.csr_matrix,
    user_B: Int64,
    mean: float,
    config: SvdConfig,
) -> "tuple[torch.Tensor, torch.Tensor, int]":
    """Sum of squared errors, penalties, and the number of ratings."""
    import torch

    size_B = torch.from_numpy(np.diff(rating_BI.indptr).astype(np.int64))
    item_N = torch.from_numpy(rating_BI.indices.astype(np.int64))
    user_BD = tables["users"][torch.from_numpy(user_B)]
    weight_B = size_B.float()
    penalty = config.regularization * (weight_B @ user_BD.square().sum(1))
    if "taken" in tables:
        starts = torch.from_numpy(rating_BI.indptr[:-1].astype(np.int64))
        sum_BD = torch.nn.functional.embedding_bag(item_N, tables["taken"], starts, mode="sum")
        user_BD = user_BD + sum_BD / weight_B.sqrt()[:, None]
        taken_ID = tables["taken"]
        count_I = torch.bincount(item_N, minlength=len(taken_ID)).float()
        assert isinstance(config, SvdPlusPlusConfig)
        penalty = penalty + config.taken_regularization * (count_I @ taken_ID.square().sum(1))
    user_bias_B = tables["user_bias"][torch.from_numpy(user_B)]
    item_ND, item_bias_N = tables["items"][item_N], tables["item_bias"][item_N]
    row_N = torch.repeat_interleave(torch.arange(len(user_B)), size_B)
    guess_N = mean + user_bias_B[row_N] + item_bias_N + (user_BD[row_N] * item_ND).sum(1)
    squares = (torch.from_numpy(rating_BI.data) - guess_N).square().sum()
    penalty = penalty + config.regularization * item_ND.square().sum()
    biases = weight_B @ user_bias_B.square() + item_bias_N.square().sum()
    return squares, penalty + config.bias_regularization * biases, len(item_N)
