"""What an answer makes of its user's profile: opting out, what a new user said, and who the user is like."""

from typing import Any

import numpy as np
import pytest
from gateway_world import COUNTS, NUM_ITEMS, World, items, make_face

from tastemaker.models.popularity import Popularity, PopularityConfig
from tastemaker.stages.popular import PopularHeads
from tastemaker.state.lists import StoredList
from tastemaker.types import Query
from tastemaker.users.profile import Demographics, Onboarding, Profile
from tastemaker_services.gateway.answers import NOT_PERSONAL
from tastemaker_services.gateway.cache import Kept
from tastemaker_services.gateway.pins import Pin

OUT = Profile(personalise=False, onboarding=Onboarding(liked=("i3",), disliked=("i5",), tags=("odd",)))


@pytest.fixture
def world() -> World:
    return World()


def query_of(world: World, user_id: str = "old", **fields: Any) -> Query:
    world.recommend(user_id, **fields)
    _, _, query = world.graph.queries[0]
    return query


class EveryList:
    """A cache that has a list of the user's past for any question, whatever version is asked for."""

    def __init__(self) -> None:
        self.asked = self.written = 0

    async def get(self, user_id: str, question: bytes, num_sources: int, now_ms: int) -> Kept | None:
        self.asked += 1
        raise AssertionError("a list of the past was asked for")

    def keep(self, user_id: str, question: bytes, kept: Kept) -> None:
        self.written += 1


def test_nothing_of_the_past_reaches_the_stages_of_one_who_opted_out(world: World) -> None:
    world.profiles["old"] = OUT
    world.refused["old"] = ["i2"]
    query = query_of(world, session=["i7", "i8"], exclude=["i9"], context={"tag": "odd"})
    assert query.history_L.tolist() == query.visit_L.tolist() == []
    assert set(query.exclude.tolist()) == {7, 8, 9}
    assert query.context == {"tag": "odd"}
    assert not query.record


def test_the_answer_says_that_it_is_not_personal(world: World) -> None:
    world.profiles["old"] = OUT
    answer = world.recommend("old")
    assert {item["reason"] for item in answer["items"]} == {NOT_PERSONAL}
    assert answer["degraded"] == []
    assert {item["reason"] for item in world.recommend("other")["items"]} != {NOT_PERSONAL}


@pytest.mark.parametrize("fault", [{}, {"rerank": "raises"}, {"rank": "raises"}, {"retrieve": "raises"}])
def test_on_no_rung_is_a_list_used_that_was_made_before(world: World, fault: dict[str, str]) -> None:
    lists = EveryList()
    world.lists = lists
    world.profiles["old"] = OUT
    world.stored["old"] = StoredList(make_face().bundle_id, 1, ["i9", "i8", "i7"])
    world.graph.faults = fault
    answer = world.recommend("old")
    assert (lists.asked, lists.written) == (0, 0)
    assert "cached" not in answer["degraded"]
    assert {item["reason"] for item in answer["items"]} == {NOT_PERSONAL}
    if "retrieve" in fault:
        assert items(answer) == ["i0", "i1", "i2"]  # what trends, the items of the forgotten past among them


def test_what_a_new_user_liked_is_the_visit_and_what_was_disliked_is_out(world: World) -> None:
    world.profiles["new"] = Profile(onboarding=Onboarding(liked=("i3", "gone", "i4"), disliked=("i5",)))
    query = query_of(world, "new", session=["i4", "i6"])
    assert query.history_L.tolist() == query.visit_L.tolist() == [3, 4, 6]
    assert query.exclude.tolist() == [5]
    assert "i5" not in items(world.recommend("new", k=10))


def test_a_user_with_a_history_has_no_need_of_answers_but_dislikes_hold(world: World) -> None:
    answers = Onboarding(liked=("i3",), disliked=("i5",), tags=("odd",))
    world.profiles["old"] = Profile(Demographics(age=30), onboarding=answers)
    query = query_of(world)
    assert query.history_L.tolist() == [0, 1]
    assert query.visit_L.tolist() == []
    assert query.exclude.tolist() == [5]
    assert query.context == {}


def test_interests_and_group_of_a_new_user_are_in_the_context_and_a_client_cannot_tell_a_group(
    world: World,
) -> None:
    answers = Onboarding(categories=("odd", "even"), tags=("odd",))
    world.profiles["new"] = Profile(Demographics(age=30, gender="f"), onboarding=answers)
    query = query_of(world, "new", context={"demographic": "18-24/m", "device": "tv"})
    assert query.context == {
        "demographic": "25-34/f", "category": "odd|even", "tag": "odd", "device": "tv"
    }  # fmt: skip


def test_what_trends_is_what_the_group_takes(world: World) -> None:
    config = PopularityConfig(num_items=NUM_ITEMS, groups=("demographic=25-34/f",))
    group_GI = np.zeros((1, NUM_ITEMS), np.float32)
    group_GI[0, 8] = 1.0
    face = make_face()
    face._heads = PopularHeads(Popularity(config, COUNTS, COUNTS, np.zeros((0, NUM_ITEMS), bool), group_GI))
    world.pins["champion"] = Pin(1, face)
    world.graph.faults = {"retrieve": "raises"}
    world.profiles["new"] = Profile(Demographics(age=30, gender="f"))
    assert items(world.recommend("new"))[0] == "i8"  # (0.2 + 1) / 2 against (1 + 0) / 2
    assert items(world.recommend("someone"))[0] == "i0"
