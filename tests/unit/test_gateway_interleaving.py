"""Lists of two variants' picks at the gateway: whose picks they are, what is logged, and when nothing is counted.

The graph of `gateway_world` answers i9 … i0 after retrieval, i0 … i9 after ranking and i5 first after reranking; "old" has taken i0 and i1.
"""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from gateway_world import SHA, World, candidates, items, make_face
from prometheus_client import REGISTRY

from tastemaker.events.log import Entry
from tastemaker.experiments.allocation import Interleaving
from tastemaker.experiments.assigned import Assigned
from tastemaker.experiments.assignment import Assignment, assign_interleaved
from tastemaker.experiments.decision_log import (
    Decision,
    decision_table,
    decisions_in,
    encode_decision,
    logged_assignments,
)
from tastemaker.experiments.definition import Experiment, Variant
from tastemaker.experiments.interleaving import LoggedSide
from tastemaker_services.gateway.cache import Kept
from tastemaker_services.gateway.interleaving import drafted
from tastemaker_services.gateway.pages import PagedList
from tastemaker_services.gateway.pins import Pin

RANKED, RETRIEVED = (
    Variant(name="ranked", alias="champion", policy={"until": "rank"}),
    Variant(name="retrieved", alias="champion", policy={"until": "retrieve"}),
)
FACE = make_face()


def interleaving(*variants: Variant, **fields: Any) -> Experiment:
    return Experiment(
        name="duel", hypothesis="h", salt="s", variants=variants, allocation=Interleaving(), **fields
    )


def world_of(*variants: Variant) -> World:
    world = World()
    world.assigned = Assigned((assign_interleaved(interleaving(*variants), "old"),))
    return world


def served(variant: str) -> float:
    labels = {"catalogue": "default", "experiment": "duel", "variant": variant}
    return REGISTRY.get_sample_value("tastemaker_experiment_served_total", labels) or 0.0


def not_counted() -> float:
    labels = {"catalogue": "default", "kind": "interleaving"}
    return REGISTRY.get_sample_value("tastemaker_experiment_not_counted_total", labels) or 0.0


def test_a_list_holds_both_variants_picks_and_the_record_says_whose_each_is() -> None:
    world = world_of(RANKED, RETRIEVED)
    before = served("ranked"), served("retrieved")
    answer = world.recommend(k=4)
    assert sorted(items(answer)) == ["i2", "i3", "i8", "i9"]  # the two best of each
    assert (answer["experiment"], answer["variant"], answer["degraded"]) == ("duel", "interleaved", [])
    (decision,) = read_back(world)
    own = {"i2": 0, "i3": 0, "i9": 1, "i8": 1}
    assert decision.slot_team == [own[item] for item in decision.item_ids]
    (logged,) = logged_assignments(decision)
    assert (logged["variant"], logged["teams"]) == ("interleaved", ["ranked", "retrieved"])
    assert (logged["propensity"], decision.slot_propensity_kind, decision.policy) == (1.0, "none", "")
    assert (served("ranked"), served("retrieved")) == (before[0] + 1, before[1] + 1)


def read_back(world: World) -> list[Decision]:
    """The decisions that the gateway logged, as analyses read them."""
    return decisions_in(decision_table([Entry("1-0", encode_decision(one)) for one in world.decisions]))


def test_an_explained_list_says_whose_each_is_and_where_it_stands_in_both_lists() -> None:
    world = world_of(RANKED, RETRIEVED)
    answer = world.recommend(k=4, explain=True)
    told = {item["item_id"]: (item["team"], item["team_ranks"]) for item in answer["items"]}
    assert told == {
        "i2": ("ranked", {"ranked": 1}),  # i0 and i1 are taken
        "i3": ("ranked", {"ranked": 2}),
        "i9": ("retrieved", {"retrieved": 1}),
        "i8": ("retrieved", {"retrieved": 2}),
    }
    assert all(set(item) == set(answer["items"][0]) for item in answer["items"])
    plain = world_of(RANKED, RETRIEVED).recommend(k=4)
    assert not {"team", "team_ranks"} & set(plain["items"][0])


