"""Long lists page by page: every item once, whatever happens between two pages."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from gateway_world import NUM_ITEMS, World, items, make_face, variant
from hypothesis import given, settings
from hypothesis import strategies as st
from pages_kept import KeptPages

from tastemaker.stages.overlay import Overlay
from tastemaker_services.gateway.face import BundleFace
from tastemaker_services.gateway.pages import Place
from tastemaker_services.gateway.pins import Pin
from tastemaker_services.web.problems import Problem

RERANKED = ["i5", "i0", "i1", "i2", "i3", "i4", "i6", "i7", "i8", "i9"]
"""What the fake graph answers to one without a past."""


@pytest.fixture
def world() -> World:
    made = World()
    made.pages = KeptPages()
    return made


def pages(world: World, user_id: str = "new", k: int = 3, **first: Any) -> list[list[str]]:
    answer = world.recommend(user_id, k=k, paged=True, **first)
    found = [items(answer)]
    while answer["next_cursor"] is not None:
        answer = world.recommend(user_id, k=k, cursor=answer["next_cursor"])
        found.append(items(answer))
    return found


@settings(deadline=None, max_examples=20)
@given(k=st.integers(1, 12), exclude=st.lists(st.sampled_from(RERANKED), max_size=4, unique=True))
def test_pages_are_the_list_cut_in_order(k: int, exclude: list[str]) -> None:
    world = World()
    world.pages = KeptPages()
    found = pages(world, k=k, exclude=exclude)
    assert [item for page in found for item in page] == [item for item in RERANKED if item not in exclude]
    assert all(len(page) == k for page in found[:-1])


def test_without_paged_the_list_is_no_longer_than_asked_and_has_no_cursor(world: World) -> None:
    answer = world.recommend("new", k=3)
    assert (len(items(answer)), answer["next_cursor"]) == (3, None)
    assert world.graph.queries[-1][2].k == 3


def test_ranks_go_on_over_pages(world: World) -> None:
    first = world.recommend("new", k=4, paged=True)
    second = world.recommend("new", k=4, cursor=first["next_cursor"])
    assert [item["rank"] for item in (*first["items"], *second["items"])] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert second["items"][0]["sources"] == ["two_tower"]


def test_a_swap_between_pages_changes_nothing(world: World) -> None:
    first = world.recommend("new", k=3, paged=True)
    num_calls = len(world.graph.queries)
    other = make_face("challenger")
    other.item_ids = list(reversed(other.item_ids))
    other._row_of = {item_id: row for row, item_id in enumerate(other.item_ids)}.get
    world.pins = {"champion": Pin(2, other)}
    second = world.recommend("new", k=3, cursor=first["next_cursor"])
    assert items(second) == RERANKED[3:6]
    assert (second["bundle"], second["bundle_version"]) == (first["bundle"], first["bundle_version"])
    assert len(world.graph.queries) == num_calls


def test_what_was_deleted_taken_or_refused_since_is_left_out(world: World) -> None:
    first = world.recommend("new", k=3, paged=True)
    face: BundleFace = make_face()
    deleted_I = np.zeros(NUM_ITEMS, bool)
    deleted_I[2] = True
    face.overlay = replace(Overlay.none(NUM_ITEMS), deleted_I=deleted_I)
    world.pins["champion"] = Pin(1, face)
    world.histories["new"] = ["i3"]
    world.refused["new"] = ["i6"]
    second = world.recommend("new", k=3, cursor=first["next_cursor"])
    assert items(second) == ["i4", "i7", "i8"]
    assert items(world.recommend("new", k=3, cursor=second["next_cursor"])) == ["i9"]


def test_filters_of_the_first_page_stand_for_all(world: World) -> None:
    found = pages(world, k=2, filters={"categories": ("odd",)})
    assert found == [["i5", "i1"], ["i3", "i7"], ["i9"]]


@pytest.mark.parametrize("cursor", ["x", "ä", "A" * 24, "A" * 23, "=" * 24, "A" * 64])
def test_what_no_answer_gave_is_no_cursor(world: World, cursor: str) -> None:
    with pytest.raises(Problem, match="cursor") as raised:
        world.recommend("new", cursor=cursor)
    assert raised.value.status in (410, 422)
    assert raised.value.field == "cursor"


def test_another_users_cursor_leads_nowhere(world: World) -> None:
    cursor = world.recommend("new", k=3, paged=True)["next_cursor"]
    with pytest.raises(Problem, match="made for another user: ask anew") as raised:
        world.recommend("old", cursor=cursor)
    assert raised.value.status == 410


def test_a_cursor_behind_the_end_is_refused(world: World) -> None:
    cursor = world.recommend("new", k=3, paged=True)["next_cursor"]
    place = Place.of(cursor)
    assert place is not None
    with pytest.raises(Problem, match="the cursor's list is over"):
        world.recommend("new", cursor=place._replace(offset=11).cursor())


def test_a_cursor_goes_with_nothing_that_it_says_already(world: World) -> None:
    cursor = world.recommend("new", k=3, paged=True)["next_cursor"]
    with pytest.raises(Problem, match="exclude is given, and a cursor says it already") as raised:
        world.recommend("new", cursor=cursor, exclude=["i1"])
    assert (raised.value.status, raised.value.field) == (422, "exclude")


@pytest.mark.parametrize("field", [{"paged": True}, {"cursor": "A" * 24}])
def test_where_paging_is_off_it_is_refused(field: dict[str, Any]) -> None:
    with pytest.raises(Problem, match=r"paging is off \(cache.page_seconds\)"):
        World().recommend("new", **field)


def test_a_cache_that_is_down_costs_the_cursor_not_the_answer(world: World) -> None:
    cursor = world.recommend("new", k=3, paged=True)["next_cursor"]
    assert isinstance(world.pages, KeptPages)
    world.pages.is_down = True
    answer = world.recommend("new", k=3, paged=True)
    assert (len(items(answer)), answer["next_cursor"], answer["degraded"]) == (3, None, ["no-cursor"])
    with pytest.raises(Problem, match="send the request again") as raised:
        world.recommend("new", cursor=cursor)
    assert raised.value.status == 409


def test_each_page_is_a_decision_of_its_own(world: World) -> None:
    world.assignment = variant()
    first = world.recommend("new", k=4, paged=True)
    second = world.recommend("new", k=4, cursor=first["next_cursor"])
    one, two = world.decisions
    assert (one.request_id, two.request_id) == (first["request_id"], second["request_id"])
    assert (list(one.item_ids), list(two.item_ids)) == (items(first), items(second))
    assert (one.first_position, two.first_position) == (0, 4)
    assert (one.cached_from, two.cached_from) == (None, first["request_id"])
    assert one.variant == two.variant == second["variant"] == "B"
    assert one.bundle == two.bundle
    assert list(two.source_masks) == [1] * 4


def test_a_list_that_is_not_personal_reads_nobody_on_any_page(world: World) -> None:
    first = world.recommend("old", k=3, paged=True, personalise=False)
    second = world.recommend("old", k=3, cursor=first["next_cursor"])
    assert world.users_read == []
    assert {item["reason"] for item in second["items"]} == {"popular now, not personalised"}
