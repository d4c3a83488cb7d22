"""A bundle's stages over a catalogue that changes while they serve."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tagged import NUM_ITEMS, open_bundle

from tastemaker.bundle.store import BundleStore
from tastemaker.data.item_rows import Item
from tastemaker.features.item_store import ItemFacts, ItemStore
from tastemaker.index.extended import ExtendedIndex, JoinedRows
from tastemaker.index.faiss_index import FaissIndex
from tastemaker.stages.live import LiveStages
from tastemaker.stages.live_items import LiveVectors
from tastemaker.stages.overlay import FEW_DELETED, Overlay, OverlayRows
from tastemaker.stages.pipeline import Pipeline
from tastemaker.state.items import ItemChanges
from tastemaker.types import Candidates, Float32, Query

LIKES_T1 = np.array([1, 5, 9], np.int32)
NOBODY = np.empty(0, np.int32)


def put(epoch: int, *item_ids: str, order: bool = True, tag: str = "t1", **fields: object) -> ItemChanges:
    rows: dict[str, str | None] = {
        item_id: Item(item_id=item_id, tags=[tag], **fields).encode()  # type: ignore[arg-type]
        for item_id in item_ids
    }
    return ItemChanges("L", epoch, False, list(item_ids) if order else [], rows)


def delete(epoch: int, *item_ids: str) -> ItemChanges:
    return ItemChanges("L", epoch, False, [], dict.fromkeys(item_ids))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> BundleStore:
    return BundleStore(tmp_path_factory.mktemp("bundles"))


@pytest.fixture
def live(store: BundleStore) -> LiveStages:
    return LiveStages(open_bundle(store))


def shown(pipeline: Pipeline, query: Query, until: str = "rerank") -> list[int]:
    return [int(row) for row in pipeline.recommend([query], until)[0].item_index]  # type: ignore[arg-type]


@pytest.mark.parametrize("until", ["retrieve", "rank", "rerank"])
def test_new_item_is_found_by_who_likes_its_like(live: LiveStages, until: str) -> None:
    query = Query(LIKES_T1, k=20)
    assert NUM_ITEMS not in shown(live.pipeline, query, until)
    live.take(put(1, "new"))
    assert NUM_ITEMS in shown(live.pipeline, query, until)


def test_nearest_of_all_is_the_new_item(live: LiveStages) -> None:
    live.take(put(1, "new", "other", tag="t1"))
    first = live.pipeline.retrieve([Query(LIKES_T1, k=3)])[0]
    column = live.pipeline.source_names.index("two_tower")
    (new,) = np.flatnonzero(first.item_index == NUM_ITEMS)
    # The towers know an item by its tag alone: the new one is as near as an item of the tag can be.
    assert first.source_score_KS[new, column] == pytest.approx(np.nanmax(first.source_score_KS[:, column]))
    ease = live.pipeline.source_names.index("ease")
    assert np.isnan(first.source_score_KS[new, ease])


names = st.sampled_from(["i3", "new", "newer", "newest"])


@given(st.lists(st.dictionaries(names, st.integers(1, 9), min_size=1), min_size=1, max_size=6))
def test_vectors_are_those_of_the_newest_put_and_earlier_ones_stay(puts: list[dict[str, int]]) -> None:
    """Whoever holds an earlier moment goes on reading it; of the bundle's own rows none is ever made anew."""

    def encode(items: pa.Table) -> Float32:
        return np.array([[float(title)] * 4 for title in items["title"].to_pylist()], np.float32)

    rows = OverlayRows(NUM_ITEMS, {f"i{n}": n for n in range(NUM_ITEMS)}.get)
    vectors, own, latest = LiveVectors(NUM_ITEMS, 4, encode), -np.ones((NUM_ITEMS, 4), np.float32), {}
    index, moments = FaissIndex.build(own), []
    for epoch, titles in enumerate(puts, 1):
        items = {
            item_id: Item(item_id=item_id, title=str(title)).encode() for item_id, title in titles.items()
        }
        further_ND = vectors.after(rows.take(ItemChanges("L", epoch, False, [*titles], {**items})))
        latest = latest | {rows.row_of(name): title for name, title in titles.items() if name != "i3"}
        moments.append((ExtendedIndex(index, further_ND).vectors(), latest))
    for seen, expected in moments:
        assert len(seen) == NUM_ITEMS + len(expected)
        for row, title in ({3: -1} | expected).items():
            assert seen[np.array([row], np.int32)].tolist() == [[title] * 4]


def test_an_item_that_is_put_again_is_another_and_the_bundle_is_not_copied(live: LiveStages) -> None:
    query = Query(LIKES_T1, k=30)
    live.take(put(1, "new", tag="t1"))
    first, before = live.pipeline, shown(live.pipeline, query, "retrieve")
    live.take(put(2, "new", tag="t3", order=False))
    assert shown(first, query, "retrieve") == before
    assert shown(live.pipeline, query, "retrieve").index(NUM_ITEMS) > before.index(NUM_ITEMS)
    vectors = live._nearest[1].vectors()
    assert isinstance(vectors, JoinedRows)
    assert vectors._first_ID is live._bundle.searched().vectors()