def test_the_record_says_what_made_both_lists() -> None:
    world = world_of(RANKED, Variant(name="other", alias="challenger"))
    world.standing = json.dumps({"reranking": {"rules": [{"kind": "block", "match": {"item_ids": ["i4"]}}]}})
    world.recommend(k=4)
    (decision,) = read_back(world)
    sides = [LoggedSide.of_logged(text) for text in decision.sides]
    assert [side.bundle for side in sides] == [SHA["champion"][:12], SHA["challenger"][:12]]
    assert json.loads(sides[0].policy)["until"] == "rank"
    assert all("block" in side.policy for side in sides)
    (logged,) = logged_assignments(decision)
    assert logged["generation"] == 0
    world.assigned = Assigned()
    world.recommend(k=4)
    assert [list(one.sides) for one in world.decisions[1:]] == [[]]


def test_both_bundles_are_asked_each_under_its_own_policy() -> None:
    world = world_of(RANKED, Variant(name="other", alias="challenger", policy={"until": "retrieve"}))
    answer = world.recommend(k=4, explain=True)
    assert answer["items"][items(answer).index("i2")]["ranks"] == {"retrieve": 8, "rank": 3}
    asked = {
        (name, sha256[0], json.loads(query.policy)["until"]) for name, sha256, query in world.graph.queries
    }
    assert asked == {("retrieve", "a", "rank"), ("rank", "a", "rank"), ("retrieve", "b", "retrieve")}
    assert sorted(items(answer)) == ["i2", "i3", "i8", "i9"]
    assert answer["bundle"] == SHA["champion"][:12]


@pytest.mark.parametrize(("stage", "left"), [("rank", "retrieved"), ("retrieve", None)])
def test_where_one_fails_the_other_is_shown_alone_and_nothing_is_counted(
    stage: str, left: str | None
) -> None:
    world = world_of(RANKED, RETRIEVED)
    world.graph.faults[stage] = "raises"
    before = served("ranked"), served("retrieved"), not_counted()
    answer = world.recommend(k=3)
    assert answer["experiment"] is None
    assert answer["degraded"][-1] == "not-interleaved"
    (decision,) = world.decisions
    assert (decision.assignments, decision.experiment, list(decision.slot_team)) == ([], None, [])
    assert (served("ranked"), served("retrieved"), not_counted()) == (*before[:2], before[2] + 1)
    if left == "retrieved":
        assert items(answer) == ["i9", "i8", "i7"]
        assert answer["degraded"] == ["not-interleaved"]


def test_a_bundle_that_is_not_ready_leaves_the_champion_alone() -> None:
    world = world_of(Variant(name="a", alias="champion"), Variant(name="b", alias="challenger"))
    del world.pins["challenger"]
    answer = world.recommend()
    assert (items(answer), answer["degraded"], answer["experiment"]) == (
        ["i5", "i2", "i3"],
        ["not-interleaved"],
        None,
    )


def test_under_the_kill_switch_no_second_list_is_made() -> None:
    world = world_of(RANKED, RETRIEVED)
    world.forced = "popular"
    answer = world.recommend()
    assert answer["experiment"] is None
    assert world.graph.queries == []


def test_a_testers_variant_is_one_alone() -> None:
    world = World()
    forced = assign_interleaved(interleaving(RANKED, RETRIEVED), "old").teams[1]
    world.assigned = Assigned(forced=(forced,))
    assert items(world.recommend()) == ["i9", "i8", "i7"]


def test_other_layers_policies_stand_beside_both() -> None:
    world = world_of(RANKED, RETRIEVED)
    assert world.assigned is not None
    other = Assignment(
        "weights",
        "b",
        "champion",
        0.5,
        (0.5, 0.5),
        "fixed",
        "h",
        policy={"source_weights": {"popular": 2.0}},
        layer="w",
    )
    world.assigned = Assigned((*world.assigned.assignments, other))
    world.recommend()
    assert {json.loads(query.policy)["source_weights"]["popular"] for _, _, query in world.graph.queries} == {
        2.0
    }
    (decision,) = world.decisions
    assert json.loads(decision.policy) == {"source_weights": {"popular": 2.0}}
    assert [one["experiment"] for one in logged_assignments(decision)] == ["duel", "weights"]


