"""One request's way through the gateway: fallbacks, assignment, and what unknown users and items do."""

import numpy as np
import pytest
from gateway_world import NUM_ITEMS, World, items, make_face, variant

from tastemaker import telemetry
from tastemaker.config_serving import BudgetSettings
from tastemaker.types import Query
from tastemaker_services.gateway.listing import Listing
from tastemaker_services.gateway.users import User
from tastemaker_services.web.problems import Problem
from tastemaker_services.web.question_schema import SimilarRequest
from tastemaker_services.web.schema import Filters


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
        ("retrieve", "popular", ["i2", "i3", "i4"]),  # the popular list without the history
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
    assert answer["degraded"] == ["popular"]
    assert answer["timings_ms"]["total"] < 30_000  # not the minute that the stage would have taken


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


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        ((), ["i6", "i7", "i8"]),  # of the user's own order: i5, i3 and i4 are refused, i2 is excluded
        (("rerank",), ["i6", "i7", "i8"]),
        (("rank",), ["i9", "i8", "i7"]),
        (("retrieve",), ["i6", "i7", "i8"]),
    ],
)
def test_what_a_user_refused_is_shown_on_no_rung(faults: tuple[str, ...], expected: list[str]) -> None:
    world = World()
    world.refused["old"] = ["i5", "i3", "i4", "gone from the catalogue"]
    world.graph.faults = dict.fromkeys(faults, "raises")
    assert items(world.recommend(exclude=["i2"])) == expected


def test_a_record_of_another_release_costs_what_it_says_not_the_history() -> None:
    class Newer(World):
        async def read_user(self, user_id: str) -> User:
            return User(["i0", "i1"], None, b"v")

    answer = Newer().recommend()
    assert answer["degraded"] == ["no-record"]
    assert items(answer) == ["i5", "i2", "i3"]


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


def test_before_the_first_bundle_the_answer_is_503() -> None:
    world = World()
    world.pins = {}
    with pytest.raises(Problem, match="no bundle is ready yet") as raised:
        world.recommend()
    assert raised.value.status == 503


def test_similar_never_shows_the_item_itself() -> None:
    world = World()
    answer = world.use(lambda gateway: Listing(gateway).similar(SimilarRequest(item_id="i4", k=3)))
    assert items(answer) == ["i0", "i1"]  # the fake proposes i4 itself first
    assert answer["items"][0]["reason"] == "like the item"


def test_similar_falls_back_to_what_trends() -> None:
    world = World()
    world.graph.faults["similar"] = "raises"
    answer = world.use(lambda gateway: Listing(gateway).similar(SimilarRequest(item_id="i0", k=2)))
    assert items(answer) == ["i1", "i2"]
    assert answer["degraded"] == ["popular"]


@pytest.mark.parametrize("fault", [{}, {"similar": "raises"}])
def test_where_nothing_fits_nothing_is_similar_and_no_rung_is_told(fault: dict[str, str]) -> None:
    world = World()
    world.graph.faults = fault
    asked = SimilarRequest(item_id="i0", k=2, filters=Filters(categories=("none",)))
    answer = world.use(lambda gateway: Listing(gateway).similar(asked))
    assert (items(answer), answer["degraded"], answer["notes"]) == ([], [], ["nothing-fits"])


def test_similar_to_an_unknown_item_is_404() -> None:
    with pytest.raises(Problem, match="'nowhere' is not in the catalogue") as raised:
        World().use(lambda gateway: Listing(gateway).similar(SimilarRequest(item_id="nowhere", k=3)))
    assert (raised.value.status, raised.value.field) == (404, "item_id")


def test_a_trending_list_reaches_behind_a_long_history() -> None:
    face = make_face()
    query = Query(history_L=np.arange(8, dtype=np.int32), k=2)
    assert face.trending(query).item_index.tolist() == [8, 9]
    query = Query(history_L=np.empty(0, np.int32), k=1, allowed=np.arange(NUM_ITEMS) == 9)
    assert face.trending(query).item_index.tolist() == [9]
