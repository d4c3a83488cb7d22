"""Lists by one stage's own order, and requests that are not to be personalised."""

from typing import Any

import numpy as np
import pytest
from gateway_world import NUM_ITEMS, World, items

from tastemaker.types import Float32, Int32
from tastemaker_services.gateway.ladder import Stages
from tastemaker_services.gateway.listing import Listing
from tastemaker_services.web.problems import Problem
from tastemaker_services.web.question_schema import SearchRequest, SimilarRequest
from tastemaker_services.web.schema import Filters


class Searching(World):
    """The world, and a graph that searches: i9 fits every text best."""

    def __init__(self) -> None:
        super().__init__()
        self.searched: list[tuple[Any, ...]] = []
        for pin in self.pins.values():
            pin.face.content_fingerprint = "f"

    def stages(self) -> Stages:
        from dataclasses import replace

        return replace(super().stages(), search=self._search)

    async def _search(self, call: Any, timeout_seconds: float) -> tuple[Int32, Float32]:
        del timeout_seconds
        self.searched.append(call)
        return np.arange(NUM_ITEMS - 1, -1, -1, dtype=np.int32), np.linspace(1, 0.1, NUM_ITEMS).astype(
            np.float32
        )


def similar(world: World, **fields: Any) -> dict[str, Any]:
    asked = SimilarRequest(**{"item_id": "i4", "k": 3} | fields)
    answer: dict[str, Any] = world.use(lambda gateway: Listing(gateway).similar(asked))
    return answer


def search(world: World, **fields: Any) -> dict[str, Any]:
    asked = SearchRequest(**{"q": "violins", "k": 3} | fields)
    answer: dict[str, Any] = world.use(lambda gateway: Listing(gateway).search(asked))
    return answer


def test_similar_reads_nobody_unless_a_user_is_named() -> None:
    world = World()
    assert items(similar(world, k=5)) == ["i0", "i1", "i2", "i3"]
    assert world.users_read == []
    assert items(similar(world, k=5, user_id="old")) == ["i2", "i3"]  # who took i0 and i1
    assert world.users_read == ["old"]


def test_similar_heeds_filters_and_what_is_excluded() -> None:
    assert items(similar(World(), k=9, exclude=("i2",), filters=Filters(categories=("even",)))) == [
        "i0",
        "i6",
        "i8",
    ]


def test_search_lists_by_the_stage_and_heeds_hard_rules() -> None:
    world = Searching()
    answer = search(world, user_id="old", exclude=("i9",))
    assert items(answer) == ["i8", "i7", "i6"]
    assert answer["items"][0]["reason"] == "fits the words"
    _, query, text, share = world.searched[0]
    assert (text, share, query.history_L.tolist()) == ("violins", 0.0, [0, 1])


def test_a_taste_of_nobody_is_not_mixed_in() -> None:
    world = Searching()
    search(world, personal=0.5)
    search(world, personal=0.5, user_id="old")
    assert [call[3] for call in world.searched] == [0.0, 0.5]
    assert world.users_read == ["old"]


def test_search_without_content_vectors_says_how_to_get_them() -> None:
    with pytest.raises(Problem, match="train and publish with source content") as raised:
        search(World())
    assert (raised.value.status, raised.value.kind, raised.value.field) == (409, "no-content-space", "q")


def test_search_that_does_not_answer_falls_back() -> None:
    world = World()  # whose graph has no search
    world.pins["champion"].face.content_fingerprint = "f"
    answer = search(world)
    assert len(items(answer)) == 3
    assert answer["degraded"]


def test_lists_are_no_decisions() -> None:
    world = Searching()
    search(world)
    similar(world)
    assert world.decisions == []


def test_a_request_that_is_not_to_be_personalised_reads_nothing_of_its_user() -> None:
    world = World()
    answer = world.recommend("old", personalise=False, session=["i7"])
    assert world.users_read == []
    query = world.graph.queries[0][2]
    assert (query.history_L.tolist(), query.visit_L.tolist(), query.record or b"") == ([], [], b"")
    assert {item["reason"] for item in answer["items"]} == {"popular now, not personalised"}
    world.recommend("old")
    assert world.users_read == ["old"]
