"""First answers of a version: what is refused, and that recorded requests name no user."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from gateway_world import NUM_ITEMS, Graph, candidates, make_face

from tastemaker.data.item_rows import Item
from tastemaker.errors import StateError
from tastemaker.stages.business_rules import Block, Filter, Hard
from tastemaker.stages.matching import Match
from tastemaker.stages.recorded import Recorded
from tastemaker.state.items import ItemChanges
from tastemaker.types import Candidates, Query
from tastemaker_services.gateway.face import LiveFace
from tastemaker_services.graph.warm_up import WarmUp
from tastemaker_services.replicas.calls import StageError
from tastemaker_services.versions.rehearsal import (
    EmptyAnswersError,
    NotFiniteError,
    SlowAnswersError,
    made_queries,
    rehearse,
)

DAY_MS = 86_400_000
RECORDED = [Recorded(["i3", "gone", "i1"], ["i1"], 7, {"country": "de"})]


def try_out(
    graph: Graph,
    recorded: Any = RECORDED,
    deadline_ms: float = 1000.0,
    slow: bool = False,
    hard_rules: tuple[Hard, ...] = (),
    put: ItemChanges | None = None,
) -> None:
    async def read() -> Sequence[Recorded]:
        if isinstance(recorded, Exception):
            raise recorded
        return list(recorded)

    live = LiveFace(make_face(hard_rules=hard_rules))
    if put is not None:
        live.take(put)
    asyncio.run(WarmUp(graph.stages(), read, deadline_ms, lambda: False)(live.face, may_be_slow=slow))


def test_recorded_requests_go_through_all_stages_in_the_rows_of_the_new_bundle() -> None:
    graph = Graph()
    try_out(graph)
    asked = [query for name, _, query in graph.queries if name == "rerank"]
    assert len(asked) == len(made_queries(NUM_ITEMS)) + 1
    assert asked[-1].history_L.tolist() == [3, 1]  # of an item that the bundle lacks nothing is asked
    assert (asked[-1].visit_L.tolist(), asked[-1].k, asked[-1].context) == ([1], 7, {"country": "de"})


def test_without_recorded_requests_made_ones_are_tried() -> None:
    graph = Graph()
    try_out(graph, StateError("cannot read recorded requests"))
    lengths = [len(query.history_L) for name, _, query in graph.queries if name == "retrieve"]
    assert lengths == [0, 1, 5, NUM_ITEMS]


def test_a_stage_that_does_not_answer_fails_the_trial() -> None:
    graph = Graph()
    graph.faults["rank"] = "raises"
    with pytest.raises(StageError, match="the stage failed"):
        try_out(graph)


def test_answers_that_come_too_late_are_refused_where_something_else_answers() -> None:
    with pytest.raises(
        SlowAnswersError, match=r"half of a version's first answers, is '\d+ ms', must be at most 0"
    ):
        try_out(Graph(), deadline_ms=0.0001)
    try_out(Graph(), deadline_ms=0.0001, slow=True)


def test_a_bundle_whose_own_rules_leave_nothing_is_refused() -> None:
    """Its stages answer, and no user would see an item of it."""
    try_out(Graph(), hard_rules=(Filter(match=Match(categories=("odd",))),))
    with pytest.raises(EmptyAnswersError, match="all of 5 first answers are empty"):
        try_out(Graph(), hard_rules=(Filter(match=Match(categories=("none",))),))


@pytest.mark.parametrize(("age_days", "limit_days", "is_fit"), [(3, 30, True), (300, 30, False)])
def test_ages_are_those_of_now_also_for_made_requests(age_days: int, limit_days: int, is_fit: bool) -> None:
    born_ms = time.time_ns() // 1_000_000 - age_days * DAY_MS
    dated = [Item(item_id=f"i{n}", created_at_ms=born_ms) for n in range(NUM_ITEMS)]
    put = ItemChanges("L", 1, False, [], {item.item_id: item.encode() for item in dated})
    nobody = StateError("cannot read recorded requests")
    young = (Filter(match=Match(max_age_days=limit_days)),)
    old = (Block(match=Match(min_age_days=limit_days)), Filter(match=Match(min_age_days=1)))
    for hard_rules in (young, old):
        if is_fit:
            try_out(Graph(), nobody, hard_rules=hard_rules, put=put)
        else:
            with pytest.raises(EmptyAnswersError, match="all of 4 first answers are empty"):
                try_out(Graph(), nobody, hard_rules=hard_rules, put=put)


class Parts:
    """A pipeline whose answers a test chooses."""

    source_names = ("two_tower", "popular")

    def __init__(self, found: Candidates) -> None:
        self._found = found

    def retrieve(self, queries: Sequence[Query]) -> list[Candidates]:
        return [self._found for _ in queries]

    def rank(self, queries: Sequence[Query], given: Sequence[Candidates]) -> list[Candidates]:
        assert all(len(found) for found in given)
        return [self._found for _ in queries]

    rerank = rank

    def finish(self, queries: Sequence[Query], given: Sequence[Candidates]) -> list[Candidates]:
        return [
            found.take(range(min(len(found), query.k))) for query, found in zip(queries, given, strict=True)
        ]


def rehearsed(found: Candidates, *parts: Any) -> None:
    rehearse(Parts(found), frozenset(parts), NUM_ITEMS, made_queries(NUM_ITEMS))  # type: ignore[arg-type]


@pytest.mark.parametrize("part", ["retrieve", "rank", "rerank"])
def test_a_replica_tries_its_own_part_and_refuses_scores_that_are_no_numbers(part: str) -> None:
    rehearsed(candidates(range(NUM_ITEMS)), part)
    spoilt = candidates(range(NUM_ITEMS)).with_score(np.full(NUM_ITEMS, np.nan, np.float32))
    with pytest.raises(NotFiniteError, match="10 of 10 candidates a score that is not finite"):
        rehearsed(spoilt, part)


def test_a_bundle_that_recommends_nothing_to_anybody_is_refused() -> None:
    with pytest.raises(EmptyAnswersError, match="all of 4 first answers are empty"):
        rehearsed(candidates([]), "retrieve")


def test_what_is_recorded_names_no_user() -> None:
    query = Query(
        np.array([2, 5], np.int32), user_id="alice", k=3, record=b"alice's", context={"device": "tv"}
    )
    recorded = Recorded.of(query, [f"i{i}" for i in range(NUM_ITEMS)])
    assert json.loads(json.dumps(asdict(recorded))) == {
        "history": ["i2", "i5"], "visit": [], "k": 3, "context": {"device": "tv"},
    }  # fmt: skip
    again = recorded.query(lambda item_id: int(item_id[1:]))
    assert again.history_L.tolist() == [2, 5]
    assert again.user_id == ""
