"""Trains the network of `tower`: steps of one domain at a time, in which part of what a user has is hidden.

The loss is the negative log likelihood of a user's items of the domain under a softmax over all its items, summed over the
user's items [Liang et al. 2018, Eq. 2] and divided by how many the batch has.

Shape letters: B users of a step, U users, J items of a domain, D dimension, M domains.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch

from tastemaker.errors import TrainingError
from tastemaker.models.transfer.domains import Domains
from tastemaker.models.transfer.tower import TowerConfig, items_of, users
from tastemaker.types import Float32, Float64, Int64

Weights = dict[str, torch.Tensor]
Penalty = Callable[[Weights], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Histories:
    """What users have, (U, J) by domain, with ones."""

    by_domain: Mapping[int, sp.csr_matrix]

    @classmethod
    def of(cls, domains: Domains, known: Sequence[int]) -> "Histories":
        """Of some domains."""
        return cls({domain: domains.matrix(domain) for domain in known})

    def learners(self, domain: int) -> Int64:
        """Users who have something of a domain."""
        return np.flatnonzero(np.diff(self.by_domain[domain].indptr)).astype(np.int64)

    def shown(
        self, user_B: Int64, domain: int, config: TowerConfig, draws: np.random.Generator
    ) -> dict[int, torch.Tensor]:
        """Histories as a step sees them: some items hidden, and of some users all of the domain that it learns."""
        rows = {name: matrix[user_B] for name, matrix in self.by_domain.items()}
        elsewhere_B = sum(np.diff(row.indptr) for name, row in rows.items() if name != domain)
        hidden_B = (draws.random(len(user_B)) < config.hide_own) & (np.asarray(elsewhere_B) > 0)
        found = {}
        for name, row in rows.items():
            size_B = np.diff(row.indptr)
            kept_N = draws.random(row.nnz) >= config.dropout
            if name == domain:
                kept_N &= ~np.repeat(hidden_B, size_B)
            scale_B = 1 / (np.sqrt(np.maximum(size_B, 1)) * (1 - config.dropout))
            data_N = (np.repeat(scale_B, size_B) * kept_N).astype(np.float32)
            dense = sp.csr_matrix((data_N, row.indices, row.indptr), row.shape).toarray()
            found[name] = torch.from_numpy(dense)
        return found


def domain_shares(size_M: Sequence[int], temperature: float) -> Float64:
    """(M,) how often each domain is learned: its size to the power 1 / temperature, over the sum of all.

    Temperature 1 is by size, a high one all alike [Raffel et al. 2020, Sec. 3.5.2].

    >>> domain_shares([16, 1], temperature=2.0).tolist()  # 4 to 1
    [0.8, 0.2]
    """
    weight_M = np.asarray(size_M, np.float64) ** (1 / temperature)
    shares_M: Float64 = weight_M / weight_M.sum()
    return shares_M


def train(
    weights: Weights,
    histories: Histories,
    config: TowerConfig,
    *,
    learned: Mapping[int, float],
    epochs: int,
    draws: np.random.Generator,
    temperature: float = 1.0,
    penalty: Penalty | None = None,
    trained_at: Callable[[int], frozenset[str]] | None = None,
) -> list[float]:
    """Trains weights in place; gives each epoch's mean loss.

    Args:
        weights: By name, see `tower`.
        histories: Of all domains that users are shown with.
        config: Of the network.
        learned: The domains that it learns, and what each one's loss weighs.
        epochs: Passes: as many steps as the users of the learned domains fill.
        draws: Of the order, the domains and what is hidden.
        temperature: See `domain_shares`.
        penalty: Added to the loss; unset, half `l2` times the squared weights is.
        trained_at: Names of the weights that an epoch moves; unset, all.

    Raises:
        TrainingError: The loss is not a number.
    """
    learners = {domain: histories.learners(domain) for domain in learned}
    share_M = domain_shares([histories.by_domain[domain].nnz for domain in learned], temperature)
    num_steps = sum(-(-len(found) // config.batch_size) for found in learners.values())
    decay = config.l2 if penalty is None else 0.0
    optimizer = torch.optim.Adam(weights.values(), config.learning_rate, weight_decay=decay, fused=True)
    queues = {domain: _Queue(found, draws) for domain, found in learners.items()}
    losses = []
    for epoch in range(epochs):
        moved = weights.keys() if trained_at is None else trained_at(epoch)
        for name, weight in weights.items():
            weight.requires_grad_(name in moved)
        total = 0.0
        for domain in draws.choice(list(learned), num_steps, p=share_M):
            user_B = queues[domain].take(config.batch_size)
            loss = _loss(weights, histories, config, int(domain), user_B, draws)
            optimizer.zero_grad()
            whole = learned[domain] * loss + (0 if penalty is None else penalty(weights))
            whole.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += float(loss.detach())
        losses.append(total / num_steps)
        if not np.isfinite(losses[-1]):
            raise TrainingError(f"loss of epoch {epoch + 1}", value=losses[-1], mend="lower learning_rate")
    return losses


def _loss(
    weights: Weights,
    histories: Histories,
    config: TowerConfig,
    domain: int,
    user_B: Int64,
    draws: np.random.Generator,
) -> torch.Tensor:
    vectors, worth = items_of(domain)
    user_BD = users(weights, histories.shown(user_B, domain, config, draws), config.num_layers)
    logit_BJ = user_BD @ weights[vectors].T + weights[worth]
    taken_BJ = torch.from_numpy(histories.by_domain[domain][user_B].toarray())
    return -(taken_BJ * torch.log_softmax(logit_BJ, 1)).sum() / taken_BJ.sum()


class _Queue:
    """Users of a domain in an order drawn anew each time that all have had their turn."""

    def __init__(self, user_U: Int64, draws: np.random.Generator) -> None:
        self._user_U, self._draws, self._left = user_U, draws, user_U[:0]

    def take(self, num: int) -> Int64:
        """The next ones, at most so many, none twice."""
        if not len(self._left):
            self._left = self._draws.permutation(self._user_U)
        taken, self._left = self._left[:num], self._left[num:]
        return taken


def as_weights(arrays: Mapping[str, Float32]) -> Weights:
    """Arrays as what can be trained; copies."""
    return {name: torch.from_numpy(array.copy()).requires_grad_() for name, array in arrays.items()}


def as_arrays(weights: Weights) -> dict[str, Float32]:
    """What was trained."""
    return {name: weight.detach().numpy() for name, weight in weights.items()}
