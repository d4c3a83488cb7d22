"""Tastes of three groups, of whose items every fourth is in nobody's history, and how well a model does there."""

from dataclasses import replace

import numpy as np

from tastemaker.models.log import Askers
from tastemaker.testing.worlds import Tastes
from tastemaker.types import Float32

CONTENT = {"dim": 16, "metadata_dim": 16}


def cold_tastes() -> Tastes:
    """Every fourth item of each group is in nobody's history."""
    found = Tastes.of(11, items_each=24)
    kept = ~cold_items(found)[found.log.item_N]
    log = replace(
        found.log, user_N=found.log.user_N[kept], item_N=found.log.item_N[kept],
        value_N=found.log.value_N[kept], timestamp_ms_N=found.log.timestamp_ms_N[kept],
    )  # fmt: skip
    return replace(found, log=log)


def cold_items(world: Tastes) -> np.ndarray:
    return np.arange(len(world.group_I)) % 4 == 3


def own_above_others(world: Tastes, score_BI: Float32, group_B: np.ndarray, among_I: np.ndarray) -> float:
    """Mean over people of the chance that an item of the own group scores above one of another: AUC among some items."""
    group_I, found = world.group_I[among_I], []
    for score_I, group in zip(score_BI[:, among_I], group_B, strict=True):
        own, others = score_I[group_I == group], score_I[group_I != group]
        found.append((own[:, None] > others).mean() + 0.5 * (own[:, None] == others).mean())
    return float(np.mean(found))


def few(world: Tastes, num: int) -> Askers:
    """The users as strangers with the first items of their history, of whom nothing else is known."""
    return Askers.strangers([history_L[:num] for history_L in world.log.histories()])
