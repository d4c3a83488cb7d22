"""DLRM on any fields: the library's ranker, `models.dlrm`, is the same model on the serving graph's features.

Shape letters: B rows, V vectors, D dimension, F dense features, P pairs of vectors.
"""

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from tastemaker.models.ctr.network import NetworkConfig, NetworkModel
from tastemaker.models.ctr.vectors import Batch, FieldVectors, Network
from tastemaker.models.dropping import ByteDropout
from tastemaker.models.layers import dot_products, mlp
from tastemaker.strict import Strict


class DlrmClickConfig(NetworkConfig):
    """DLRM."""

    bottom_hidden: tuple[int, ...] = Field(
        (64,), description="hidden widths of the bottom, which reads numbers"
    )
    top_hidden: tuple[int, ...] = Field((256, 256), description="hidden widths of the top")
    dropout: float = Field(
        0.1, ge=0, lt=1, description="share of hidden units and of the vectors' values dropped in training"
    )


class DlrmNetwork(Network):
    """The numbers' bottom gives a vector; all vectors and their pairs' products reach the top."""

    pairs_2P: Tensor

    def __init__(self, vectors: FieldVectors, config: DlrmClickConfig) -> None:
        super().__init__()
        self.vectors = vectors
        num_dense = len(vectors.fields.dense)
        self.bottom = (
            mlp((num_dense, *config.bottom_hidden, config.dim), config.dropout) if num_dense else None
        )
        num_vectors = vectors.num_vectors - num_dense + bool(num_dense)
        pairs = torch.tril_indices(num_vectors, num_vectors, offset=-1)
        self.register_buffer("pairs_2P", pairs, persistent=False)
        self.dropout = ByteDropout(config.dropout)
        width = num_vectors * config.dim + pairs.shape[1]
        self.top = mlp((width, *config.top_hidden, 1), config.dropout)

    def forward(self, batch: Batch) -> Tensor:
        """(B,)."""
        vector_BVD, linear_B = self.vectors.looked_up(batch)
        if self.bottom is not None:
            vector_BVD = torch.cat([self.bottom(batch.dense_BF)[:, None], vector_BVD], 1)
        vector_BVD = self.dropout(vector_BVD)
        product_BP = dot_products(vector_BVD, self.pairs_2P)
        logit_B: Tensor = linear_B + self.top(torch.cat([vector_BVD.flatten(1), product_BP], 1))[:, 0]
        return logit_B


class DlrmClick(NetworkModel):
    """DLRM [Naumov et al. 2019].

    Departures: all vectors reach the top, not the numbers' alone, since there may be no numbers; values of the vectors are dropped
    before they are multiplied; a linear model stands beside it.
    """

    kind = "dlrm"
    Config: ClassVar[type[Strict]] = DlrmClickConfig

    @staticmethod
    def network(vectors: FieldVectors, config: Any) -> Network:
        """See `NetworkModel.network`."""
        return DlrmNetwork(vectors, config)
