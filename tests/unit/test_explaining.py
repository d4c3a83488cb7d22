"""What the gateway tells of an item is what it answers, on a real bundle's stages."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from piped_world import ITEMS, PipedWorld
from tagged import open_bundle

from tastemaker.bundle.store import BundleStore
from tastemaker.config_serving import SheddingSettings
from tastemaker.users.profile import Profile
from tastemaker_services.gateway.details import telling_features
from tastemaker_services.gateway.explaining import Explainer
from tastemaker_services.web.problems import Problem
from tastemaker_services.web.question_schema import ExplainRequest, ExplainResponse
from tastemaker_services.web.schema import Filters


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Any:
    # No luck: what is told is of a request without it.
    return open_bundle(BundleStore(tmp_path_factory.mktemp("bundles")), exploration={"share": 0.0})


@pytest.fixture
def world(bundle: Any) -> PipedWorld:
    made = PipedWorld(bundle)
    made.histories = {"ann": ["i1", "i5", "i9"]}
    return made


def explain(world: PipedWorld, item_id: str, user_id: str = "ann", **fields: Any) -> dict[str, Any]:
    asked = ExplainRequest(**{"item_id": item_id, "user_id": user_id, "k": 3} | fields)
    told: dict[str, Any] = world.use(
        lambda gateway: Explainer(gateway, world.stages()).explain(asked, "live")
    )
    ExplainResponse.model_validate(told)
    return told


@settings(deadline=None, max_examples=25)
@given(
    user_id=st.sampled_from(["ann", "nobody"]),
    session=st.lists(st.sampled_from(ITEMS), max_size=3, unique=True),
    item_id=st.sampled_from(ITEMS),
    k=st.integers(1, 10),
)
def test_the_rank_that_is_told_is_the_rank_in_the_answer(
    bundle: Any, user_id: str, session: list[str], item_id: str, k: int
) -> None:
    world = PipedWorld(bundle)
    world.histories = {"ann": ["i1", "i5", "i9"]}
    answer = world.recommend(user_id, k=k, session=session)
    shown = [item["item_id"] for item in answer["items"]]
    told = explain(world, item_id, user_id, k=k, session=tuple(session))
    assert told["shown_rank"] == (shown.index(item_id) + 1 if item_id in shown else None)
    assert (told["verdict"] == "shown") == (item_id in shown)


@pytest.mark.parametrize(
    ("item_id", "request_", "rules"),
    [
        ("i1", {}, ["already-taken"]),
        ("i2", {"session": ("i2",)}, ["in-session"]),
        ("i2", {"exclude": ("i2",)}, ["excluded"]),
        ("i2", {"filters": Filters(categories=("c1",))}, ["filters.categories"]),
        (
            "i2",
            {"filters": Filters(tags=("t1",), categories=("c3",))},
            ["filters.categories", "filters.tags"],
        ),
        ("i3", {}, ["disliked-or-hidden"]),
        ("i1", {"exclude": ("i1",)}, ["excluded", "already-taken"]),
    ],
)
def test_hard_rules_are_named(
    world: PipedWorld, item_id: str, request_: dict[str, Any], rules: list[str]
) -> None:
    world.refused["ann"] = ["i3"]
    told = explain(world, item_id, **request_)
    assert (told["verdict"], told["rules"]) == ("hard-rule", rules)
    assert all(rule in told["why"] for rule in rules)
    assert told["shown_rank"] is None
    assert told["features"], "what the ranker would read is told all the same"
    assert told["stages"]["rank"]["would_rank"] is not None


def test_sources_tell_of_an_item_that_none_proposes(world: PipedWorld) -> None:
    told = explain(world, "i1", exclude=("i1",))
    assert [said["source"] for said in told["sources"]] == ["two_tower", "ease", "als", "popular"]
    assert all(said["rank"] is None for said in told["sources"])
    assert all(said["score"] is not None for said in told["sources"])


def test_who_opted_out_and_who_is_unknown_are_explained_too(world: PipedWorld) -> None:
    world.profiles["ann"] = Profile(personalise=False)
    for user_id in ("ann", "nobody"):
        told = explain(world, "i1", user_id)
        assert told["rules"] == []
        assert told["personalised"] == (user_id == "nobody")
        assert {said["source"] for said in told["sources"] if said["score"] is not None} >= {"popular"}


def test_an_unknown_item_is_404(world: PipedWorld) -> None:
    with pytest.raises(Problem, match="'nowhere' is not in the catalogue") as raised:
        explain(world, "nowhere")
    assert (raised.value.status, raised.value.field) == (404, "item_id")


@pytest.mark.parametrize(
    ("fault", "verdict"), [("retrieve", "unknown"), ("say", None), ("rank", None), ("reorder", None)]
)
def test_a_part_that_does_not_answer_is_named(world: PipedWorld, fault: str, verdict: str | None) -> None:
    world.graph.faults = {fault: "raises"}
    told = explain(world, "i13")
    assert fault in told["degraded"]
    assert told["verdict"] == (verdict or told["verdict"])


def test_nothing_is_logged_of_an_explanation(world: PipedWorld) -> None:
    explain(world, "i13")
    assert world.decisions == []


def test_an_explained_answer_says_ranks_and_features(world: PipedWorld) -> None:
    answer = world.recommend("ann", k=5, explain=True)
    for item in answer["items"]:
        told = explain(world, item["item_id"], k=5)
        ranks = {"retrieve": "retrieved", "rank": "ranked", "rerank": "shown"}
        assert set(item["ranks"]) == set(ranks)
        assert item["ranks"]["rerank"] == item["rank"] == told["shown_rank"]
        assert item["ranks"]["rank"] == told["stages"]["rank"]["rank"]
        assert item["ranks"]["retrieve"] == told["stages"]["retrieve"]["rank"]
        for name, value in item["features"].items():
            assert value == pytest.approx(told["features"][name])
    plain = world.recommend("ann", k=5)
    assert [item["item_id"] for item in plain["items"]] == [item["item_id"] for item in answer["items"]]
    assert "ranks" not in plain["items"][0]


def test_items_that_fit_the_history_name_one_of_it(world: PipedWorld) -> None:
    answer = world.recommend("ann", k=8)
    named = {item["item_id"]: item["because"] for item in answer["items"] if item["because"]}
    assert named
    assert set(named.values()) <= {"i1", "i5", "i9"}  # all of tag t1
    assert all(int(item_id[1:]) % 4 == 1 for item_id in named)
    assert {i["reason"] for i in answer["items"] if i["because"]} == {"like what was taken"}


def test_telling_features_are_those_furthest_from_the_mean() -> None:
    from gateway_world import candidates

    slate = candidates([0, 1, 2])
    # Means 2, 5 and 0; deviations root 2, 0 and root 2/3.
    values = np.array([[0, 5, 0], [3, 5, -1], [3, 5, 1]], np.float32)
    from dataclasses import replace

    found = telling_features(replace(slate, features_KF=values), ("a", "b", "c"))
    assert [list(one) for one in found] == [["a"], ["c", "a"], ["c", "a"]]
    assert found[1] == {"c": -1.0, "a": 3.0}
    assert telling_features(slate, ("a",)) == []


def test_an_explanation_gives_way_to_answers(bundle: Any) -> None:
    full = PipedWorld(bundle, shedding=SheddingSettings(max_in_flight=1, batch_share=0.5))
    with pytest.raises(Problem, match="requests are under way") as raised:
        explain(full, "i13")
    assert raised.value.status == 429


@pytest.mark.parametrize("item_id", ["i2", "i6"])
def test_what_the_features_add_is_the_score_that_is_told(world: PipedWorld, item_id: str) -> None:
    told = explain(world, item_id, k=5)
    added = told["contributions"]
    assert added["base"] + sum(added["features"].values()) + added["rest"] == pytest.approx(added["log_odds"])
    stage = told["stages"]["rank"]
    score = stage["score"] if stage["score"] is not None else stage["would_score"]
    assert 1 / (1 + np.exp(-added["log_odds"])) == pytest.approx(score, abs=1e-4)
    sizes = [abs(value) for value in added["features"].values()]
    assert sizes == sorted(sizes, reverse=True)
    assert 0 not in sizes


def test_where_no_ranker_answers_nothing_is_told_of_its_score(world: PipedWorld) -> None:
    world.graph.faults = {"rank": "raises"}
    assert explain(world, "i2")["contributions"] is None
