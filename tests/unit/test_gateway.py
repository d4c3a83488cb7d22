"""One request's way through the gateway: fallbacks, assignment, and what unknown users and items do.

The graph behind it is a fake, so that each of its faults can be called up; items are i0 … i9, i0 the most popular.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import pytest

from tastemaker import telemetry
from tastemaker.config import BudgetSettings, GatewaySettings, Settings, StateSettings
from tastemaker.errors import StateError
from tastemaker.experiments.assignment import Assignment
from tastemaker.experiments.decision_log import Decision
from tastemaker.models.popularity import Popularity, PopularityConfig
from tastemaker.types import Candidates, Float32, Int32, Query
from tastemaker_services.calls import StageError
from tastemaker_services.decisions import DecisionLog
from tastemaker_services.face import BundleFace
from tastemaker_services.gateway import Gateway, Stages
from tastemaker_services.pins import Pin
from tastemaker_services.problems import Problem
from tastemaker_services.schema import Filters, RecommendationRequest

NUM_ITEMS = 10
COUNTS = np.arange(NUM_ITEMS, 0, -1).astype(np.float32)
SHA = {"champion": "a" * 64, "challenger": "b" * 64}


def make_face(alias: str = "champion") -> BundleFace:
    config = PopularityConfig(num_items=NUM_ITEMS, segments=("tag=odd",))
    odd = np.array([[i % 2 for i in range(NUM_ITEMS)]], np.uint8)
    return BundleFace(
        bundle_id=SHA[alias][:12],
        sha256=SHA[alias],
        item_ids=[f"i{i}" for i in range(NUM_ITEMS)],
        source_names=["two_tower", "popular"],
        popularity=Popularity(config, COUNTS, COUNTS, odd),
        categories=["even" if i % 2 == 0 else "odd" for i in range(NUM_ITEMS)],
        tags=[["small"] if i < 5 else ["large", "grand"] for i in range(NUM_ITEMS)],
    )


def candidates(rows: Sequence[int], mask: int = 1) -> Candidates:
    scores = np.linspace(1.0, 0.5, len(rows)).astype(np.float32)
    source_score = np.full((len(rows), 2), np.nan, np.float32)
    source_score[:, 0] = scores
    return Candidates(np.array(rows, np.int32), scores, np.full(len(rows), mask, np.uint32), source_score)


class Graph:
    """Stages that answer: retrieval all items from i9 down, ranking from i0 up, reranking i5 first."""

    def __init__(self) -> None:
        self.faults: dict[str, str] = {}
        self.queries: list[tuple[str, str, Query]] = []
        self.timeouts: dict[str, float] = {}

    def stages(self) -> Stages:
        return Stages(
            retrieve=self._stage("retrieve", range(9, -1, -1)),
            rank=self._stage("rank", range(NUM_ITEMS)),
            rerank=self._stage("rerank", [5, 0, 1, 2, 3, 4, 6, 7, 8, 9]),
            similar=self._similar,
        )

    def _stage(self, name: str, rows: Sequence[int]) -> Callable[..., Awaitable[Candidates]]:
        async def answer(call: Any, timeout_seconds: float) -> Candidates:
            sha256, query, *_ = call
            self.queries.append((name, sha256, query))
            self.timeouts[name] = timeout_seconds
            await self._misbehave(name, timeout_seconds)
            return candidates(rows)

        return answer

    async def _similar(self, call: Any, timeout_seconds: float) -> tuple[Int32, Float32]:
        await self._misbehave("similar", timeout_seconds)
        _, row, k = call
        rows = np.array([row, *(r for r in range(NUM_ITEMS) if r != row)][:k], np.int32)
        return rows, np.linspace(1, 0, len(rows)).astype(np.float32)

    async def _misbehave(self, name: str, timeout_seconds: float) -> None:
        if timeout_seconds <= 0:
            raise StageError("no time is left for the stage")
        if self.faults.get(name) == "slow":
            await asyncio.sleep(timeout_seconds)
            raise StageError("the stage is late")
        if self.faults.get(name) == "raises":
            raise StageError("the stage failed")


class World:
    """A gateway with everything around it under a test's control."""

    def __init__(self, **gateway: Any) -> None:
        self.graph = Graph()
        self.histories: dict[str, list[str]] = {"old": ["i0", "i1"]}
        self.assignment: Assignment | None = None
        self.state_is_down = False
        self.pins = {alias: Pin(version, make_face(alias)) for version, alias in enumerate(SHA, 1)}
        self.decisions: list[Decision] = []
        self.asked_assignment: list[tuple[str, str]] = []
        self.settings = Settings(
            state=StateSettings(history_length=4),
            gateway=GatewaySettings(**{"deadline_ms": 5000.0} | gateway),
        )

    async def read_history(self, user_id: str) -> list[str]:
        if self.state_is_down:
            raise StateError("cannot read a history")
        return self.histories.get(user_id, [])

    async def assign(self, unit: str, now_ms: int, origin: str) -> Assignment | None:
        if self.state_is_down:
            raise StateError("cannot read experiments")
        self.asked_assignment.append((unit, origin))
        return self.assignment

    async def append(self, decisions: Sequence[Decision]) -> int:
        self.decisions += decisions
        return len(decisions)

    def use(self, action: Callable[[Gateway], Awaitable[Any]]) -> Any:
        async def run() -> Any:
            log = DecisionLog(self.append, "default")
            gateway = Gateway(
                self.settings, read_history=self.read_history, assign=self.assign, pin=self.pins.get,
                stages=self.graph.stages(), decisions=log,
            )  # fmt: skip
            log.start()
            try:
                return await action(gateway)
            finally:
                await log.stop()

        return asyncio.run(run())

    def recommend(self, user_id: str = "old", origin: Any = "live", **fields: Any) -> dict[str, Any]:
        tuples = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
        request = RecommendationRequest(user_id=user_id, **{"k": 3} | tuples)
        answer: dict[str, Any] = self.use(lambda gateway: gateway.recommend(request, origin))
        return answer


