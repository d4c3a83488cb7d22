"""The gateway over a catalogue that changes: names, hard rules and every rung follow; what it does not know it drops."""

from dataclasses import replace

import numpy as np
import pytest
from gateway_world import NUM_ITEMS, SHA, World, candidates, items, make_face

from tastemaker import telemetry
from tastemaker.data.item_rows import Item
from tastemaker.features.trending import Ranked, Trending
from tastemaker.state.items import ItemChanges
from tastemaker.state.lists import StoredList
from tastemaker.types import Candidates
from tastemaker_services.gateway.cache import Kept
from tastemaker_services.gateway.face import LiveFace
from tastemaker_services.gateway.pins import Pin
from tastemaker_services.web.schema import Filters


def put(epoch: int, *rows: Item) -> ItemChanges:
    ids = [item.item_id for item in rows]
    return ItemChanges("L", epoch, False, ids, {item.item_id: item.encode() for item in rows})


def delete(epoch: int, *item_ids: str) -> ItemChanges:
    return ItemChanges("L", epoch, False, [], dict.fromkeys(item_ids))


@pytest.fixture
def live() -> LiveFace:
    return LiveFace(make_face())


def world_of(live: LiveFace) -> World:
    world = World()
    world.pins["champion"] = Pin(1, live.face)
    return world


def test_a_face_stays_as_it_was_while_the_next_knows_more(live: LiveFace) -> None:
    before = live.face
    live.take(put(1, Item(item_id="new", category="odd")))
    assert live.face.rows(["new", "i3"])[0].tolist() == [NUM_ITEMS, 3]
    assert live.face.item_ids[NUM_ITEMS] == "new"
    assert live.face.item_ids[3] == "i3"
    assert len(live.face.item_ids) == NUM_ITEMS + 1
    assert before.rows(["new", "i3"])[1] == 1
    assert len(before.item_ids) == NUM_ITEMS
    live.take(put(2, Item(item_id="newer")))
    assert [live.face.item_ids[row] for row in (0, NUM_ITEMS, NUM_ITEMS + 1)] == ["i0", "new", "newer"]


def test_filters_know_what_was_put(live: LiveFace) -> None:
    live.take(
        put(
            1,
            Item(item_id="new", category="odd", tags=["brand new"], maturity=16),
            Item(item_id="i2", category="odd"),
        )
    )

    def allowed(**filters: object) -> list[int]:
        mask = live.face.allowed(Filters(**filters), {})  # type: ignore[arg-type]
        assert mask is not None
        return np.flatnonzero(mask).tolist()

    assert allowed(categories=("odd",)) == [1, 2, 3, 5, 7, 9, NUM_ITEMS]
    assert allowed(tags=("brand new",)) == [NUM_ITEMS]
    assert allowed(tags=("small",)) == [0, 1, 3, 4]  # i2 has no tags any more
    assert allowed(max_maturity=15) == list(range(NUM_ITEMS))
    assert live.face.allowed(Filters(), {}) is None


def test_an_item_with_regions_is_shown_there_alone(live: LiveFace) -> None:
    live.take(put(1, Item(item_id="new", regions=["de", "FR"])))
    for context, is_shown in (
        ({"country": "DE"}, True),
        ({"country": "fr"}, True),
        ({"country": "US"}, False),
        ({}, False),
    ):
        mask = live.face.allowed(Filters(), context)
        assert mask is not None
        assert mask[:NUM_ITEMS].all()
        assert mask[NUM_ITEMS] == is_shown
    live.take(put(2, Item(item_id="new")))
    assert live.face.allowed(Filters(), {}) is None


@pytest.mark.parametrize("fault", ["rerank", "rank", "retrieve"])
def test_a_deleted_item_is_gone_on_every_rung(live: LiveFace, fault: str) -> None:
    for change, shown in ((None, True), (delete(1, "i2", "i5"), False)):
        if change is not None:
            live.take(change)
        for faults in ({}, {fault: "raises"}):
            world = world_of(live)
            world.graph.faults = dict(faults)
            answer = items(world.recommend("nobody", k=NUM_ITEMS))
            assert len(answer) == NUM_ITEMS - (0 if shown else 2)
            assert ({"i2", "i5"} <= set(answer)) == shown
    world = world_of(live)
    world.graph.faults = {"retrieve": "raises"}
    world.stored["nobody"] = StoredList(SHA["champion"][:12], 0, ["i5", "i1", "i2"])
    assert items(world.recommend("nobody", k=3)) == ["i1", "i0", "i3"]  # filled with what is popular


