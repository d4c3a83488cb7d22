"""Experiments as they are kept, and whom the router assigns to what, on a real Valkey."""

import asyncio
import importlib
from typing import Any

import pytest

from tastemaker.errors import ExperimentError, StateError
from tastemaker.experiments.definition import Experiment, Fixed, Thompson, Variant
from tastemaker.experiments.eligibility import Subject
from tastemaker.experiments.posterior import Posterior
from tastemaker.experiments.router import Router, draw
from tastemaker.experiments.store import ExperimentStore
from tastemaker.state.connection import connect_async

NOW_MS = 1_750_000_000_000
DAY_MS = 86_400_000


def experiment(name: str = "exp", **fields: Any) -> Experiment:
    defaults = {
        "hypothesis": "h", "salt": "s",
        "variants": (Variant(name="a", alias="champion"), Variant(name="b", alias="challenger")),
        "allocation": Fixed(weights=(0.5, 0.5)),
    }  # fmt: skip
    return Experiment(name=name, **defaults | fields)


SAME = tuple(Variant(name=name, alias="champion") for name in "ab")


def test_one_experiment_runs_per_layer_and_origin(state: Any) -> None:
    store = ExperimentStore(state.client, state.keys)
    store.create(experiment("one"))
    with pytest.raises(ExperimentError, match="experiment one runs in layer default for origin live"):
        store.create(experiment("two"))
    with pytest.raises(ExperimentError, match="experiment one exists"):
        store.create(experiment("one", origin="simulator"))
    store.create(experiment("three", origin="simulator"))
    store.create(experiment("four", layer="search", variants=SAME))
    assert store.stop("one").state == "stopped"
    store.create(experiment("two"))
    assert [e.name for e in store.list()] == ["four", "one", "three", "two"]
    with pytest.raises(ExperimentError, match="no experiment five, must be one of: four, one"):
        store.get("five")


def assignments(state: Any, *calls: tuple[str, int, Any]) -> list[Any]:
    async def run() -> list[Any]:
        client = connect_async(state.url)
        try:
            router = Router(client, state.keys)
            found = [await router.assign(Subject(unit), *rest) for unit, *rest in calls]
            return [assigned.first for assigned in found]
        finally:
            await client.aclose()

    return asyncio.run(run())


def test_requests_of_another_origin_take_no_part(state: Any) -> None:
    ExperimentStore(state.client, state.keys).create(experiment(origin="simulator"))
    inside, outside = assignments(state, ("u", NOW_MS, "simulator"), ("u", NOW_MS, "live"))
    assert (inside.experiment, inside.unit, outside) == ("exp", "u", None)


def test_a_bandits_draw_stays_with_its_unit_for_the_epoch_though_the_posterior_moves(state: Any) -> None:
    bandit = experiment(allocation=Thompson(floor=0.1), salt="salt")
    ExperimentStore(state.client, state.keys).create(bandit)
    (first,) = assignments(state, ("u", NOW_MS, "live"))
    assert first == draw(bandit, Posterior(), "u", NOW_MS)
    assert first.propensities == (0.5, 0.5)
    loser = first.variant
    state.client.hset(
        state.keys.posterior("exp"),
        mapping={f"{loser}:failures": 1000, f"{loser}:successes": 1, "version": 1001},
    )
    again, tomorrow, other = assignments(
        state, ("u", NOW_MS + 1, "live"), ("u", NOW_MS + DAY_MS, "live"), ("other", NOW_MS, "live")
    )
    assert again == first
    assert tomorrow.epoch == first.epoch + 1
    assert tomorrow.policy_version == other.policy_version == "thompson-1001"
    # The other variant is surely better: it has 1 - 0.1.
    assert sorted(other.propensities) == pytest.approx([0.1, 0.9], abs=1e-2)
    assert 0 < state.client.ttl(state.keys.assignment("exp", first.epoch, "u")) <= 2 * DAY_MS / 1000


def test_the_router_sees_changes_within_its_second(state: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("tastemaker.experiments.router")
    store = ExperimentStore(state.client, state.keys)

    async def run() -> list[bool]:
        client = connect_async(state.url)
        router = Router(client, state.keys)
        seen = [(await router.assign(Subject("u"), NOW_MS, "live")).first is not None]
        store.create(experiment())
        seen.append((await router.assign(Subject("u"), NOW_MS, "live")).first is not None)
        monkeypatch.setattr(module, "SNAPSHOT_SECONDS", 0.0)
        seen.append((await router.assign(Subject("u"), NOW_MS, "live")).first is not None)
        await client.aclose()
        return seen

    assert asyncio.run(run()) == [False, False, True]


def test_a_router_without_a_server_says_so() -> None:
    async def run() -> None:
        from tastemaker.state.keys import Keys

        client = connect_async("redis://127.0.0.1:1")
        try:
            await Router(client, Keys("c", 4)).assign(Subject("u"), NOW_MS, "live")
        finally:
            await client.aclose()

    with pytest.raises(StateError, match="cannot read experiments"):
        asyncio.run(run())
