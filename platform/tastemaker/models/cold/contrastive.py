"""A projection of content vectors that is learned from what people took together, so that it holds for items nobody took yet.

Two items that one person took within a few places of each other are a pair; the head learns to tell a pair's second item from
those of all other pairs of its step, and the first likewise: the symmetric loss of [Radford et al. 2021, CLIP, Fig. 3], which is
InfoNCE [van den Oord et al. 2018] both ways. Since the others are drawn as often as they are taken, what the head learns is how
much more often than by chance two items meet, and not how popular they are [ibid., Eq. 5].

Shape letters: N rows of a log, P pairs of a step, R raw dimension, H hidden units, D dimension, I items.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate, islice

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tastemaker.errors import DataError
from tastemaker.features.content import ContrastiveConfig
from tastemaker.features.content.head import HEAD
from tastemaker.models.log import Log
from tastemaker.models.seeding import seeded
from tastemaker.types import Bool, Float32, Int32, Int64


def fit_head(
    raw_IR: Float32, part_dims: Sequence[int], log: Log, config: ContrastiveConfig
) -> tuple[dict[str, np.ndarray], list[float]]:
    """Tensors of a head, as `features.content.head` names them, and each step's loss.

    In the fit one part of an item in `config.dropped` of the cases is left out, so that an item that lacks it, or a search by
    text alone, is understood as well.

    Raises:
        DataError: Nobody took two items.
    """
    pairs, draws, losses = Pairs(log, config.window), np.random.default_rng(config.seed), []
    with seeded(config.seed):
        weights = _start(raw_IR.shape[1], config)
        optimizer = torch.optim.Adam(weights, config.learning_rate)
        for both in islice(pairs.steps(config.batch_size, draws), config.steps):
            views = [_dropped(raw_IR[item_P], part_dims, config.dropped, draws) for item_P in both]
            one_PD, other_PD = (_projected(torch.from_numpy(view_PR), weights) for view_PR in views)
            loss = info_nce(one_PD, other_PD, torch.from_numpy(taken_too(*both)), config.temperature)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(float(loss.detach()))
    found = [weight.detach().numpy() for weight in weights]
    return dict(zip(HEAD, found, strict=True)), losses


def info_nce(one_PD: Tensor, other_PD: Tensor, apart_PP: Tensor, temperature: float) -> Tensor:
    """The mean of -log(exp(a_p b_p / t) / sum over q of exp(a_p b_q / t)) and of the same with a and b exchanged.

    Args:
        one_PD: a, unit vectors.
        other_PD: b, likewise.
        apart_PP: Which q do not count among the others of p.
        temperature: t.

    Two pairs whose products are 1 with their own and 0 with the other's, at t = 1, lose log(1 + 1/e) each:

    >>> eye, none = torch.eye(2), torch.zeros(2, 2, dtype=torch.bool)
    >>> round(float(info_nce(eye, eye, none, 1.0)), 4), round(float(np.log(1 + np.exp(-1))), 4)
    (0.3133, 0.3133)
    """
    product_PP = (one_PD @ other_PD.T / temperature).masked_fill(apart_PP, -torch.inf)
    own_P = torch.arange(len(one_PD))
    losses = [functional.cross_entropy(each_PP, own_P) for each_PP in (product_PP, product_PP.T)]
    return (losses[0] + losses[1]) / 2


class Pairs:
    """Pairs of different items that one person took at most `window` places apart.

    Args:
        log: Who took what, in order.
        window: Places.
    """

    def __init__(self, log: Log, window: int) -> None:
        self._item_N = log.item_N
        begin_U, end_U = log.offsets[:-1], log.offsets[1:]
        at_N = np.arange(len(log))
        self._low_N = np.maximum(begin_U[log.user_N], at_N - window)
        self._high_N = np.minimum(end_U[log.user_N] - 1, at_N + window)
        self._first_N: Int64 = np.flatnonzero(self._high_N > self._low_N)

    def steps(self, size: int, draws: np.random.Generator) -> Iterator[tuple[Int32, Int32]]:
        """Pairs in steps of at most so many, pass by pass, for ever.

        Raises:
            DataError: There are none.
        """
        while True:
            first_N, second_N = self.draw(draws)
            if not len(first_N):
                raise DataError(
                    "nobody took two items, from which a contrastive projection learns",
                    mend="import events, or set projection: none",
                )
            order_N = draws.permutation(len(first_N))
            for at in range(0, len(order_N), size):
                yield first_N[order_N[at : at + size]], second_N[order_N[at : at + size]]

    def draw(self, draws: np.random.Generator) -> tuple[Int32, Int32]:
        """One partner for each row that has any, drawn from those in its window; pairs of an item with itself are left out."""
        at_N = self._first_N
        partner_N = draws.integers(self._low_N[at_N], self._high_N[at_N])
        partner_N = partner_N + (partner_N >= at_N)  # all places of the window but the row's own
        differ_N = self._item_N[at_N] != self._item_N[partner_N]
        return self._item_N[at_N[differ_N]], self._item_N[partner_N[differ_N]]


def taken_too(first_P: Int32, second_P: Int32) -> Bool:
    """(P, P) whether another pair has an item of this one, so that it is no example of what was not taken with it.

    >>> taken_too(np.array([0, 0, 3], np.int32), np.array([1, 2, 4], np.int32)).astype(int).tolist()
    [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    """
    same_PP = (second_P[None] == second_P[:, None]) | (first_P[None] == first_P[:, None])
    same_PP |= (second_P[None] == first_P[:, None]) | (first_P[None] == second_P[:, None])
    np.fill_diagonal(same_PP, False)
    return np.asarray(same_PP, np.bool_)


def _dropped(raw_PR: Float32, part_dims: Sequence[int], share: float, draws: np.random.Generator) -> Float32:
    """Vectors with one part left out of some that have another one, at length 1."""
    end = list(accumulate(part_dims))
    spans = [slice(stop - dim, stop) for dim, stop in zip(part_dims, end, strict=True)]
    chosen_P = np.where(draws.random(len(raw_PR)) < share, draws.integers(len(spans), size=len(raw_PR)), -1)
    found_PR = raw_PR.copy()
    for part, span in enumerate(spans):
        found_PR[chosen_P == part, span] = 0
    length_P = np.linalg.norm(found_PR, axis=1)
    bare_P = length_P == 0
    found_PR[bare_P], length_P[bare_P] = raw_PR[bare_P], 1
    return np.asarray(found_PR / length_P[:, None], np.float32)


def _start(raw_dim: int, config: ContrastiveConfig) -> list[Tensor]:
    """Weights in the order of `HEAD`: a random projection, and a hidden layer that adds little to it yet."""
    shapes = ((raw_dim, config.dim), (raw_dim, config.hidden), (config.hidden,), (config.hidden, config.dim))
    scales = (config.dim**-0.5, raw_dim**-0.5, 0.0, 0.1 * config.hidden**-0.5)
    return [
        (scale * torch.randn(shape)).requires_grad_() for shape, scale in zip(shapes, scales, strict=True)
    ]


def _projected(raw_PR: Tensor, weights: list[Tensor]) -> Tensor:
    """`ProjectionHead` as torch follows it."""
    skip_RD, hidden_RH, bias_H, out_HD = weights
    return functional.normalize(raw_PR @ skip_RD + torch.relu(raw_PR @ hidden_RH + bias_H) @ out_HD, dim=1)
