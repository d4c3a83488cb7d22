"""One user tower for all domains, and a tower of items for each: the network, as arrays and as a function of torch.

A user is the sum over domains of the vectors of that domain's items in the history, divided by the root of how many they are,
through layers of tanh. A domain's item tower is a table with a bias. It is the network of [Liang et al. 2018, Mult-DAE]
with an output for each domain.

Shape letters: B users, I items, J items of one domain, D dimension, E = D + 1 with the bias.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from pydantic import Field

from tastemaker.errors import CompatibilityError
from tastemaker.models.log import Askers
from tastemaker.models.transfer.domains import Domains
from tastemaker.models.transfer.model import TransferConfig
from tastemaker.types import Float32, Int32

if TYPE_CHECKING:
    import torch

START = "start"
"""What a user is before any item."""


class TowerConfig(TransferConfig):
    """Of models that have such a network."""

    dim: int = Field(64, ge=1, description="dimension of users and items")
    num_layers: int = Field(
        1, ge=0, description="layers of the user tower above the sum of a history's items"
    )
    dropout: float = Field(0.5, ge=0, lt=1, description="share of a history's items that a step hides")
    hide_own: float = Field(
        0.5,
        ge=0,
        le=1,
        description="chance that a step hides all of the domain that it learns, of who has others",
    )
    epochs: int = Field(30, ge=1, description="passes over the users of the domains that it learns")
    batch_size: int = Field(128, ge=1, description="users of a step")
    learning_rate: float = Field(0.002, gt=0, description="step size of Adam")
    l2: float = Field(0.0, ge=0, description="penalty on the squared weights")


def input_of(domain: int) -> str:
    """Name of the table that a history's items of a domain are looked up in."""
    return f"input.{domain}"


def items_of(domain: int) -> tuple[str, str]:
    """Names of a domain's item tower: vectors, and what each is worth to everybody."""
    return f"items.{domain}", f"worth.{domain}"


def layer_of(layer: int) -> tuple[str, str]:
    """Names of a layer of the user tower, the lowest 0."""
    return f"weight.{layer}", f"bias.{layer}"


def start(domains: Domains, config: TowerConfig, known: Sequence[int]) -> dict[str, Float32]:
    """Weights before training, for the domains that the network knows: normal, of variance 2 / (in + out) [Glorot & Bengio 2010]."""
    draws = np.random.default_rng((config.seed, 2))
    dim = config.dim
    found: dict[str, Float32] = {START: np.zeros(dim, np.float32)}
    for layer in range(config.num_layers):
        weight, bias = layer_of(layer)
        found[weight] = draws.normal(0, np.sqrt(1 / dim), (dim, dim)).astype(np.float32)
        found[bias] = np.zeros(dim, np.float32)
    for domain in known:
        num = len(domains.rows(domain))
        deviation = np.sqrt(2 / (num + dim))
        vectors, worth = items_of(domain)
        for name in (input_of(domain), vectors):
            found[name] = draws.normal(0, deviation, (num, dim)).astype(np.float32)
        found[worth] = np.zeros(num, np.float32)
    return found


def users(
    weights: "Mapping[str, torch.Tensor]", histories: "Mapping[int, torch.Tensor]", num_layers: int
) -> "torch.Tensor":
    """(B, D) users of histories, (B, J) by domain, whose rows are already divided by the root of their length."""
    import torch

    hidden_BD = weights[START] + sum(
        history_BJ @ weights[input_of(domain)] for domain, history_BJ in histories.items()
    )
    hidden_BD = torch.tanh(hidden_BD)
    for layer in range(num_layers):
        weight, bias = layer_of(layer)
        hidden_BD = torch.tanh(hidden_BD @ weights[weight] + weights[bias])
    return hidden_BD


class Tower:
    """The network as a part of a model: all domains' tables in rows of the catalogue, zeros where it knows none.

    Args:
        config: Of the network.
        domain_I: Of the items.
        tensors: `input` and `items` (I, D), `worth` (I,), the layers.
    """

    def __init__(self, config: TowerConfig, domain_I: Int32, tensors: Mapping[str, Float32]) -> None:
        self._num_layers, self._domain_I, self._tensors = config.num_layers, domain_I, dict(tensors)
        if tensors["input"].shape != (len(domain_I), config.dim):
            raise CompatibilityError(
                "input table of a transfer's tower", value=tensors["input"].shape,
                limit=(len(domain_I), config.dim),
            )  # fmt: skip
        self._item_IE: Float32 = np.column_stack([tensors["items"], tensors["worth"]]).astype(np.float32)

    @classmethod
    def of(
        cls, config: TowerConfig, domains: Domains, weights: Mapping[str, Float32], known: Sequence[int]
    ) -> "Tower":
        """Of weights by domain."""
        num_items, dim = len(domains.domain_I), config.dim
        whole = {
            "input": np.zeros((num_items, dim), np.float32),
            "items": np.zeros((num_items, dim), np.float32),
            "worth": np.zeros(num_items, np.float32),
        }
        for domain in known:
            rows = domains.rows(domain)
            for name, of_domain in zip(whole, (input_of(domain), *items_of(domain)), strict=True):
                whole[name][rows] = weights[of_domain]
        layers = [name for layer in range(config.num_layers) for name in layer_of(layer)]
        whole |= {name: weights[name] for name in (START, *layers)}
        return cls(config, domains.domain_I, whole)

    def item_vectors(self) -> Float32:
        """See `Part`."""
        return self._item_IE

    def user_vectors(self, askers: Askers) -> Float32:
        """See `Part`."""
        taken_BI = divided(askers.matrix(len(self._domain_I)), self._domain_I)
        hidden_BD = np.tanh(taken_BI @ self._tensors["input"] + self._tensors[START])
        for layer in range(self._num_layers):
            weight, bias = layer_of(layer)
            hidden_BD = np.tanh(hidden_BD @ self._tensors[weight] + self._tensors[bias])
        whole_BE = np.column_stack([hidden_BD, np.ones(len(hidden_BD))])
        length_B1: Float32 = (whole_BE / np.sqrt(whole_BE.shape[1])).astype(np.float32)
        return length_B1

    def tensors(self) -> dict[str, Float32]:
        """See `Part`."""
        return self._tensors


def divided(taken_BI: sp.csr_matrix, domain_I: Int32) -> sp.csr_matrix:
    """The same with each item weighed by 1 / root of how many items of its domain the row has.

    >>> taken = sp.csr_matrix(np.array([[1.0, 1.0, 1.0, 1.0, 1.0]], np.float32))
    >>> divided(taken, np.array([0, 0, 0, 0, 1], np.int32)).toarray().tolist()  # 1 / 2 and 1 / 1
    [[0.5, 0.5, 0.5, 0.5, 1.0]]
    """
    row_N = np.repeat(np.arange(taken_BI.shape[0]), np.diff(taken_BI.indptr))
    num_domains = int(domain_I.max(initial=0)) + 2  # one for items of none
    key_N = row_N * num_domains + domain_I[taken_BI.indices] + 1
    count_N = np.bincount(key_N)[key_N] if len(key_N) else np.ones(0)
    weight_N = (1 / np.sqrt(count_N)).astype(np.float32)
    return sp.csr_matrix((weight_N, taken_BI.indices, taken_BI.indptr), taken_BI.shape)
