"""Content vectors of put items: by a heavy encoder in one process, read by those that serve."""

from typing import Any

import numpy as np
import pytest
from tagged import NUM_ITEMS, items_table, write_bundle

from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.data.item_rows import Item, table_of
from tastemaker.features.content import ContentConfig, ContentSpace
from tastemaker.models.cold.content_knn import ContentKnn, ContentKnnConfig
from tastemaker.models.zoo import Packed
from tastemaker.registry.live import LiveVersion
from tastemaker.stages import live_items
from tastemaker.stages.live import LiveStages
from tastemaker.state.item_vectors import read_vectors, without_vectors, write_vectors
from tastemaker.state.items import PutItems, write_items
from tastemaker.types import Query
from tastemaker_services.stream import content_vectors
from tastemaker_services.stream.content_vectors import ContentVectors


def put(state: Any, *item_ids: str, **fields: Any) -> dict[str, str]:
    rows = {item_id: Item(item_id=item_id, **fields).encode() for item_id in item_ids}
    write_items(state.client, state.keys, rows)
    return rows


def test_vectors_come_back_and_say_what_they_were_made_of(state: Any) -> None:
    rows = put(state, "a", "b", title="old")
    reader = PutItems(state.client, state.keys)
    reader.poll()
    vectors = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_vectors(state.client, state.keys, "space", rows, vectors)
    assert set(reader.poll().rows) == {"a", "b"}  # who follows is told to look again
    found = read_vectors(state.client, state.keys, "space", 3, ["b", "unknown", "a"])
    assert found.tolist() == [[3, 4, 5], [0, 0, 0], [0, 1, 2]]
    assert not read_vectors(state.client, state.keys, "another space", 3, ["a"]).any()
    newer = put(state, "b", title="new")
    assert without_vectors(state.client, state.keys, "space", rows | newer) == newer


@pytest.fixture
def space(monkeypatch: pytest.MonkeyPatch) -> ContentSpace:
    """A light one that counts as heavy."""
    monkeypatch.setattr(content_vectors, "is_heavy", lambda _: True)
    monkeypatch.setattr(live_items, "is_heavy", lambda _: True)
    return ContentSpace.fit(items_table(), ContentConfig())


def test_one_process_encodes_and_others_recommend_by_it(
    state: Any, space: ContentSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BundleStore.of(state.settings, state.home)
    ref = write_bundle(store, sources=("two_tower", "ease", "content", "popular"), space=space)
    version = LiveVersion(version=1, uri=ref.uri, sha256=ref.sha256)
    monkeypatch.setattr(content_vectors, "read_live", lambda *_: _Live(version))
    encoder = ContentVectors(state.settings, state.home, state.client, state.keys)
    assert encoder.encode() == 0
    put(state, "new", tags=["t1"], category="c1")
    assert encoder.encode() == 1
    assert encoder.encode() == 0
    again = ContentVectors(state.settings, state.home, state.client, state.keys)
    reader = PutItems(state.client, state.keys)
    reader.poll()
    assert again.encode() == 1  # looked at, and found to be there
    assert not reader.poll()

    def content_of(fingerprint: str, dim: int, ids: Any) -> Any:
        return read_vectors(state.client, state.keys, fingerprint, dim, ids)

    live = LiveStages(Bundle.open(store, ref), content_of=content_of)
    live.take(reader.everything())
    found = live.pipeline.retrieve([Query(np.array([1, 5], np.int32), k=20)])[0]
    column = live.pipeline.source_names.index("content")
    best = int(found.item_index[np.nanargmax(found.source_score_KS[:, column])])
    assert best == NUM_ITEMS or best % 4 == 1
    (new,) = np.flatnonzero(found.item_index == NUM_ITEMS)
    assert found.source_score_KS[new, column] == pytest.approx(
        float(np.nanmax(found.source_score_KS[:, column])), abs=1e-5
    )


def test_the_space_of_a_sources_model_is_encoded_too(
    state: Any, space: ContentSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = ContentSpace.fit(items_table(), ContentConfig(dim=32, metadata_dim=32))
    vectors = other.encode(items_table())
    model = ContentKnn(ContentKnnConfig(), other, vectors, np.zeros(NUM_ITEMS, np.float32))
    store = BundleStore.of(state.settings, state.home)
    ref = write_bundle(
        store, sources=("alike", "content", "popular"), space=space,
        add_more=lambda writer, _: writer.add_model("alike", Packed(model)),
    )  # fmt: skip
    version = LiveVersion(version=1, uri=ref.uri, sha256=ref.sha256)
    monkeypatch.setattr(content_vectors, "read_live", lambda *_: _Live(version))
    encoder = ContentVectors(state.settings, state.home, state.client, state.keys)
    rows = put(state, "new", tags=["t1"], category="c1")
    assert [encoder.encode() for _ in range(3)] == [1, 1, 0]
    for one in (space, other):
        found = read_vectors(state.client, state.keys, one.fingerprint, one.dim, ["new"])
        np.testing.assert_allclose(found, one.encode(table_of(rows)), atol=1e-5)
    assert encoder._seen.keys() == {space.fingerprint, other.fingerprint}
    monkeypatch.setattr(content_vectors, "read_live", lambda *_: None)
    assert encoder.encode() == 0
    assert not encoder._seen  # what it saw for bundles that are gone goes with them


class _Live:
    """What is live: one version."""

    def __init__(self, version: LiveVersion) -> None:
        self.aliases = {"champion": version}