def test_what_was_there_before_stays_as_it_was(live: LiveStages) -> None:
    query = Query(LIKES_T1, k=8)
    before = live.pipeline
    answer = shown(before, query)
    live.take(put(1, "far away", tag="t3"))
    assert shown(before, query) == answer
    assert [row for row in shown(live.pipeline, query) if row < NUM_ITEMS][:3] == answer[:3]


def test_a_history_of_new_items_alone_is_a_history(live: LiveStages) -> None:
    live.take(put(1, "new a", "new b"))
    query = Query(np.array([NUM_ITEMS], np.int32), k=5)
    found = live.pipeline.retrieve([query])[0]
    column = live.pipeline.source_names.index("two_tower")
    best = found.take(np.argsort(-found.source_score_KS[:, column], kind="stable")[:4])
    assert all(row % 4 == 1 for row in best.item_index.tolist() if row < NUM_ITEMS)
    assert NUM_ITEMS not in shown(live.pipeline, query)
    assert NUM_ITEMS + 1 in shown(live.pipeline, Query(np.array([NUM_ITEMS], np.int32), k=20))


def test_deleted_items_are_gone_at_every_stage(live: LiveStages) -> None:
    live.take(put(1, "new"))
    query = Query(LIKES_T1, k=30)
    stale = live.pipeline.retrieve([query])
    live.take(delete(2, "new", "i13"))
    for until in ("retrieve", "rank", "rerank"):
        assert not {NUM_ITEMS, 13} & set(shown(live.pipeline, query, until))
    assert not {NUM_ITEMS, 13} & set(live.pipeline.finish([query], stale)[0].item_index.tolist())
    live.take(put(3, "new", order=False))
    assert NUM_ITEMS in shown(live.pipeline, query)


def test_many_deleted_items_are_masked(store: BundleStore) -> None:
    names = [f"n{n}" for n in range(FEW_DELETED + 200)]
    live = LiveStages(open_bundle(store))
    live.take(put(1, *names))
    live.take(delete(2, *names[:-1]))
    found = shown(live.pipeline, Query(LIKES_T1, k=200))
    assert [row for row in found if row >= NUM_ITEMS] == [NUM_ITEMS + len(names) - 1]


def test_new_attributes_of_a_known_item_count_at_once(live: LiveStages) -> None:
    live.take(ItemChanges("L", 1, False, ["i7"], {"i7": Item(item_id="i7", tags=["t0", "t2"]).encode()}))
    reranker = live.pipeline._reranking
    assert reranker is not None
    assert reranker.items.category_I[7] == -1
    assert live.pipeline.overlay is not None
    assert live.pipeline.overlay.num_items == NUM_ITEMS
    assert 7 in shown(live.pipeline, Query(np.array([3], np.int32), k=23))


def test_a_process_that_lags_behind_drops_what_it_does_not_know(store: BundleStore) -> None:
    bundle = open_bundle(store)
    ahead, behind = LiveStages(bundle), LiveStages(bundle)
    ahead.take(put(1, "new"))
    query = Query(np.array([1, 5, NUM_ITEMS], np.int32), k=20, lineage="L")
    found = ahead.pipeline.retrieve([Query(LIKES_T1, k=20, lineage="L")])
    assert NUM_ITEMS in found[0].item_index
    ranked = behind.pipeline.rank([query], found)
    assert sorted(ranked[0].item_index.tolist()) == sorted(set(found[0].item_index.tolist()) - {NUM_ITEMS})
    assert (
        NUM_ITEMS not in behind.pipeline.finish([query], behind.pipeline.rerank([query], found))[0].item_index
    )
    assert len(behind.pipeline.retrieve([query])[0]) > 0


def test_rows_of_another_lineage_are_none_of_ours(live: LiveStages) -> None:
    live.take(put(1, "new"))
    query = Query(np.array([1, 5, NUM_ITEMS], np.int32), k=30, lineage="another")
    assert max(shown(live.pipeline, query)) < NUM_ITEMS
    restored = ItemChanges("another", 1, True, ["x", "new"], put(1, "x", "new").rows)
    live.take(restored)
    assert max(shown(live.pipeline, query)) == NUM_ITEMS + 1


@pytest.mark.parametrize("is_restored", [False, True])
def test_a_ranker_that_reads_counters_knows_the_new_item(store: BundleStore, is_restored: bool) -> None:
    made: list[ItemStore] = []

    def store_of(facts: ItemFacts) -> ItemStore:
        made.append(ItemStore(facts))
        return made[-1]

    live = LiveStages(
        open_bundle(store, hydration={"request_features": ["item", "cross"]}), store_of=store_of
    )
    if is_restored:
        live.take(ItemChanges("before", 1, True, ["old", "older"], put(1, "old", "older").rows))
    live.take(ItemChanges("L", 1, is_restored, ["new"], put(1, "new", category="c1", price=2.0).rows))
    assert NUM_ITEMS in shown(live.pipeline, Query(LIKES_T1, k=24))
    facts = made[-1].snapshot.facts
    assert facts.index["new"] == NUM_ITEMS
    assert (len(facts), facts.category("new")) == (NUM_ITEMS + 1, "c1")