def test_what_the_graph_knows_and_the_gateway_does_not_is_dropped_and_counted(live: LiveFace) -> None:
    counter = telemetry.UNKNOWN_ROWS.labels("default")
    before = counter._value.get()
    world = world_of(live)
    world.graph._stage = lambda name, rows: _answer([NUM_ITEMS, 4, NUM_ITEMS + 3, 1])  # type: ignore[assignment, misc]
    answer = world.recommend("nobody", k=4)
    assert items(answer) == ["i4", "i1"]
    assert answer["degraded"] == []
    assert counter._value.get() == before + 2


def _answer(rows: list[int]):  # type: ignore[no-untyped-def]
    async def stage(call: object, timeout_seconds: float):  # type: ignore[no-untyped-def]
        del call, timeout_seconds
        return candidates(rows)

    return stage


class Memory:
    def __init__(self) -> None:
        self.kept: dict[bytes, Kept] = {}

    async def get(self, user_id: str, question: bytes, num_sources: int, now_ms: int) -> Kept | None:
        del user_id, num_sources, now_ms
        return self.kept.get(question)

    def keep(self, user_id: str, question: bytes, kept: Kept) -> None:
        del user_id
        self.kept[question] = kept


def test_an_empty_answer_is_no_answer_once_an_item_fits(live: LiveFace) -> None:
    asked = {"user_id": "nobody", "k": 3, "filters": Filters(categories=("brand new",))}
    live.take(put(1, Item(item_id="other")))
    world = world_of(live)
    world.lists = Memory()
    assert items(world.recommend(**asked)) == []
    live.take(put(2, Item(item_id="new", category="brand new")))
    world.pins["champion"] = Pin(1, live.face)
    world.graph._stage = lambda name, rows: _answer([NUM_ITEMS + 1, 4, 1])  # type: ignore[assignment, misc]
    found = world.recommend(**asked)
    assert (items(found), found["cached"], found["notes"]) == (["new"], False, [])
    assert world.recommend(**asked)["cached"]  # this one is kept


def test_an_empty_list_that_was_kept_answers_nothing(live: LiveFace) -> None:
    """The release before kept such."""

    class Empty(Memory):
        async def get(self, user_id: str, question: bytes, num_sources: int, now_ms: int) -> Kept | None:
            found = await super().get(user_id, question, num_sources, now_ms)
            return found and replace(found, slate=Candidates.empty(num_sources))

    world = world_of(live)
    world.lists = Empty()
    first = world.recommend("nobody")
    again = world.recommend("nobody")
    assert (items(again), again["cached"]) == (items(first), False)
    assert len(items(first)) == 3


def test_a_kept_list_with_a_deleted_item_is_made_anew(live: LiveFace) -> None:
    world = world_of(live)
    world.lists = Memory()
    first = world.recommend("nobody", k=3)
    assert world.recommend("nobody", k=3)["cached"]
    live.take(delete(1, items(first)[1]))
    world.pins["champion"] = Pin(1, live.face)
    again = world.recommend("nobody", k=3)
    assert not again["cached"]
    assert len(items(again)) == 3
    assert items(first)[1] not in items(again)


def test_queries_say_their_lineage_and_luck_and_only_live_ones_explore(live: LiveFace) -> None:
    live.take(put(1, Item(item_id="new")))
    world = world_of(live)
    for origin in ("live", "simulator"):
        answer = world.recommend("nobody", origin=origin)
        _, _, query = world.graph.queries[-1]
        assert query.lineage == "L"
        assert query.explore == (origin == "live")
        assert query.seed == int(answer["request_id"][:15], 16)
        assert world.decisions[-1].seed == query.seed


def test_a_put_item_that_trends_is_in_the_rung_without_stages() -> None:
    ranked = Ranked(("new", "i3"), np.log([2.0, 1.0]))
    live = LiveFace(make_face(trending=lambda: Trending(0, ranked, {}, 1.0)))
    live.take(put(1, Item(item_id="new", title="New")))
    world = world_of(live)
    world.graph.faults["retrieve"] = "raises"
    answer = world.recommend("nobody", k=3)
    assert items(answer)[:2] == ["new", "i3"]
    assert "trending" in answer["degraded"]
