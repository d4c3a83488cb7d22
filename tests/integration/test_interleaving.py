"""An interleaving from the definition to its report on a real Valkey: router, gateway, log, joiner, days. The stages are `gateway_world`'s."""

import asyncio
from functools import partial
from typing import Any

from gateway_world import World
from streams import event, make_consumer, send

from tastemaker import telemetry
from tastemaker.events.archive import read_days
from tastemaker.experiments.decision_log import (
    DECISION_SCHEMA,
    Decision,
    append_decisions_async,
    decisions_in,
)
from tastemaker.experiments.definition import Experiment, Interleaving, Variant
from tastemaker.experiments.posterior import read_posterior
from tastemaker.experiments.reporting.interleaved import build_interleaving_report
from tastemaker.experiments.router import Router
from tastemaker.experiments.store import ExperimentStore
from tastemaker.state.connection import connect_async
from tastemaker_services.gateway.decisions import DecisionLog
from tastemaker_services.gateway.gateway import Gateway
from tastemaker_services.web.schema import RecommendationRequest

WINDOW_SECONDS = 2.0
VARIANTS = (
    Variant(name="ranked", alias="champion", policy={"until": "rank"}),
    Variant(name="retrieved", alias="challenger", policy={"until": "retrieve"}),
)


def answers(state: Any, world: World, users: list[str]) -> list[dict[str, Any]]:
    """Of a gateway whose router and log are real."""

    async def run() -> list[dict[str, Any]]:
        client = connect_async(state.url)
        router = Router(client, state.keys)
        append = partial(append_decisions_async, client, state.keys, settings=state.settings.state)
        log = DecisionLog(append, state.keys.catalogue)
        gateway = Gateway(
            world.settings, read_user=world.read_user, assign=router.assign, pin=world.pins.get, stages=world.graph.stages(),
            decisions=log, read_stored=world.read_stored,
        )  # fmt: skip
        log.start()
        try:
            return [
                await gateway.recommend(RecommendationRequest(user_id=user, k=4), "live") for user in users
            ]
        finally:
            await log.stop()
            await client.aclose()

    return asyncio.run(run())


def test_from_the_definition_to_the_report(state: Any) -> None:
    store = ExperimentStore(state.client, state.keys)
    store.create(
        Experiment(
            name="duel", hypothesis="h", salt="s", variants=VARIANTS, allocation=Interleaving(), attribution_window_seconds=WINDOW_SECONDS
        )
    )  # fmt: skip
    world, worker = World(), make_consumer(state)
    served = [telemetry.SERVED.labels("default", "duel", variant.name)._value for variant in VARIANTS]
    before = [one.get() for one in served]
    users = [f"u{n}" for n in range(30)]
    given = answers(state, world, users)
    assert {(one["experiment"], one["variant"]) for one in given} == {("duel", "interleaved")}
    assert [one.get() for one in served] == [each + 30 for each in before]
    for user, one in zip(users, given, strict=True):
        assert sorted(item["item_id"] for item in one["items"]) == ["i0", "i1", "i8", "i9"]
        send(state, *(event(user, item, request_id=one["request_id"]) for item in ("i9", "i8")))
    world.graph.faults["rank"] = "raises"
    alone = answers(state, world, ["late"])[0]
    assert alone["experiment"] is None
    assert worker.drain(20)
    folder = state.home / "decisions" / state.settings.catalogue
    found: list[Decision] = decisions_in(read_days(folder, DECISION_SCHEMA, "decision_id"))
    assert len(found) == 31
    assert {len(one.slot_team) for one in found if one.experiment} == {4}
    known = read_posterior(state.client, state.keys, "duel")
    assert (known.successes, known.failures) == ({"retrieved": 30}, {"ranked": 30})
    definition = store.get("duel")
    now_ms = max(one.timestamp_ms for one in found) + 60_000
    report = build_interleaving_report(state.home, state.settings.catalogue, definition, now_ms=now_ms)
    assert (report.requests, report.units, report.unknown_events) == (30, 30, 0)
    ranked, retrieved = report.teams
    assert (ranked.earned, ranked.wins, retrieved.earned, retrieved.wins) == (0, 0, 60, 30)
    assert report.preference.value == 1.0
