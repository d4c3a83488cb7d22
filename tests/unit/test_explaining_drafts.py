"""What is told of an item where a user gets two variants' picks in one list, on two real bundles' stages."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from piped_world import ITEMS, PipedWorld
from tagged import open_bundle

from tastemaker.bundle.store import BundleStore
from tastemaker.experiments.allocation import Interleaving
from tastemaker.experiments.assigned import Assigned
from tastemaker.experiments.assignment import assign_interleaved
from tastemaker.experiments.definition import Experiment, Variant
from tastemaker.experiments.interleaving import draft_salt, team_draft
from tastemaker_services.gateway.explaining import Explainer
from tastemaker_services.web.problems import Problem
from tastemaker_services.web.question_schema import ExplainRequest, ExplainResponse

NOW, THEN = (
    Variant(name="now", alias="champion", policy={"until": "retrieve"}),
    Variant(name="then", alias="challenger"),
)
DUEL = Experiment(name="duel", hypothesis="h", salt="s", variants=(NOW, THEN), allocation=Interleaving())
NEW = "i-new"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Any:
    # No luck: what is told is of a request without it. The second holds an item that the first lacks.
    store = BundleStore(tmp_path_factory.mktemp("bundles"))
    return [open_bundle(store, ids, exploration={"share": 0.0}) for ids in (None, [*ITEMS, NEW])]


def world_of(bundles: Any, assigned: Assigned | None = None) -> PipedWorld:
    world = PipedWorld(bundles[0])
    world.add("challenger", bundles[1])
    world.histories = {"ann": ["i1", "i5", "i9"]}
    world.assigned = assigned or Assigned((assign_interleaved(DUEL, "ann"),))
    return world


def alone(bundles: Any, team: int, k: int) -> list[str]:
    """The list of one variant, as a tester gets it."""
    forced = assign_interleaved(DUEL, "ann").teams[team]
    answer = world_of(bundles, Assigned(forced=(forced,))).recommend("ann", k=k)
    return [item["item_id"] for item in answer["items"]]


def explain(world: PipedWorld, item_id: str, **fields: Any) -> dict[str, Any]:
    asked = ExplainRequest(**{"item_id": item_id, "user_id": "ann", "k": 3} | fields)
    told: dict[str, Any] = world.use(
        lambda gateway: Explainer(gateway, world.stages()).explain(asked, "live")
    )
    ExplainResponse.model_validate(told)
    return told


@settings(deadline=None, max_examples=15)
@given(st.sampled_from([*ITEMS, NEW]), st.integers(1, 8))
def test_ranks_are_those_of_both_lists_and_the_team_is_that_of_the_draft(
    bundles: Any, item_id: str, k: int
) -> None:
    lists = [alone(bundles, team, k) for team in (0, 1)]
    told = explain(world_of(bundles), item_id, k=k)
    assert [one["variant"] for one in told["lists"]] == ["now", "then"]
    ranks = [own.index(item_id) + 1 if item_id in own else None for own in lists]
    assert [one["shown_rank"] for one in told["lists"]] == ranks
    numbers = {item: n for n, item in enumerate([*ITEMS, NEW])}
    draft = team_draft(
        *([numbers[item] for item in own] for own in lists), k, draft_salt("duel", 0), told["request_id"]
    )
    if numbers[item_id] in draft.items:
        place = draft.items.index(numbers[item_id])
        team = draft.team[place]
        assert (told["verdict"], told["shown_rank"]) == ("shown", place + 1)
        assert told["team"] == (None if team is None else ("now", "then")[team])
    else:
        assert (told["shown_rank"], told["team"]) == (None, None)
        assert told["verdict"] != "shown"


def test_an_item_that_one_bundle_lacks_is_told_of_by_the_other(bundles: Any) -> None:
    told = explain(world_of(bundles), NEW)
    first, second = told["lists"]
    assert (first["verdict"], first["why"], first["sources"]) == (
        "not-in-bundle",
        "the bundle lacks the item",
        [],
    )
    assert second["verdict"] != "not-in-bundle"
    assert len(second["sources"]) == 4
    assert told["sources"] == second["sources"]
    with pytest.raises(Problem, match="'nowhere' is not in the catalogue"):
        explain(world_of(bundles), "nowhere")


def test_where_one_list_does_not_come_the_other_is_told_alone(bundles: Any) -> None:
    world = world_of(bundles)
    world.graph.faults = {"rank": "raises"}  # which only the challenger's way needs
    shown = alone(bundles, 0, 3)
    told = explain(world, shown[0])
    assert (told["shown_rank"], told["team"]) == (1, None)
    assert told["degraded"] == ["not-interleaved", "rank"]


def test_a_users_hard_rules_hold_for_both(bundles: Any) -> None:
    told = explain(world_of(bundles), "i1")
    assert (told["verdict"], told["rules"], told["team"]) == ("hard-rule", ["already-taken"], None)
    assert [one["rules"] for one in told["lists"]] == [["already-taken"]] * 2
