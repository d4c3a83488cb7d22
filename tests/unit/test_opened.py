"""Bundles that a process has open are open once, and what gateway and stages read of their items is there once."""

import gc
import shutil
import weakref
from pathlib import Path

import numpy as np
import pytest
from tagged import NUM_ITEMS, items_table, write_bundle

from tastemaker.bundle.store import BundleStore
from tastemaker.errors import IntegrityError
from tastemaker.features.counters import Counters
from tastemaker.features.item_store import ItemFacts, ItemStore
from tastemaker.features.view_rows import item_rows
from tastemaker.stages.live import LiveStages
from tastemaker_services.gateway.face import BundleFace
from tastemaker_services.versions.opened import open_bundle


def test_a_bundle_is_open_once_while_somebody_holds_it(tmp_path: Path) -> None:
    store = BundleStore(tmp_path / "one")
    ref = write_bundle(store)
    other = BundleStore(shutil.copytree(tmp_path / "one", tmp_path / "other"))
    bundle = open_bundle(store, ref, whole=True)
    assert open_bundle(store, ref, whole=False) is bundle
    assert open_bundle(other, ref, whole=False) is not bundle
    gone = weakref.ref(bundle)
    del bundle
    gc.collect()
    assert gone() is None


def test_one_that_was_opened_unseen_is_verified_for_who_wants_all_of_it(tmp_path: Path) -> None:
    store = BundleStore(tmp_path)
    ref = write_bundle(store)
    unseen = open_bundle(store, ref, whole=False)
    file = unseen.manifest.files["ranker.safetensors"]
    (tmp_path / "blobs" / "sha256" / file.sha256[:2] / file.sha256).write_bytes(b"\0" * file.size)
    with pytest.raises(IntegrityError, match=r"ranker\.safetensors of bundle \w+ was changed"):
        open_bundle(store, ref, whole=True)


def test_the_gateway_reads_of_the_stages_bundle_what_they_have_read(tmp_path: Path) -> None:
    store = BundleStore(tmp_path)
    bundle = open_bundle(store, write_bundle(store), whole=True)
    stages = LiveStages(bundle)
    read: list[str] = []
    store.get = store.check = lambda *_: read.append("again")  # type: ignore[method-assign,assignment]
    face = BundleFace.of(open_bundle(store, bundle.ref, whole=False))
    assert read == []
    assert face.item_ids is bundle.item_ids
    assert [face.row_of(item_id) for item_id in bundle.item_ids] == list(range(NUM_ITEMS))
    assert stages.pipeline is not None


def test_what_several_ask_a_bundle_for_is_made_once(tmp_path: Path) -> None:
    store = BundleStore(tmp_path)
    bundle = open_bundle(store, write_bundle(store), whole=True)
    made: list[int] = []
    assert bundle.once("number", lambda: made.append(1) or 7) == 7  # type: ignore[func-returns-value]
    assert bundle.once("number", lambda: 8) == 7
    assert made == [1]


def test_a_store_of_items_that_nobody_saw_has_what_counters_of_nothing_have() -> None:
    store = ItemStore(ItemFacts.from_items(items_table()))
    expected = item_rows(Counters.zeros(NUM_ITEMS))
    for found, rows in zip((store.snapshot.counters, store.snapshot.popularity), expected, strict=True):
        assert found.view is rows.view
        np.testing.assert_array_equal(found.value_NF, rows.value_NF)


def test_facts_have_the_rows_that_are_known_already() -> None:
    table = items_table()
    known = {f"i{row}": row for row in range(NUM_ITEMS)}
    facts = ItemFacts.from_items(table, known)
    assert facts.index is known
    assert ItemFacts.from_items(table).index == known
    assert facts.category_I.tolist() == ItemFacts.from_items(table).category_I.tolist()
