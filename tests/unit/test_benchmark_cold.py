"""Which items the benchmark of cold items takes out of the log."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import reproduce_cold_splits

from tastemaker.models.log import Log

NUM_ITEMS = 200


@pytest.fixture(autouse=True)
def log(monkeypatch) -> Log:
    """Every user takes all items, one an hour; item 0 came last."""
    items, users = np.tile(np.arange(NUM_ITEMS), 5), np.repeat(np.arange(5), NUM_ITEMS)
    found = Log.of(
        users, items, num_users=5, num_items=NUM_ITEMS, timestamp_ms_N=3_600_000 * (NUM_ITEMS - items)
    )
    monkeypatch.setattr(reproduce_cold_splits, "log", lambda data: found)  # no download
    return found


def cold(seed: int, how: str) -> set[int]:
    split = reproduce_cold_splits.cold_items("ml-100k", seed, newest=how == "newest")
    taken = np.unique(split.train.item_N)
    assert not split.cold_I[taken].any()
    return set(np.flatnonzero(split.cold_I).tolist())


def test_no_drawn_item_is_tested_that_settings_were_chosen_on():
    tuned = cold(reproduce_cold_splits.TUNED_SEED, "drawn")
    drawn = [cold(seed, "drawn") for seed in range(10)]
    assert len(tuned) == NUM_ITEMS // 10
    for items in drawn:
        assert len(items) == NUM_ITEMS // 10
        assert not items & tuned
    assert len(set.union(*drawn)) > 4 * NUM_ITEMS // 10  # others in each


def test_the_newest_items_are_the_same_in_all_seeds():
    for seed in (0, 1, reproduce_cold_splits.TUNED_SEED):
        assert cold(seed, "newest") == set(range(NUM_ITEMS // 10))
