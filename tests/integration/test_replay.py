"""A logged answer is made again from log and bundle: on a real Valkey, consumer and archive."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from replayed_world import ReplayedWorld, consume, described
from streams import NOW_MS, event, send
from tagged import items_table, write_bundle

from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.data.schema import INTERACTIONS_SCHEMA, imported_folder
from tastemaker.errors import BundleError, DataError
from tastemaker.features.rebuild import rebuild
from tastemaker_services.gateway.cache import Kept

READ = ("item_click_7d", "session_length", "times_shown", "taste_share")


@pytest.fixture
def bundle(state: Any) -> Bundle:
    folder = imported_folder(state.home, state.keys.catalogue)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(items_table(), folder / "items.parquet")
    store = BundleStore.of(state.settings, state.home)
    ref = write_bundle(
        store, hydration={"request_features": READ}, exploration={"share": 0.5, "max_interactions": 20}
    )
    _, manifest = store.get_manifest(ref.uri)
    return Bundle.open(store, store.put_manifest(state.keys.catalogue, manifest))


@pytest.fixture
def world(state: Any, bundle: Bundle) -> ReplayedWorld:
    kinds = {
        "i1": "click",
        "i5": "like",
        "i9": "purchase",
        "i6": "impression",
        "i2": "hide",
        "i13": "impression",
    }
    send(
        state,
        *(
            event("ann", item, kind, timestamp_ms=NOW_MS - 1000 * n)
            for n, (item, kind) in enumerate(kinds.items())
        ),
    )
    send(state, *(event("bob", f"i{n}", "click", timestamp_ms=NOW_MS - 500) for n in range(3, 20, 4)))
    consume(state)
    return ReplayedWorld(state, bundle)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"user_id": "nobody"},
        {"session": ["i3", "i7"]},
        {"exclude": ["i0", "i4"], "filters": {"categories": ("c0", "c3")}},
        {"context": {"device": "tv", "local_time": "2026-11-24T18:30:15+01:00"}, "k": 9},
        {"personalise": False},
        {"origin": "simulator"},
    ],
)
def test_an_answer_is_made_again_as_it_was(world: ReplayedWorld, asked: dict[str, Any]) -> None:
    for _ in range(3):  # each with luck of its own
        answer = world.answer(**asked)
        found = world.replay(answer["request_id"])
        assert [slot.replayed for slot in found.slots] == [item["item_id"] for item in answer["items"]]
        assert (described(found), found.notes) == ([], [])


def test_what_happens_later_does_not_count(world: ReplayedWorld) -> None:
    answer = world.answer()
    send(world.state, *(event("ann", f"i{n}", "purchase") for n in (0, 3, 7, 11)))
    consume(world.state)
    assert described(world.replay(answer["request_id"])) == []
    later = world.answer()
    assert [item["item_id"] for item in later["items"]] != [item["item_id"] for item in answer["items"]]


@pytest.mark.parametrize(("fault", "rung"), [("rank", "retrieval-order"), ("rerank", "no-rerank")])
def test_the_rungs_that_were_used_are_used_again(world: ReplayedWorld, fault: str, rung: str) -> None:
    world.graph.faults = {fault: "raises"}
    answer = world.answer()
    assert answer["degraded"] == [rung]
    found = world.replay(answer["request_id"])
    assert (found.rungs, described(found)) == ((rung,), [])


def test_a_page_is_replayed_with_its_list(world: ReplayedWorld) -> None:
    first = world.answer(k=4, paged=True)
    second = world.answer(k=4, cursor=first["next_cursor"])
    found = world.replay(second["request_id"])
    assert [slot.rank for slot in found.slots] == [5, 6, 7, 8]
    assert [slot.replayed for slot in found.slots] == [item["item_id"] for item in second["items"]]
    assert described(found) == []
    assert first["request_id"] in found.notes[0]
    assert described(world.replay(first["request_id"])) == []


def test_a_difference_is_shown_and_explained(world: ReplayedWorld) -> None:
    answer = world.answer()
    folder = world.state.home / "events" / world.state.keys.catalogue
    for part in folder.glob("day=*/part-*.parquet"):  # somebody loses what ann bought
        table = pq.read_table(part)
        lost = pc.equal(table["item_id"], "i9")
        pq.write_table(table.filter(pc.invert(lost)), part)
    found = world.replay(answer["request_id"])
    assert found.differing
    assert "the user's past is not exactly the one that was read" in found.notes[0]


def test_what_is_not_logged_is_said(world: ReplayedWorld) -> None:
    with pytest.raises(DataError, match="request no-such is not in the decision log"):
        world.replay("no-such")


def test_a_bundle_that_is_gone_is_said(world: ReplayedWorld) -> None:
    answer = world.answer()
    BundleStore.of(world.state.settings, world.state.home).forget_bundles(world.state.keys.catalogue)
    with pytest.raises(BundleError, match=r"which answered request .* cannot be opened"):
        world.replay(answer["request_id"])


def test_the_lowest_rung_is_replayed_too(world: ReplayedWorld) -> None:
    world.graph.faults = {"retrieve": "raises"}
    answer = world.answer()
    assert answer["degraded"][-1] == "popular"
    found = world.replay(answer["request_id"])
    assert [slot.replayed for slot in found.slots] == [item["item_id"] for item in answer["items"]]


def test_a_list_that_was_kept_is_replayed_by_the_request_that_it_was_made_for(world: ReplayedWorld) -> None:
    kept: dict[bytes, Kept] = {}

    class Lists:
        async def get(self, user_id: str, question: bytes, num_sources: int, now_ms: int) -> Kept | None:
            del user_id, now_ms
            return Kept.decode(kept[question].encode(), num_sources) if question in kept else None

        def keep(self, user_id: str, question: bytes, one: Kept) -> None:
            del user_id
            kept[question] = one

    world.lists = Lists()
    first, second = world.answer(), world.answer()
    assert second["cached_from"] == first["request_id"]
    assert second["items"] == first["items"]  # with their reasons
    found = world.replay(second["request_id"])
    assert (described(found), found.notes) == (
        [],
        [f"the list was made for request {first['request_id']}, which is what is replayed"],
    )


def test_imported_rows_are_part_of_the_past(state: Any, bundle: Bundle) -> None:
    rows = [
        {"user_id": user, "item_id": f"i{n}", "kind": "click", "timestamp_ms": NOW_MS - 1_000_000 + n}
        | {"value": None, "origin": "live", "position": None, "device": None}
        for user, first in (("ann", 1), ("bob", 2))
        for n in range(first, 20, 4)
    ]
    folder = imported_folder(state.home, state.keys.catalogue)
    pq.write_table(pa.Table.from_pylist(rows, INTERACTIONS_SCHEMA), folder / "interactions.parquet")
    rebuild(state.client, state.keys, state.home, state.settings.state)
    world = ReplayedWorld(state, bundle)
    answer = world.answer()
    assert len(world.decisions[0].past_hash) == 16
    found = world.replay(answer["request_id"])
    assert (described(found), found.notes) == ([], [])
