"""What the gateway logs of each answer, and what it does where the log takes nothing."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from gateway_world import World, items

from tastemaker import telemetry
from tastemaker.errors import StateError
from tastemaker.experiments.decision_log import Decision, decode_decision, encode_decision
from tastemaker.types import Candidates


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


def test_the_record_has_the_chance_of_each_slot_that_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    world, chances = World(), np.linspace(1, 0.1, 10).astype(np.float32)
    stages = world.graph.stages()

    async def by_luck(call: Any, timeout_seconds: float) -> Candidates:
        return replace(await stages.rerank(call, timeout_seconds), propensity=chances)

    monkeypatch.setattr(world, "stages", lambda: replace(stages, rerank=by_luck))
    world.recommend()  # the list is i5, i0, i1, i2, i3: each that is left keeps its own
    (decision,) = world.decisions
    assert decision.slot_propensity_kind == "exact"
    assert list(decision.slot_propensity) == pytest.approx(chances[[0, 3, 4]].tolist())
    assert decode_decision(encode_decision(decision)).slot_propensity == list(decision.slot_propensity)


def test_a_share_of_the_answers_keep_the_features_of_their_slate() -> None:
    world = World(features_share=1.0)
    world.recommend()
    (decision,) = world.decisions
    assert tuple(decision.feature_names) == ("row", "minus_row")
    assert list(decision.features) == [
        n for item in decision.item_ids for n in (int(item[1:]), -int(item[1:]))
    ]
    for share, fault in ((0.0, "rerank"), (1.0, "rank")):  # of retrieval's order nothing was read
        world = World(features_share=share)
        world.graph.faults[fault] = "raises"
        world.recommend()
        assert (list(world.decisions[0].features), len(world.decisions[0].item_ids)) == ([], 3)


def test_the_eligible_set_is_named_by_bundle_and_hard_rules_alone() -> None:
    world = World()
    world.recommend()
    world.recommend(k=5, context={"device": "tv"})
    world.recommend(exclude=["i9"])
    hashes = [decision.eligible_hash for decision in world.decisions]
    assert hashes[0] == hashes[1] != hashes[2]


async def refused(_: Sequence[Decision]) -> int:
    raise StateError("cannot log decisions")


async def none_taken(_: Sequence[Decision]) -> int:
    """As a full stream."""
    return 0


@pytest.mark.parametrize("append", [refused, none_taken])
def test_decisions_that_the_log_does_not_take_are_counted_not_waited_for(append: Any) -> None:
    dropped = telemetry.DECISIONS.labels("default", "dropped")
    before = dropped._value.get()
    world = World()
    world.append = append  # type: ignore[method-assign]
    assert len(items(world.recommend())) == 3
    assert dropped._value.get() == before + 1
