"""Wide & Deep, and DeepFM: a linear model or a factorisation machine beside a perceptron over the same vectors.

Shape letters: B rows, V vectors, D dimension.
"""

from typing import Any, ClassVar

from torch import Tensor

from tastemaker.models.ctr.fm import second_order
from tastemaker.models.ctr.network import DeepConfig, NetworkModel
from tastemaker.models.ctr.vectors import Batch, FieldVectors, Network
from tastemaker.models.dropping import ByteDropout
from tastemaker.models.layers import mlp
from tastemaker.strict import Strict


class DeepNetwork(Network):
    """Linear, with or without second order, and a perceptron over the vectors laid end to end, dropout on these too."""

    def __init__(self, vectors: FieldVectors, config: DeepConfig, *, pairs: bool) -> None:
        super().__init__()
        self.vectors, self._pairs = vectors, pairs
        self.dropout = ByteDropout(config.dropout)
        self.deep = mlp((vectors.num_vectors * config.dim, *config.hidden, 1), config.dropout)

    def forward(self, batch: Batch) -> Tensor:
        """(B,)."""
        vector_BVD, linear_B = self.vectors(batch)
        logit_B: Tensor = linear_B + self.deep(self.dropout(vector_BVD.flatten(1)))[:, 0]
        return logit_B + second_order(vector_BVD) if self._pairs else logit_B


class WideAndDeep(NetworkModel):
    """Wide & Deep [Cheng et al. 2016]; its wide part has the fields' values and no crossed ones, and one optimiser."""

    kind = "wide-deep"
    Config: ClassVar[type[Strict]] = DeepConfig

    @staticmethod
    def network(vectors: FieldVectors, config: Any) -> Network:
        """See `NetworkModel.network`."""
        return DeepNetwork(vectors, config, pairs=False)


class DeepFm(NetworkModel):
    """DeepFM [Guo et al. 2017]."""

    kind = "deepfm"
    Config: ClassVar[type[Strict]] = DeepConfig

    @staticmethod
    def network(vectors: FieldVectors, config: Any) -> Network:
        """See `NetworkModel.network`."""
        return DeepNetwork(vectors, config, pairs=True)