def test_what_the_champion_lacks_is_shown_in_the_challengers_rows() -> None:
    world = world_of(RANKED, Variant(name="new", alias="challenger", policy={"until": "retrieve"}))
    newer = make_face("challenger")
    newer.item_ids = [*newer.item_ids, "i10"]
    rows = {item: row for row, item in enumerate(newer.item_ids)}
    newer._row_of = rows.get
    newer.overlay = type(newer.overlay).none(11)
    world.pins["challenger"] = Pin(2, newer)
    plain = world.graph._stage

    async def retrieve(call: Any, timeout_seconds: float) -> Any:
        return await plain("retrieve", [10, 9, 8] if call[0] == SHA["challenger"] else range(9, -1, -1))(
            call, timeout_seconds
        )

    stages = world.graph.stages()
    world.stages = lambda: replace(stages, retrieve=retrieve)
    answer = world.recommend(k=4, explain=True)
    assert "i10" in items(answer)
    ranks = {item["item_id"]: item["ranks"] for item in answer["items"]}
    assert ranks["i10"] == {"retrieve": 1}  # by the challenger's own stages, in its own rows
    assert ranks["i2"] == {"retrieve": 8, "rank": 3}
    assert (answer["bundle"], answer["degraded"]) == (SHA["challenger"][:12], [])
    assert sorted(world.decisions[0].slot_team) == [0, 0, 1, 1]


def test_what_neither_bundle_knows_whole_is_not_interleaved() -> None:
    world = world_of(RANKED, Variant(name="new", alias="challenger", policy={"until": "retrieve"}))
    strange = make_face("challenger")
    strange.item_ids = ["i0", "i1", *(f"x{n}" for n in range(2, 10))]
    strange._row_of = {item: row for row, item in enumerate(strange.item_ids)}.get
    world.pins["challenger"] = Pin(2, strange)
    answer = world.recommend(k=3)
    assert (items(answer), answer["degraded"]) == (["i2", "i3", "i4"], ["not-interleaved"])


def test_kept_lists_and_pages_keep_their_teams() -> None:
    slate = drafted(FACE, candidates(range(5)), candidates(range(4, -1, -1)), 5, "s", "r")
    kept = Kept.decode(Kept(b"v", "r", 1, slate).encode(), 2)
    assert kept is not None
    assert kept.slate.team is not None
    assert slate.team is not None
    assert kept.slate.team.tolist() == slate.team.tolist()
    ids = [{"item_id": FACE.item_ids[row], "score": 1.0} for row in slate.item_index]
    one = assign_interleaved(interleaving(RANKED, RETRIEVED), "old")
    paged = PagedList(
        "r", 1, ("b", 1), "{}", True, ids, slate.source_mask.tolist(), Assigned((one,)), slate.team.tolist()
    )
    again = PagedList.decode(paged.encode())
    assert again is not None
    assert again.teams == tuple(slate.team.tolist())
    (drawn,) = again.assigned.assignments
    assert [team.variant for team in drawn.teams] == ["ranked", "retrieved"]


def test_a_page_has_the_teams_of_its_own_places() -> None:
    world = World()
    query = asyncio.run(_query(world))
    slate = drafted(FACE, candidates(range(2, 8)), candidates(range(7, 1, -1)), 6, "s", "r")
    assert slate.team is not None
    ids = [{"item_id": FACE.item_ids[row], "score": 1.0} for row in slate.item_index]
    paged = PagedList(
        "r", 1, ("b", 1), "{}", True, ids, slate.source_mask.tolist(), teams=slate.team.tolist()
    )
    page = paged.page(FACE, replace(query, k=3), 2)
    assert page.slate.team is not None
    assert page.slate.team.tolist() == slate.team.tolist()[2:5]


async def _query(world: World) -> Any:
    seen: list[Any] = []
    world.answered = lambda one: seen.append(one.query)
    await asyncio.to_thread(world.recommend)
    return seen[0]
