"""Factorisation machine, and its second order for models that build on it.

Shape letters: B rows, V vectors, D dimension.
"""

from typing import Any

from torch import Tensor

from tastemaker.models.ctr.network import NetworkModel
from tastemaker.models.ctr.vectors import Batch, FieldVectors, Network


def second_order(vector_BVD: Tensor) -> Tensor:
    """(B,) sum of the inner products of all pairs of vectors [Rendle 2010, Lemma 3.1].

    >>> import torch
    >>> second_order(torch.tensor([[[1.0, 2.0], [3.0, 1.0], [0.0, 1.0]]])).item()  # 5 + 2 + 1
    8.0
    """
    return 0.5 * (vector_BVD.sum(1).square() - vector_BVD.square().sum(1)).sum(1)


class FmNetwork(Network):
    """Linear and second order."""

    def __init__(self, vectors: FieldVectors) -> None:
        super().__init__()
        self.vectors = vectors

    def forward(self, batch: Batch) -> Tensor:
        """(B,)."""
        vector_BVD, linear_B = self.vectors(batch)
        logit_B: Tensor = linear_B + second_order(vector_BVD)
        return logit_B


class FactorisationMachine(NetworkModel):
    """FM [Rendle 2010]."""

    kind = "fm"

    @staticmethod
    def network(vectors: FieldVectors, config: Any) -> Network:  # noqa: ARG004
        """See `NetworkModel.network`."""
        return FmNetwork(vectors)
