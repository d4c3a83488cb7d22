"""Lists answered lately: when they are answered again, when not, and what they never get around."""

from typing import Any

import numpy as np
import pytest
from gateway_world import World, candidates, items, variant
from hypothesis import given
from hypothesis import strategies as st

from tastemaker import telemetry
from tastemaker.errors import StateError
from tastemaker.state.lists import StoredList
from tastemaker_services.gateway.cache import Kept, context_class
from tastemaker_services.web.schema import Filters


class Shelf:
    """Keeps lists as bytes, as the cache does, in this process."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, bytes], bytes] = {}
        self.is_down = False

    async def get(self, user_id: str, question: bytes, num_sources: int, now_ms: int) -> Kept | None:
        if self.is_down:
            raise StateError("cannot read a kept list")
        return Kept.decode(self.kept.get((user_id, question)), num_sources)

    def keep(self, user_id: str, question: bytes, kept: Kept) -> None:
        self.kept[user_id, question] = kept.encode()


def caching() -> World:
    world = World()
    world.lists = Shelf()
    return world


def stages_asked(world: World) -> list[str]:
    asked = [name for name, _, _ in world.graph.queries]
    world.graph.queries.clear()
    return asked


ALL = ["retrieve", "rank", "rerank"]


def test_the_same_question_is_answered_again_and_says_so() -> None:
    world = caching()
    first, second = world.recommend(), world.recommend()
    assert (first["cached"], first["cached_from"]) == (False, None)
    assert (second["cached"], second["cached_from"]) == (True, first["request_id"])
    assert second["items"] == first["items"]
    assert second["request_id"] != first["request_id"]
    assert second["degraded"] == []
    assert set(second["timings_ms"]) == {"history", "total"}
    assert stages_asked(world) == ALL  # once
    assert [d.cached_from for d in world.decisions] == [None, first["request_id"]]
    assert world.decisions[1].item_ids == world.decisions[0].item_ids
    third = world.recommend()
    assert third["cached_from"] == first["request_id"]  # of the request that computed it


@pytest.mark.parametrize(
    "changes",
    [
        {"k": 2},
        {"session": ["i7"]},
        {"exclude": ["i9"]},
        {"filters": Filters(categories=("even",))},
        {"filters": Filters(tags=("large",))},
        {"context": {"device": "tv"}},
        {"context": {"local_time": "2026-11-24T18:30"}},
        {"context": {"tag": "odd"}},
        {"user_id": "another"},
        {"explain": True},
        {"origin": "simulator"},
        {"origin": "replay"},
    ],
)
def test_another_question_is_computed(changes: dict[str, Any]) -> None:
    world = caching()
    world.recommend()
    stages_asked(world)
    assert world.recommend(**changes)["cached"] is False
    assert stages_asked(world) == ALL


@pytest.mark.parametrize(
    "changes",
    [
        {"context": {"mood": "unknown to the bundle"}},
        {"deadline_ms": 4000.0},
    ],
)
def test_what_no_list_depends_on_is_no_other_question(changes: dict[str, Any]) -> None:
    world = caching()
    world.recommend()
    assert world.recommend(**changes)["cached"] is True


def test_the_order_of_excluded_items_and_filters_is_no_other_question() -> None:
    world = caching()
    world.recommend(exclude=["i9", "i8"], filters=Filters(tags=("small", "large")))
    assert world.recommend(exclude=["i8", "i9"], filters=Filters(tags=("large", "small")))["cached"] is True


def test_simulated_requests_neither_read_nor_leave_lists() -> None:
    world = caching()
    world.recommend(origin="simulator")
    assert world.recommend()["cached"] is False


def test_the_users_next_event_ends_it() -> None:
    world = caching()
    world.recommend()
    world.histories["old"].append("i5")
    answer = world.recommend()
    assert answer["cached"] is False
    assert items(answer) == ["i2", "i3", "i4"]
    assert world.recommend()["cached"] is True  # the new one is kept in its place


def test_a_refusal_ends_it_and_what_was_refused_is_not_shown() -> None:
    world = caching()
    assert "i5" in items(world.recommend())
    world.refused["old"] = ["i5"]
    answer = world.recommend()
    assert answer["cached"] is False
    assert "i5" not in items(answer)


def test_a_swap_ends_it_and_going_back_finds_it_again() -> None:
    world = caching()
    first, champion = world.recommend(), world.pins["champion"]
    world.pins["champion"] = world.pins["challenger"]
    assert world.recommend()["cached"] is False
    world.pins["champion"] = champion
    assert world.recommend()["cached_from"] == first["request_id"]


def test_each_variant_has_its_own_and_a_cached_answer_is_still_in_the_experiment() -> None:
    world = caching()
    world.recommend()
    world.assignment = variant("champion")  # the same bundle
    assert world.recommend()["cached"] is False
    answer = world.recommend()
    assert (answer["cached"], answer["experiment"], answer["variant"]) == (True, "exp", "B")
    assert (world.decisions[-1].variant, world.decisions[-1].propensity) == ("B", 0.25)


def test_a_degraded_answer_is_not_kept() -> None:
    world = caching()
    world.graph.faults["rerank"] = "raises"
    assert world.recommend()["degraded"] == ["no-rerank"]
    del world.graph.faults["rerank"]
    assert world.recommend()["cached"] is False


def test_without_state_nothing_is_answered_again_but_as_a_rung() -> None:
    world = caching()
    first = world.recommend()
    world.state_is_down = True
    answer = world.recommend()
    assert (answer["cached"], answer["degraded"]) == (False, ["no-history", "no-experiment"])
    world.graph.faults["retrieve"] = "raises"
    answer = world.recommend()
    assert answer["degraded"] == ["no-history", "no-experiment", "cached"]
    assert answer["cached_from"] == first["request_id"]


def test_when_stages_fail_the_last_list_goes_before_what_trends_under_todays_rules() -> None:
    world = caching()
    first = world.recommend()
    assert items(first) == ["i5", "i2", "i3"]
    world.histories["old"].append("i2")  # taken meanwhile
    world.refused["old"] = ["i5"]
    world.graph.faults["retrieve"] = "raises"
    answer = world.recommend(session=["i8"])
    assert items(answer) == ["i3", "i4", "i6"]  # what is left of it, and what is popular in place of the rest
    assert (answer["degraded"], answer["cached"]) == (["cached", "popular"], True)
    assert answer["items"][0]["score"] > answer["items"][1]["score"]
    assert world.decisions[-1].cached_from == first["request_id"]
    assert tuple(world.decisions[-1].rungs) == ("cached", "popular")
    assert "cached" in telemetry.RUNGS
    world.refused["old"] = ["i5", "i3"]  # nothing of it is left
    answer = world.recommend()
    assert (items(answer), answer["degraded"]) == (["i4", "i6", "i7"], ["popular"])
    assert answer["cached_from"] is None


def test_a_list_computed_ahead_goes_before_what_trends_where_this_bundle_made_it() -> None:
    world = World()
    world.graph.faults["retrieve"] = "raises"
    world.stored = {
        "old": StoredList("a" * 12, 1, ["i9", "i1", "gone", "i8", "i7", "i6"]),
        "other": StoredList("b" * 12, 1, ["i9"]),
        "done": StoredList("a" * 12, 1, ["i9"]),
    }
    world.refused["old"] = ["i8"]
    answer = world.recommend()
    assert items(answer) == ["i9", "i7", "i6"]  # i1 is the user's history
    assert (answer["degraded"], answer["cached_from"]) == (["cached"], None)
    assert answer["items"][0]["reason"] == "fits the history"
    assert world.recommend("other")["degraded"] == ["popular"]  # another bundle's
    assert world.recommend("done", exclude=["i9"])["degraded"] == ["popular"]  # nothing is left of it
    world.state_is_down = True
    assert world.recommend()["degraded"][-1] == "popular"


def test_a_cache_that_is_down_costs_nothing_but_itself() -> None:
    world = caching()
    world.recommend()
    assert isinstance(world.lists, Shelf)
    world.lists.is_down = True
    unread = telemetry.CACHE.labels("default", "unread")
    before = unread._value.get()
    answer = world.recommend()
    assert (answer["cached"], answer["degraded"]) == (False, [])
    assert unread._value.get() == before + 1


def test_the_local_time_counts_by_the_hour() -> None:
    world = caching()
    world.recommend(context={"local_time": "2026-11-24T18:01"})
    assert world.recommend(context={"local_time": "2026-11-24T18:59:59+01:00"})["cached"] is True
    assert world.recommend(context={"local_time": "2026-11-24T19:00"})["cached"] is False
    assert context_class({}) == {}


@given(st.lists(st.integers(0, 2**31 - 1), max_size=20), st.binary(max_size=16), st.integers(0, 2**50))
def test_a_list_comes_back_as_it_was_kept(rows: list[int], version: bytes, made_ms: int) -> None:
    kept = Kept(version, "r", made_ms, candidates(rows, mask=3))
    back = Kept.decode(kept.encode(), 2)
    assert back is not None
    assert (back.version, back.request_id, back.made_ms) == (version, "r", made_ms)
    for name in ("item_index", "score", "source_mask"):
        assert np.array_equal(getattr(back.slate, name), getattr(kept.slate, name))
    assert back.slate.source_score_KS.shape == (len(rows), 2)
    assert np.isnan(back.slate.source_score_KS).all()


@pytest.mark.parametrize("kept", [None, b"", b"text", b"\x07", b"\x97\x02\x00\x00\x00\x00\x00\x00"])
def test_what_is_no_list_of_this_release_is_none(kept: bytes | None) -> None:
    assert Kept.decode(kept, 2) is None
