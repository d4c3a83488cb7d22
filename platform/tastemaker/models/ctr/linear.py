"""Logistic regression on all fields' values."""

from typing import Any, ClassVar

from torch import Tensor

from tastemaker.models.ctr.fields import Fields
from tastemaker.models.ctr.network import NetworkConfig, NetworkModel
from tastemaker.models.ctr.vectors import Batch, FieldVectors, Network
from tastemaker.strict import Strict


class LinearNetwork(Network):
    """The linear model's log-odds."""

    def __init__(self, vectors: FieldVectors) -> None:
        super().__init__()
        self.vectors = vectors

    def forward(self, batch: Batch) -> Tensor:
        """(B,)."""
        linear_B: Tensor = self.vectors(batch)[1]
        return linear_B


class LogisticRegression(NetworkModel):
    """A weight for each value of each field; `dim` is of no effect."""

    kind = "lr"
    Config: ClassVar[type[Strict]] = NetworkConfig

    @classmethod
    def _made(cls, fields: Fields, config: Any) -> Network:
        return super()._made(fields, config.model_copy(update={"dim": 0}))

    @staticmethod
    def network(vectors: FieldVectors, config: Any) -> Network:  # noqa: ARG004
        """See `NetworkModel.network`."""
        return LinearNetwork(vectors)