def test_a_new_item_outlives_a_swap_wherever_it_is_then(store: BundleStore) -> None:
    changes = put(1, "new", "newer")
    everything = ItemChanges("L", 1, True, changes.order, changes.rows)
    ids = [f"i{i}" for i in range(NUM_ITEMS)]
    for more in ([], ["new"]):
        bundle = open_bundle(store, ids + more)
        swapped = LiveStages(bundle)
        swapped.take(everything)
        answer = shown(swapped.pipeline, Query(LIKES_T1, k=24))
        # "new" is a row of the bundle or the first behind it; "newer" is the next behind either.
        assert {NUM_ITEMS, NUM_ITEMS + 1} <= set(answer)


ids = st.sampled_from([*(f"i{n}" for n in range(4)), *"abcdef"])


@given(st.lists(st.tuples(ids, st.booleans()), max_size=30), st.lists(st.integers(0, 29), max_size=4))
def test_every_process_gives_an_item_the_same_row(writes: list[tuple[str, bool]], cuts: list[int]) -> None:
    """However the changes reach a process, in steps or at once; and a row never moves."""
    bundle = {f"i{n}": n for n in range(4)}
    order: list[str] = []
    rows: dict[str, str | None] = {}
    steps, pending_order, pending = [], list[str](), dict[str, str | None]()
    for at, (item_id, is_put) in enumerate(writes):
        text = Item(item_id=item_id, title=str(at)).encode() if is_put else None
        if is_put and item_id not in order:
            order.append(item_id)
            pending_order.append(item_id)
        rows[item_id] = pending[item_id] = text
        if at in cuts:
            steps.append(ItemChanges("L", at, False, pending_order, pending))
            pending_order, pending = [], {}
    steps.append(ItemChanges("L", len(writes), False, pending_order, pending))
    stepwise, at_once = OverlayRows(4, bundle.get), OverlayRows(4, bundle.get)
    seen: dict[str, int] = {}
    for step in steps:
        overlay = stepwise.take(step).overlay
        for item_id, row in seen.items():
            assert stepwise.row_of(item_id) == row
        seen = {item_id: row for item_id in order if (row := stepwise.row_of(item_id)) is not None}
    whole = at_once.take(ItemChanges("L", len(writes), False, order, rows)).overlay
    assert list(overlay.new_ids) == list(whole.new_ids) == [i for i in order if i not in bundle]
    assert overlay.deleted.tolist() == whole.deleted.tolist()
    for item_id, text in rows.items():
        row = stepwise.row_of(item_id)
        assert row == at_once.row_of(item_id)
        if row is not None:
            assert overlay.deleted_I[row] == (text is None)


@given(st.lists(st.integers(0, 40), max_size=10), st.integers(0, 10), st.sets(st.integers(0, 19)))
def test_a_fitted_query_names_known_rows_alone(rows: list[int], mask: int, gone: set[int]) -> None:
    deleted_I = np.isin(np.arange(20), list(gone))
    overlay = Overlay("L", 1, 15, tuple("abcde"), deleted_I)
    allowed = None if mask == 0 else np.arange(mask) % 2 == 0
    query = Query(np.array(rows, np.int32), exclude=np.array(rows, np.int32), allowed=allowed, lineage="L")
    fitted = overlay.fit(query)
    assert fitted.history_L.tolist() == [row for row in rows if row < 20]
    assert gone <= set(fitted.exclude.tolist())
    if allowed is not None:
        assert fitted.allowed is not None
        assert np.flatnonzero(fitted.allowed).tolist() == np.flatnonzero(allowed).tolist()
        assert len(fitted.allowed) == 20
    found = Candidates(
        np.array(rows, np.int32), np.zeros(len(rows), np.float32), np.zeros(len(rows), np.uint32),
        np.zeros((len(rows), 1), np.float32),
    )  # fmt: skip
    assert overlay.known(found).item_index.tolist() == fitted.history_L.tolist()


def test_known_rows_are_looked_for_in_the_bundle_first(live: LiveStages) -> None:
    live.take(put(1, "i3", "new"))
    assert live.pipeline.overlay is not None
    assert list(live.pipeline.overlay.new_ids) == ["new"]
    rows, similarity = live.similar(Query(NOBODY, k=3), NUM_ITEMS)
    assert all(row % 4 == 1 for row in rows.tolist())
    assert similarity == pytest.approx(1)
    live.take(delete(2, "i1"))
    assert 1 not in live.similar(Query(NOBODY, k=20), 5)[0]
    assert len(live.similar(Query(NOBODY, k=3), NUM_ITEMS + 1)[0]) == 0
