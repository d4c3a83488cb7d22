"""What a recipe reads of the data beside the dataset: what is held out, shown, left and known. Not how it is learned."""

import hashlib
import json
from typing import Any

import numpy as np
import pyarrow as pa

from tastemaker.config import Settings
from tastemaker.data.log import read_frozen_events, read_frozen_merges, read_impressions
from tastemaker.data.schema import Dataset
from tastemaker.data.splits import Histories, Split, leave_last
from tastemaker.errors import DataError
from tastemaker.features.impressions import Slots
from tastemaker.features.known_events import state_events
from tastemaker.features.rejected import rejections
from tastemaker.home import Home
from tastemaker.types import Int32, Int64
from tastemaker_training.plan.recipe import Recipe

_MINUTE_MS = 60_000


def events_of_state(settings: Settings, home: Home, recipe: Recipe, dataset: Dataset) -> pa.Table | None:
    """The events that users' records and items' counters are made of; None where the recipe reads neither.

    Raises:
        DataError: The log cannot be read.
    """
    if not recipe.pipeline.hydration.request_features:
        return None
    archived = read_frozen_events(home, settings.catalogue, dataset.fingerprint)
    merged = read_frozen_merges(home, settings.catalogue, dataset.fingerprint)
    return merged.renamed(state_events(home, settings.catalogue, archived, settings.state.late_days))


def shown_and_left(settings: Settings, home: Home, recipe: Recipe, dataset: Dataset) -> Histories | None:
    """What users were shown, saw and left, where the recipe learns from it.

    Raises:
        DataError: The data tells of nothing such.
    """
    negatives = recipe.two_tower.fit.negatives
    if not negatives.rejected:
        return None
    shown = read_impressions(home, settings.catalogue, dataset.fingerprint)
    found = rejections(shown, dataset, negatives.rejected_window_minutes * _MINUTE_MS)
    if not len(found.item_index):
        raise DataError(
            "items that users were shown and left, for two_tower.fit.negatives.rejected", value=f"none in {len(shown):,} impressions",
            limit="at least 1", mend="import events of kind impression, or give its share to another kind",
        )  # fmt: skip
    return found


def slots_shown(
    settings: Settings, home: Home, recipe: Recipe, dataset: Dataset, split: Split
) -> Slots | None:
    """Where the users of validation were shown items, where the recipe learns from it.

    Raises:
        DataError: The data does not say.
    """
    by_slots = recipe.ranker.fit.click_weights.position != "none"
    if not recipe.ranker.model.position and not by_slots:
        return None
    shown = read_impressions(home, settings.catalogue, dataset.fingerprint)
    slots = Slots.of(shown, dataset, split.train, split.validation)
    if not slots.num_left:
        raise DataError(
            "positions of items that users were shown and left, for ranker.model.position or click_weights.position", value=f"none in {len(shown):,} impressions",
            limit="at least 1", mend="import events of kind impression with their positions, or leave it out",
        )  # fmt: skip
    return slots


def refuse_unknown_devices(recipe: Recipe, dataset: Dataset) -> None:
    """Refuses a context of devices where no event tells of any.

    Raises:
        DataError: The recipe has one.
    """
    contexts = {"two_tower": recipe.two_tower.model.context, "ranker": recipe.ranker.model.context}
    for name, context in contexts.items():
        if "devices" in context and not dataset.device_row.any():
            raise DataError(
                f"feature devices of {name}.model.context", value="unknown in all of the data",
                limit="known for some of it", mend="import it, or take it out of the recipe",
            )  # fmt: skip


def fingerprint(*arrays: Int32 | Int64 | None) -> str:
    """Names the content of some arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def table_fingerprint(table: pa.Table) -> str:
    """Names the content of a table of words and numbers."""
    return hashlib.sha256(json.dumps(table.to_pydict()).encode()).hexdigest()


def events_fingerprint(events: pa.Table) -> str:
    """Names the content of events, as far as state is made of it."""
    digest = hashlib.sha256()
    for name in ("user_id", "item_id", "kind"):
        column: Any = events[name].combine_chunks().dictionary_encode()
        digest.update(json.dumps(column.dictionary.to_pylist()).encode())
        digest.update(np.ascontiguousarray(column.indices.to_numpy()).data)
    for name in ("timestamp_ms", "received_ms", "value"):
        number: Any = events[name].to_numpy()  # what is null is NaN
        digest.update(np.ascontiguousarray(number).data)
    return digest.hexdigest()


def split_of(dataset: Dataset, recipe: Recipe) -> Split:
    """What the recipe holds out.

    Raises:
        DataError: No user has enough events.
    """
    split = leave_last(dataset, recipe.split.num_test, recipe.split.num_validation)
    if not len(split.test.item_index):
        needed = recipe.split.num_test + recipe.split.num_validation + 1
        raise DataError(
            "events of the most active user", value=int(split.train.lengths.max(initial=0)),
            limit=f"at least {needed}", mend="import more events, or hold out fewer in the recipe's split",
        )  # fmt: skip
    return split
