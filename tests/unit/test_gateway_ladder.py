"""The ladder of rungs: what takes a failing part's place, what is forced, and that an answer always comes in time."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from gateway_world import NUM_ITEMS, items, make_face
from hypothesis import given, settings
from hypothesis import strategies as st
from ladder_world import DEADLINE_MS, Ladder, ladder_time, request

from tastemaker import telemetry
from tastemaker.config_serving import BreakerSettings
from tastemaker.features.trending import Ranked, Trending
from tastemaker.state.forced import RUNGS
from tastemaker.state.lists import StoredList
from tastemaker.types import Query
from tastemaker_services.gateway.gateway import Gateway
from tastemaker_services.gateway.ladder import Stages
from tastemaker_services.gateway.pins import Pin
from tastemaker_services.replicas.through import Way
from tastemaker_services.web.schema import Filters

PARTS = ("retrieve", "session", "rank", "rerank", "history", "experiment", "stored")
FAULTS = ("fine", "raises", "slow", "hangs")

pytestmark = pytest.mark.usefixtures("either_graph")


def trending_face(rows: Sequence[int]) -> Pin:
    ids = tuple(f"i{row}" for row in rows)
    ranked = Ranked(ids, np.linspace(0, -1, len(ids)))
    return Pin(1, make_face(trending=lambda: Trending(0, ranked, {}, 1.0)))


ORDERS = {
    # Of the user's i0 and i1, the session's i2: what each rung shows first.
    None: ["i5", "i3", "i4"],
    "no-rerank": ["i3", "i4", "i5"],
    "retrieval-order": ["i9", "i8", "i7"],
    "base-vector": ["i9", "i8", "i7"],
    "cached": ["i6", "i4", "i8"],
    "trending": ["i7", "i3", "i4"],
    "popular": ["i3", "i4", "i5"],
}


@pytest.mark.parametrize("rung", [None, *RUNGS])
def test_a_forced_rung_answers_all_and_says_so(rung: str | None) -> None:
    world = Ladder()
    world.forced = rung
    world.stored["old"] = StoredList("a" * 12, 1, ["i6", "i4", "i8"])
    world.pins["champion"] = trending_face([7, 3])
    with ladder_time():
        (answer,) = world.ask({"session": ("i2",)})
    assert items(answer) == ORDERS[rung]
    assert answer["forced"] == rung
    noted = {None: [], "base-vector": ["base-vector", "retrieval-order"]}
    assert answer["degraded"] == noted.get(rung, [rung])
    plain = [query.long_term_only for name, _, query in world.graph.queries if name == "retrieve"]
    stages = {None: 3, "no-rerank": 2, "retrieval-order": 1, "base-vector": 1}
    assert len(world.graph.queries) == stages.get(rung, 0)
    assert plain == [rung == "base-vector"] * len(plain)


def test_a_session_that_fails_costs_the_session_alone() -> None:
    with ladder_time():
        world = Ladder()
        world.faults["session"] = "raises"
        (answer,) = world.ask({"session": ("i2",)})
        assert (items(answer), answer["degraded"]) == (ORDERS[None], ["base-vector"])
        rank_query = next(query for name, _, query in world.graph.queries if name == "rank")
        assert not rank_query.long_term_only  # the ranker has no part in it
        (answer,) = world.ask({})
        assert answer["degraded"] == []


def test_an_answer_whose_stages_took_their_time_is_whole() -> None:
    with ladder_time():
        world = Ladder()
        world.faults = dict.fromkeys(("retrieve", "session", "rank", "rerank"), "takes long")
        (answer,) = world.ask({"session": ("i2",)})
    assert (items(answer), answer["degraded"]) == (ORDERS[None], [])
    assert answer["timings_ms"].pop("wait", 0.0) == 0.0
    assert answer["timings_ms"] == pytest.approx(
        {"history": 0.0, "retrieve": 40.0, "rank": 20.0, "rerank": 20.0, "total": 80.0}
    )


async def never_begun(sha256: str, query: Query, limits: Mapping[str, float]) -> Way:
    """As a graph none of whose threads was free in time."""
    await asyncio.sleep(limits["retrieve"])
    return Way(limits["retrieve"], {}, is_begun=False)


class Crowded(Ladder):
    """No request of it is begun."""

    def stages(self) -> Stages:
        return replace(super().stages(), through=never_begun)


def test_stages_that_were_never_begun_took_no_time_of_any_length() -> None:
    with ladder_time():
        (answer,) = Crowded().ask({})
    assert "popular" in answer["degraded"]
    assert answer["timings_ms"].keys() == {"history", "wait", "total"}
    assert answer["timings_ms"]["wait"] > 0


def test_a_request_with_little_time_does_without_the_session() -> None:
    with ladder_time():
        (answer,) = Ladder().ask({"session": ("i2",), "deadline_ms": 20.0})
    assert answer["degraded"] == ["base-vector"]


@settings(max_examples=80, deadline=None)
@given(
    faults=st.dictionaries(st.sampled_from(PARTS), st.sampled_from(FAULTS)),
    forced=st.sampled_from([None, None, *RUNGS]),
    deadline_ms=st.sampled_from([5.0, 20.0, 60.0, DEADLINE_MS, 400.0]),
    session=st.lists(st.sampled_from([f"i{n}" for n in range(NUM_ITEMS)]), max_size=3),
    exclude=st.lists(st.sampled_from([f"i{n}" for n in range(NUM_ITEMS)]), max_size=6),
    category=st.sampled_from([(), ("even",), ("odd",)]),
    k=st.integers(1, NUM_ITEMS),
    num_requests=st.integers(1, 3),
)
def test_whatever_fails_an_answer_comes_in_time_obeys_the_hard_rules_and_names_its_rungs(
    faults: dict[str, str],
    forced: str | None,
    deadline_ms: float,
    session: list[str],
    exclude: list[str],
    category: tuple[str, ...],
    k: int,
    num_requests: int,
) -> None:
    with ladder_time():
        world = Ladder(breakers=BreakerSettings(calls=2, least_calls=2))
        world.faults, world.forced = faults, forced
        world.stored["old"] = StoredList("a" * 12, 1, ["i6", "i4", "i8"])
        fields = {
            "session": tuple(session), "exclude": tuple(exclude), "filters": Filters(categories=category),
            "k": k, "deadline_ms": deadline_ms,
        }  # fmt: skip

        async def action(gateway: Gateway) -> list[tuple[float, dict[str, Any]]]:
            clock = asyncio.get_running_loop().time
            answers = []
            for _ in range(num_requests):
                before = clock()
                answer = await gateway.recommend(request(**fields), "live")
                answers.append((1000 * (clock() - before), answer))
            return answers

        answers = world.use(action)
    for took_ms, answer in answers:
        assert took_ms <= deadline_ms
        rungs = answer["degraded"]
        assert set(rungs) <= telemetry.RUNGS
        assert (forced is None) == (answer["forced"] is None)
        known = set() if "no-history" in rungs else {"i0", "i1"}
        allowed = {f"i{n}" for n in range(NUM_ITEMS)} - known - set(session) - set(exclude)
        allowed -= {f"i{n}" for n in range(NUM_ITEMS) if category == (("odd", "even")[n % 2],)}
        shown = items(answer)
        assert len(shown) == len(set(shown)) == min(k, len(allowed))
        assert set(shown) <= allowed
        if not rungs:
            assert shown == [f"i{n}" for n in (5, 0, 1, 2, 3, 4, 6, 7, 8, 9) if f"i{n}" in allowed][:k]
        broken = {part for part, fault in faults.items() if fault != "fine"}
        if not broken and forced is None and deadline_ms >= DEADLINE_MS:
            assert rungs == []
        if allowed and (forced or broken & {"retrieve", "rank", "rerank", "history", "experiment"}):
            assert rungs
        if not allowed:
            assert answer["notes"] == ["nothing-fits"]
            assert set(rungs) <= {"no-history", "no-record", "no-experiment"}