def items(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def variant(alias: str = "challenger", policy: dict[str, Any] | None = None) -> Assignment:
    return Assignment(
        experiment="exp", variant="B", alias=alias, propensity=0.25, propensities=(0.75, 0.25),
        policy_version="fixed", policy_hash="h", policy=policy,
    )  # fmt: skip


def test_the_last_stage_decides_and_the_answer_says_all_about_itself() -> None:
    answer = World().recommend()
    assert items(answer) == ["i5", "i2", "i3"]  # i0 and i1 are the user's history
    first = answer["items"][0]
    assert (first["rank"], first["sources"], first["reason"]) == (1, ["two_tower"], "fits the history")
    assert [item["rank"] for item in answer["items"]] == [1, 2, 3]
    assert answer["bundle"] == "a" * 12
    assert answer["bundle_version"] == 1
    assert (answer["experiment"], answer["variant"], answer["degraded"]) == (None, None, [])
    assert set(answer["timings_ms"]) == {"history", "retrieve", "rank", "rerank", "total"}
    assert "source_scores" not in first


def test_the_same_inputs_give_the_same_slate() -> None:
    world = World()
    first, second = world.recommend(session=["i7"]), world.recommend(session=["i7"])
    assert first["items"] == second["items"]
    assert first["request_id"] != second["request_id"]


@pytest.mark.parametrize("fault", ["raises", "slow"])
@pytest.mark.parametrize(
    ("stage", "rung", "expected"),
    [
        ("rerank", "no-rerank", ["i2", "i3", "i4"]),  # the ranker's order
        ("rank", "retrieval-order", ["i9", "i8", "i7"]),
        ("retrieve", "trending", ["i2", "i3", "i4"]),  # the popular list without the history
    ],
)
def test_a_stage_that_fails_or_is_late_is_replaced_by_the_next_rung(
    fault: str, stage: str, rung: str, expected: list[str]
) -> None:
    world = World(deadline_ms=300.0)
    world.graph.faults[stage] = fault
    rung_counter = telemetry.RUNGS_USED.labels("default", rung)
    before = rung_counter._value.get()
    answer = world.recommend()
    assert items(answer) == expected
    assert answer["degraded"] == [rung]
    assert rung_counter._value.get() == before + 1


def test_all_stages_down_still_answers_and_obeys_every_hard_rule() -> None:
    world = World()
    world.graph.faults = dict.fromkeys(("retrieve", "rank", "rerank"), "raises")
    answer = world.recommend(session=["i2"], exclude=["i3"], filters=Filters(categories=("even",)))
    assert items(answer) == ["i4", "i6", "i8"]
    assert answer["items"][0]["reason"] == "popular now"


def test_a_request_out_of_time_gets_the_popular_list() -> None:
    world = World(deadline_ms=60_000.0)
    world.graph.faults["retrieve"] = "slow"
    answer = world.recommend(deadline_ms=40.0)
    assert answer["degraded"] == ["trending"]
    assert answer["timings_ms"]["total"] < 1000  # 40 ms and the machine's noise, not a part of a minute


def test_each_stage_may_use_up_the_next_ones_share_and_no_more() -> None:
    world = World(deadline_ms=1000.0, budget_ms=BudgetSettings(history=10, retrieve=20, rank=50, rerank=20))
    world.recommend()
    limits = world.graph.timeouts
    # Ends of the shares: 100, 300, 800, 1000 ms of 1000, times 0.95; less the few ms that have passed.
    assert limits["retrieve"] == pytest.approx(0.95 * 0.8, abs=0.2)
    assert limits["rank"] == pytest.approx(0.95, abs=0.2)
    assert limits["rerank"] == pytest.approx(0.95, abs=0.2)
    assert max(limits.values()) <= 0.95


def test_what_trends_depends_on_the_context() -> None:
    world = World()
    world.graph.faults["retrieve"] = "raises"
    assert items(world.recommend("new")) == ["i0", "i1", "i2"]
    assert items(world.recommend("new", context={"tag": "odd"})) == ["i1", "i3", "i5"]


def test_an_unknown_user_is_answered_by_the_graph_with_an_empty_history() -> None:
    world = World()
    answer = world.recommend("never seen", context={"device": "tv"})
    assert items(answer) == ["i5", "i0", "i1"]
    assert answer["degraded"] == []
    _, _, query = world.graph.queries[0]
    assert len(query.history_L) == 0
    assert query.context == {"device": "tv"}


def test_state_down_means_no_history_and_no_experiment_but_an_answer() -> None:
    world = World()
    world.state_is_down = True
    answer = world.recommend()
    assert answer["degraded"] == ["no-history", "no-experiment"]
    assert items(answer) == ["i5", "i0", "i1"]


def test_unknown_items_of_a_session_are_ignored_and_counted() -> None:
    world = World()
    counter = telemetry.UNKNOWN_ITEMS.labels("default")
    before = counter._value.get()
    answer = world.recommend(session=["i7", "nowhere", "ünknown"], exclude=["gone"])
    _, _, query = world.graph.queries[0]
    assert query.history_L.tolist() == [0, 1, 7]
    assert items(answer) == ["i5", "i2", "i3"]
    assert counter._value.get() == before + 3


def test_unknown_context_keys_are_ignored_and_counted() -> None:
    world = World()
    counter = telemetry.UNKNOWN_CONTEXT.labels("default")
    before = counter._value.get()
    known = {"device": "tv", "local_time": "2026-11-24T18:30", "tag": "odd"}
    world.recommend(context=known | {"mood": "x"})
    _, _, query = world.graph.queries[0]
    assert query.context == known
    assert counter._value.get() == before + 1


def test_the_session_follows_the_history_and_each_item_stands_at_its_newest_place() -> None:
    world = World()
    world.histories["long"] = ["i0", "i1", "i2", "i3"]
    answer = world.recommend("long", session=["i1", "i9", "i9"], k=10)
    _, _, query = world.graph.queries[0]
    assert query.history_L.tolist() == [2, 3, 1, 9]  # the newest four, as settings say
    assert query.exclude.tolist() == [0]  # what no longer fits is still not shown again
    assert set(items(answer)).isdisjoint({"i0", "i1", "i2", "i3", "i9"})


def test_whatever_a_stage_answers_passes_the_hard_filter() -> None:
    world = World()
    answer = world.recommend(exclude=["i5", "i2"], filters=Filters(tags=("small", "grand")), k=10)
    assert items(answer) == ["i3", "i4", "i6", "i7", "i8", "i9"]


def test_filters_are_hard_rules() -> None:
    answer = World().recommend(filters=Filters(categories=("odd",), tags=("large",)), k=10)
    assert items(answer) == ["i5", "i7", "i9"]


def test_a_list_that_the_rules_leave_empty_is_empty() -> None:
    answer = World().recommend(filters=Filters(categories=("none",)))
    assert answer["items"] == []


def test_explain_adds_each_sources_own_score() -> None:
    first = World().recommend(explain=True)["items"][0]
    assert first["source_scores"] == {"two_tower": first["score"]}  # popular gave none


def test_a_variant_answers_from_its_own_bundle() -> None:
    world = World()
    world.assignment = variant()
    answer = world.recommend(origin="simulator")
    assert world.asked_assignment == [("old", "simulator")]
    assert (answer["experiment"], answer["variant"], answer["bundle"]) == ("exp", "B", "b" * 12)
    assert {sha256 for _, sha256, _ in world.graph.queries} == {"b" * 64}
    decision = world.decisions[0]
    assert (decision.experiment, decision.variant, decision.propensity) == ("exp", "B", 0.25)
    assert decision.propensities == (0.75, 0.25)
    assert decision.origin == "simulator"


def test_a_variants_policy_may_end_the_graph_early() -> None:
    world = World()
    world.assignment = variant(policy={"until": "rank"})
    answer = world.recommend()
    assert items(answer) == ["i2", "i3", "i4"]
    assert answer["degraded"] == []
    assert [name for name, _, _ in world.graph.queries] == ["retrieve", "rank"]


def test_an_answer_from_another_bundle_than_the_variants_is_outside_the_experiment() -> None:
    world = World()
    world.assignment = variant("shadow")
    answer = world.recommend()
    assert (answer["experiment"], answer["variant"], answer["bundle"]) == (None, None, "a" * 12)
    assert answer["degraded"] == ["champion"]
    assert world.decisions[0].experiment is None


def test_every_answer_leaves_a_decision_record() -> None:
    world = World()
    world.graph.faults["rerank"] = "raises"
    answer = world.recommend(context={"device": "tv"})
    (decision,) = world.decisions
    assert decision.request_id == answer["request_id"]
    assert (decision.user_id, decision.unit, decision.bundle) == ("old", "old", "a" * 12)
    assert list(decision.item_ids) == items(answer)
    assert list(decision.scores) == [item["score"] for item in answer["items"]]
    assert list(decision.source_masks) == [1, 1, 1]
    assert tuple(decision.rungs) == ("no-rerank",)
    assert decision.context == {"device": "tv"}
    assert decision.slot_propensity_kind == "none"


def test_the_eligible_set_is_named_by_bundle_and_hard_rules_alone() -> None:
    world = World()
    world.recommend()
    world.recommend(k=5, context={"device": "tv"})
    world.recommend(exclude=["i9"])
    hashes = [decision.eligible_hash for decision in world.decisions]
    assert hashes[0] == hashes[1] != hashes[2]


def test_before_the_first_bundle_the_answer_is_503() -> None:
    world = World()
    world.pins = {}
    with pytest.raises(Problem, match="no bundle is ready yet") as raised:
        world.recommend()
    assert raised.value.status == 503


def test_similar_never_shows_the_item_itself() -> None:
    world = World()
    answer = world.use(lambda gateway: gateway.similar("i4", 3))
    assert items(answer) == ["i0", "i1"]  # the fake proposes i4 itself first
    assert answer["items"][0]["reason"] == "like the item"


def test_similar_falls_back_to_what_trends() -> None:
    world = World()
    world.graph.faults["similar"] = "raises"
    answer = world.use(lambda gateway: gateway.similar("i0", 2))
    assert items(answer) == ["i1", "i2"]
    assert answer["degraded"] == ["trending"]


def test_similar_to_an_unknown_item_is_404() -> None:
    with pytest.raises(Problem, match="'nowhere' is not in the catalogue") as raised:
        World().use(lambda gateway: gateway.similar("nowhere", 3))
    assert (raised.value.status, raised.value.field) == (404, "item_id")


def test_decisions_that_the_log_cannot_take_are_counted_not_waited_for() -> None:
    async def refuse(_: Sequence[Decision]) -> int:
        raise StateError("cannot log decisions")

    dropped = telemetry.DECISIONS.labels("default", "dropped")
    before = dropped._value.get()
    world = World()
    world.append = refuse  # type: ignore[method-assign]
    assert len(items(world.recommend())) == 3
    assert dropped._value.get() == before + 1


def test_decisions_that_a_full_stream_refuses_are_counted() -> None:
    async def take_none(_: Sequence[Decision]) -> int:
        return 0

    dropped = telemetry.DECISIONS.labels("default", "dropped")
    before = dropped._value.get()
    world = World()
    world.append = take_none  # type: ignore[method-assign]
    world.recommend()
    assert dropped._value.get() == before + 1


def test_a_trending_list_reaches_behind_a_long_history() -> None:
    face = make_face()
    query = Query(history_L=np.arange(8, dtype=np.int32), k=2)
    assert face.trending(query).item_index.tolist() == [8, 9]
    query = Query(history_L=np.empty(0, np.int32), k=1, allowed=np.arange(NUM_ITEMS) == 9)
    assert face.trending(query).item_index.tolist() == [9]
