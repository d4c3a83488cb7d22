"""Experiments of several layers at the gateway: what is merged, what is said of it, and what is logged."""

import json
from typing import Any

import pytest
from gateway_world import World

from tastemaker.errors import ExperimentError
from tastemaker.experiments.assigned import Assigned
from tastemaker.experiments.assignment import Assignment
from tastemaker.experiments.decision_log import (
    decision_table,
    decisions_in,
    decode_decision,
    encode_decision,
    logged_assignments,
)
from tastemaker.users.profile import Demographics, Profile
from tastemaker_services.web.access import EVERY_SCOPE, VARIANT_HEADER, variants_of
from tastemaker_services.web.problems import Problem


def assignment(experiment: str, layer: str, alias: str = "champion", **fields: Any) -> Assignment:
    return Assignment(
        experiment,
        "b",
        alias,
        0.25,
        (0.75, 0.25),
        "fixed",
        "h",
        layer=layer,
        unit=fields.pop("unit", "old"),
        **fields,
    )


BUNDLE = assignment("front", "default", "challenger")
ORDER = assignment("order", "order", policy={"until": "rank"}, unit="visit-7")
SOURCES = assignment("sources", "sources", policy={"source_weights": {"popular": 2.0}})


def test_policies_of_all_layers_reach_the_stages_with_the_one_bundle() -> None:
    world = World()
    world.assigned = Assigned((BUNDLE, ORDER, SOURCES))
    answer = world.recommend()
    assert (answer["experiment"], answer["variant"], answer["bundle"]) == ("front", "b", "b" * 12)
    assert answer["assignments"][1] == {
        "layer": "order",
        "experiment": "order",
        "variant": "b",
        "forced": False,
    }
    assert [name for name, _, _ in world.graph.queries] == ["retrieve", "rank"]
    query = world.graph.queries[0][2]
    assert json.loads(query.policy) == {"until": "rank", "source_weights": {"popular": 2.0}}


def test_the_record_holds_every_layers_assignment_and_comes_back() -> None:
    world = World()
    world.assigned = Assigned((BUNDLE, ORDER))
    world.recommend()
    (decision,) = world.decisions
    assert (decision.experiment, decision.variant, decision.unit) == ("front", "b", "old")
    first, second = logged_assignments(decision)
    assert first == {
        "layer": "default", "experiment": "front", "variant": "b", "unit": "old", "epoch": 0, "propensity": 0.25,
        "propensities": [0.75, 0.25], "policy_version": "fixed", "policy_hash": "h",
    }  # fmt: skip
    assert (second["layer"], second["unit"]) == ("order", "visit-7")
    back = decode_decision(encode_decision(decision))
    assert logged_assignments(back) == [first, second]

    class Row:
        json, received_ms = encode_decision(decision), 1

    (from_days,) = decisions_in(decision_table([Row]))  # type: ignore[list-item]
    assert logged_assignments(from_days) == [first, second]
    assert (from_days.held_out, from_days.forced_variants) == (False, [])


def test_a_record_of_an_earlier_release_has_one_assignment() -> None:
    old = (
        '{"decision_id":"d","request_id":"d","timestamp_ms":1,"catalogue":"c","origin":"live","unit":"u","user_id":"u",'
        '"bundle":"b","experiment":"front","variant":"a","epoch":3,"propensity":0.5,"propensities":[0.5,0.5],'
        '"policy_version":"fixed","policy_hash":"h"}'
    )
    (one,) = logged_assignments(decode_decision(old))
    assert (one["layer"], one["experiment"], one["unit"], one["propensities"]) == (
        "default",
        "front",
        "u",
        [0.5, 0.5],
    )
    assert logged_assignments(decode_decision(old.replace('"experiment":"front",', ""))) == []


def test_of_several_layers_without_a_default_the_single_fields_stay_empty() -> None:
    world = World()
    world.assigned = Assigned((ORDER, SOURCES))
    answer = world.recommend()
    assert (answer["experiment"], len(answer["assignments"])) == (None, 2)
    assert world.decisions[0].experiment is None
    assert len(world.decisions[0].assignments) == 2


def test_a_bundle_that_does_not_answer_puts_its_own_experiment_alone_aside() -> None:
    world = World()
    world.assigned = Assigned((assignment("front", "default", "nowhere"), ORDER))
    answer = world.recommend()
    assert (answer["bundle"], answer["degraded"]) == ("a" * 12, ["champion"])
    assert [one["experiment"] for one in answer["assignments"]] == ["order"]
    assert [one["experiment"] for one in logged_assignments(world.decisions[0])] == ["order"]


def test_what_a_tester_asked_for_is_told_and_counts_in_no_experiment() -> None:
    world = World()
    world.assigned = Assigned(forced=(BUNDLE,))
    answer = world.recommend()
    assert (answer["experiment"], answer["variant"], answer["bundle"]) == ("front", "b", "b" * 12)
    assert answer["assignments"][0]["forced"] is True
    (decision,) = world.decisions
    assert (decision.experiment, decision.propensity, logged_assignments(decision)) == (None, None, [])
    assert list(decision.forced_variants) == ["front=b"]


def test_a_user_of_the_holdout_is_logged_as_such() -> None:
    world = World()
    world.assigned = Assigned(held_out=True)
    assert world.recommend()["assignments"] == []
    assert world.decisions[0].held_out
    assert decode_decision(encode_decision(world.decisions[0])).held_out


def test_assignment_sees_context_profile_and_ids_but_nothing_of_who_opted_out() -> None:
    world = World()
    known = Demographics(age=40, gender="f", more={"plan": "pro"})
    world.profiles = {"new": Profile(known), "out": Profile(known, personalise=False)}
    world.recommend("new", context={"device": "tv"}, visitor_id="v", session_id="s")
    world.recommend("old")
    world.recommend("out")
    world.recommend("new", personalise=False)
    seen, old, out, asked_so = world.subjects
    assert (seen.visitor_id, seen.session_id, dict(seen.context)) == ("v", "s", {"device": "tv"})
    assert dict(seen.attributes) == {"age": "40", "gender": "f", "plan": "pro"}
    assert (seen.is_known, old.is_known) == (False, True)
    assert [(one.is_known, dict(one.attributes)) for one in (out, asked_so)] == [(None, {}), (None, {})]


def test_a_variant_that_is_not_there_is_told_to_the_tester() -> None:
    world = World()

    async def refuse(*_: Any) -> Assigned:
        raise ExperimentError("forced experiment", value="none", limit="one of: front")

    world.assign = refuse  # type: ignore[method-assign]
    with pytest.raises(
        Problem, match=r"x-tastemaker-variant: forced experiment, is 'none', must be one of: front"
    ):
        world.recommend()


@pytest.mark.parametrize("header", ["front", "front=", "=b", "front=a,front=b", "", "front=a,"])
def test_a_header_that_names_no_variant_is_refused(header: str) -> None:
    with pytest.raises(Problem, match="must be experiment=variant"):
        variants_of(header, EVERY_SCOPE)


def test_only_an_admins_key_may_ask_for_a_variant() -> None:
    assert variants_of(None, frozenset({"read"})) == {}
    with pytest.raises(Problem, match=f"{VARIANT_HEADER} needs a key with scope admin"):
        variants_of("front=b", frozenset({"read"}))
