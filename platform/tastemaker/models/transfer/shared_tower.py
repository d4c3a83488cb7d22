"""All domains learned together: one user tower that every step moves, one item tower for each domain."""

from abc import abstractmethod
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from tastemaker.models.transfer.domains import Domains
from tastemaker.models.transfer.model import MOVED, Part, TransferModel
from tastemaker.models.transfer.tower import Tower, TowerConfig, start
from tastemaker.strict import Strict
from tastemaker.types import Int32


class SharedTowerConfig(TowerConfig):
    """The shared tower."""

    temperature: float = Field(
        2.0, ge=1, description="a domain's share of steps is its rows to the power 1 / temperature"
    )
    weights: Mapping[str, float] = Field(
        default_factory=dict, description="what a domain's loss weighs, by name; 1 where it is not named"
    )


class TowerModel(TransferModel):
    """What the models with such a network share: the part of the target alone, and how parts are read."""

    @classmethod
    def part(cls, name: str, config: Any, domain_I: Int32, tensors: Mapping[str, np.ndarray]) -> Part:
        """See `TransferModel.part`."""
        del name
        return Tower(config, domain_I, tensors)

    @classmethod
    def learned(
        cls, domains: Domains, config: Any, parts: Collection[str]
    ) -> tuple[dict[str, Part], dict[str, tuple[float, ...]]]:
        """See `TransferModel.learned`."""
        found: dict[str, Part] = {}
        losses = {}
        for name in parts:
            learn = cls.moved if name == MOVED else alone
            found[name], losses[name] = learn(domains, config)
        return found, losses

    @classmethod
    @abstractmethod
    def moved(cls, domains: Domains, config: Any) -> tuple[Tower, tuple[float, ...]]:
        """The part that learns from all domains, and its loss by epoch."""


class SharedTower(TowerModel):
    """Multi-task learning by hard sharing [Caruana 1997]: steps of one domain each, drawn by its size and a temperature."""

    kind = "shared-tower"
    Config: ClassVar[type[Strict]] = SharedTowerConfig

    @classmethod
    def moved(cls, domains: Domains, config: SharedTowerConfig) -> tuple[Tower, tuple[float, ...]]:
        """See `TowerModel`."""
        weigh = {place: config.weights.get(name, 1.0) for place, name in enumerate(domains.names)}
        return _trained(domains, config, weigh, config.temperature)


def alone(domains: Domains, config: TowerConfig) -> tuple[Tower, tuple[float, ...]]:
    """The network of the target alone."""
    return _trained(domains, config, {0: 1.0}, 1.0)


def _trained(
    domains: Domains, config: TowerConfig, weigh: Mapping[int, float], temperature: float
) -> tuple[Tower, tuple[float, ...]]:
    from tastemaker.models.transfer.training import Histories, as_arrays, as_weights, train

    known = list(weigh)
    weights = as_weights(start(domains, config, known))
    losses = train(
        weights, Histories.of(domains, known), config, learned=weigh, epochs=config.epochs,
        draws=np.random.default_rng((config.seed, 3)), temperature=temperature,
    )  # fmt: skip
    return Tower.of(config, domains, as_arrays(weights), known), tuple(losses)
