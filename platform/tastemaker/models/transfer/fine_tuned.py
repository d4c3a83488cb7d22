"""Trained on the sources first, then on the target: layer by layer from the top, and held near what the sources gave.

Shape letters: D dimension, J items of a domain.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from tastemaker.models.transfer.domains import Domains
from tastemaker.models.transfer.shared_tower import TowerModel
from tastemaker.models.transfer.tower import START, Tower, TowerConfig, input_of, items_of, layer_of, start
from tastemaker.strict import Strict

if TYPE_CHECKING:
    import torch

    from tastemaker.models.transfer.training import Penalty, Weights


class FineTunedConfig(TowerConfig):
    """Pre-training and fine-tuning."""

    source_epochs: int = Field(30, ge=1, description="passes over the users of the sources, first")
    unfreeze_every: int = Field(
        3,
        ge=0,
        description="epochs of the target until the next layer below learns too; 0: all from the first",
    )
    l2_sp: float = Field(
        0.0,
        ge=0,
        description="penalty on the squared distance of the user tower from what the sources gave it",
    )


class FineTuned(TowerModel):
    """Gradual unfreezing [Howard & Ruder 2018, Sec. 3.3] with the penalty L2-SP [Li et al. 2018].

    First learn the tables of the target's items, then the user tower's layers from the top, last the tables that the sources'
    items are looked up in. Departure from the paper on unfreezing: a layer is let go every `unfreeze_every` epochs, not
    every one. The penalty is l2_sp / 2 * |w - w0|^2 over the user tower that was trained before, w0 being what it was then,
    and l2 / 2 * |w|^2 over the target's new tables.
    """

    kind = "fine-tuned"
    Config: ClassVar[type[Strict]] = FineTunedConfig

    @classmethod
    def moved(cls, domains: Domains, config: FineTunedConfig) -> tuple[Tower, tuple[float, ...]]:
        """See `TowerModel`."""
        from tastemaker.models.transfer.training import Histories, as_arrays, as_weights, train

        known = list(range(len(domains.names)))
        weights = as_weights(start(domains, config, known))
        draws = np.random.default_rng((config.seed, 4))
        train(
            {name: weight for name, weight in weights.items() if name not in target_tables()},
            Histories.of(domains, known[1:]), config, learned=dict.fromkeys(known[1:], 1.0),
            epochs=config.source_epochs, draws=draws,
        )  # fmt: skip
        stages = unfreezing(config.num_layers, len(known))
        losses = train(
            weights, Histories.of(domains, known), config, learned={0: 1.0}, epochs=config.epochs, draws=draws,
            penalty=l2_sp(weights, frozenset().union(*stages[1:]), config),
            trained_at=lambda epoch: unfrozen(stages, config.unfreeze_every, epoch),
        )  # fmt: skip
        return Tower.of(config, domains, as_arrays(weights), known), tuple(losses)


def target_tables() -> frozenset[str]:
    """What the sources say nothing of."""
    return frozenset({input_of(0), *items_of(0)})


def unfreezing(num_layers: int, num_domains: int) -> list[frozenset[str]]:
    """What begins to learn at each stage: the target's tables, the layers from the top, the sources' input."""
    layers = [frozenset(layer_of(layer)) for layer in reversed(range(num_layers))]
    return [target_tables(), *layers, frozenset({START, *map(input_of, range(1, num_domains))})]


def unfrozen(stages: list[frozenset[str]], every: int, epoch: int) -> frozenset[str]:
    """What learns in an epoch, the first being 0.

    >>> [sorted(unfrozen([frozenset("a"), frozenset("b")], every=2, epoch=epoch)) for epoch in range(3)]
    [['a'], ['a'], ['a', 'b']]
    """
    num = len(stages) if every == 0 else 1 + epoch // every
    return frozenset().union(*stages[:num])


def l2_sp(weights: "Weights", before: frozenset[str], config: FineTunedConfig) -> "Penalty":
    """The penalty, by what the weights are now."""
    was: Mapping[str, torch.Tensor] = {name: weights[name].detach().clone() for name in sorted(before)}

    def penalty(now: "Weights") -> "torch.Tensor":
        moved = sum((now[name] - was[name]).square().sum() for name in was)
        new = sum(now[name].square().sum() for name in sorted(target_tables()))
        total: torch.Tensor = config.l2_sp / 2 * moved + config.l2 / 2 * new  # type: ignore[assignment]
        return total

    return penalty
