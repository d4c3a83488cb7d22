"""Bundles of models that know later items by what they are, and items that are put after the release."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from tagged import NUM_ITEMS, items_table, write_bundle

from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.data.item_rows import Item
from tastemaker.models import zoo
from tastemaker.models.log import Log
from tastemaker.models.zoo import Packed
from tastemaker.stages.live import LiveStages
from tastemaker.state.items import ItemChanges
from tastemaker.types import Candidates, Query

NUM_USERS = 60
CONTENT = {"dim": 16, "metadata_dim": 32}
SETTINGS: dict[str, dict[str, Any]] = {
    "dropoutnet": {
        "base": {"kind": "als", "config": {"dim": 8, "alpha": 4.0, "iterations": 5}}, "content": CONTENT, "hidden": 32,
        "fit": {"epochs": 25, "batch_users": 32, "batch_items": 64, "learning_rate": 0.003},
    },
    "content-knn": {"content": CONTENT},
    "ease": {},
}  # fmt: skip
LIKES_T1 = np.array([1, 5, 9], np.int32)
NEW = NUM_ITEMS
LATER = ["dropoutnet", "content-knn"]


@cache
def later_log() -> Log:
    """Each user takes items of one tag alone; that of the last two, i22 and i23, nobody took."""
    draws, taken = np.random.default_rng(0), []
    for user in range(NUM_USERS):
        taken.append(draws.permutation(np.arange(user % 4, NUM_ITEMS - 2, 4))[:4])
    return Log.of(
        np.repeat(np.arange(NUM_USERS), 4), np.concatenate(taken), num_users=NUM_USERS, num_items=NUM_ITEMS,
        timestamp_ms_N=np.arange(4 * NUM_USERS), items=items_table(),
    )  # fmt: skip


@cache
def later_models() -> dict[str, Any]:
    """By kind; fitted once in a process."""
    return {kind: zoo.fit(kind, later_log(), settings).without_users() for kind, settings in SETTINGS.items()}


def released(store: BundleStore, models: dict[str, Any], *kinds: str) -> Any:
    def add(writer: Any, als: Any) -> None:
        del als
        for kind in kinds:
            writer.add_model(f"my-{kind}", Packed(models[kind]))

    sources = (*(f"my-{kind}" for kind in kinds), "popular")
    return write_bundle(store, sources=sources, add_more=add)


def stages(store: BundleStore, models: dict[str, Any], *kinds: str) -> LiveStages:
    return LiveStages(Bundle.open(store, released(store, models, *kinds)))


def put(epoch: int, order: Sequence[str] = (), **tags: str | None) -> ItemChanges:
    rows = {
        name: None if tag is None else Item(item_id=name, category=f"c{tag[1:]}", tags=[tag]).encode()
        for name, tag in tags.items()
    }
    return ItemChanges("L", epoch, False, list(order or tags), rows)


def score_of(found: Candidates, row: int, column: int = 0) -> float:
    (at,) = np.flatnonzero(found.item_index == row)
    return float(found.source_score_KS[at, column])


def ask(live: LiveStages, history: Sequence[int] = (1, 5, 9), **more: Any) -> Candidates:
    query = Query(np.array(history, np.int32), k=NUM_ITEMS + 5, **more)
    return live.pipeline.retrieve([query])[0]
