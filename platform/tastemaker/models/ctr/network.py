"""Click models that are networks. Shape letters: N rows."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import torch
from pydantic import Field

from tastemaker.errors import CompatibilityError
from tastemaker.models.contributions import Contributions
from tastemaker.models.ctr.contributions import network_contributions
from tastemaker.models.ctr.fields import Fields, Rows
from tastemaker.models.ctr.fitting import ClickFitConfig, fit_network, log_odds, predicted
from tastemaker.models.ctr.model import ClickModel, Labelled, Watch
from tastemaker.models.ctr.vectors import FieldVectors, Network
from tastemaker.models.seeding import seeded
from tastemaker.strict import Strict
from tastemaker.types import Float32


class NetworkConfig(Strict):
    """What all networks are told."""

    dim: int = Field(16, ge=1, description="dimension of a field's embedding")
    fit: ClickFitConfig = Field(ClickFitConfig(), description="how it is fitted")
    seed: int = Field(0, ge=0, description="start of the weights, order of the rows, dropout")


class DeepConfig(NetworkConfig):
    """A network with a perceptron of several layers in it."""

    hidden: tuple[int, ...] = Field((256, 256, 256), min_length=1, description="widths of its layers")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of units dropped in training")


class NetworkModel(ClickModel):
    """A click model that is a network, learned by cross-entropy. Subclasses give the network."""

    Config: ClassVar[type[Strict]] = NetworkConfig

    def __init__(self, fields: Fields, config: Strict, network: Network) -> None:
        self.fields, self.config, self._network = fields, config, network.eval()

    @staticmethod
    @abstractmethod
    def network(vectors: FieldVectors, config: Any) -> Network:
        """The untrained network, its weights drawn from torch's generator."""

    @classmethod
    def _made(cls, fields: Fields, config: Any) -> Network:
        is_large = sum(fields.num_rows.values()) > config.fit.lazy_above_rows
        vectors = FieldVectors(fields, config.dim, sparse=is_large)
        return cls.network(vectors, config)

    @classmethod
    def check_fields(cls, fields: Fields, config: Any) -> None:
        """See `ClickModel.check_fields`."""
        with seeded(0):
            cls._made(fields, config)

    @classmethod
    def fit(
        cls, learned: Labelled, config: Any, validation: Labelled | None = None, watch: Watch | None = None
    ) -> Self:
        """See `ClickModel.fit`."""
        if validation is not None:
            validation.rows.require(learned.rows.fields)
            validation.require_like(learned)
        with seeded(config.seed):
            network = cls._made(learned.rows.fields, config)
        network.vectors.learn_scale(learned)
        losses = fit_network(network, learned, validation, config.fit, config.seed, watch)
        model = cls(learned.rows.fields, config, network)
        model.losses = tuple(losses)
        return model

    def predict(self, rows: Rows) -> Float32:
        """See `ClickModel.predict`. Thread-safe."""
        rows.require(self.fields)
        return predicted(self._network, rows)

    def scores(self, rows: Rows) -> Float32:
        """See `ClickModel.scores`. Thread-safe."""
        rows.require(self.fields)
        return log_odds(self._network, rows)

    def contributions(self, rows: Rows, at: int) -> Contributions:
        """See `ClickModel.contributions`."""
        rows.require(self.fields)
        return network_contributions(self._network, rows, at)

    def tensors(self) -> dict[str, np.ndarray]:
        """See `ClickModel.tensors`."""
        return {name: value.detach().cpu().numpy() for name, value in self._network.state_dict().items()}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        """See `ClickModel.from_state`."""
        fields, parsed = cls._parsed(config)
        with seeded(0):
            network = cls._made(fields, parsed)
        try:
            network.load_state_dict(
                {name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}
            )
        except RuntimeError as error:
            raise CompatibilityError(
                f"weights of a {cls.kind}", value=str(error).splitlines()[-1].strip(),
                mend="use the weights that were learned with this config",
            ) from error  # fmt: skip
        return cls(fields, parsed, network)
