"""What dashboards show of a gateway: empty lists, budgets, how many calls travel together."""

import asyncio
from typing import Any

from gateway_world import NUM_ITEMS, World, items

from tastemaker import telemetry
from tastemaker_services.replicas.calls import StageCalls


def test_an_empty_list_is_counted_and_no_other() -> None:
    empty = telemetry.EMPTY.labels("default")
    before = empty._value.get()
    world = World()
    assert items(world.recommend())
    assert empty._value.get() == before
    assert items(world.recommend(exclude=[f"i{n}" for n in range(NUM_ITEMS)])) == []
    assert empty._value.get() == before + 1


def test_budgets_are_those_of_the_settings() -> None:
    World(deadline_ms=250.0).recommend()
    told = {
        stage: telemetry.BUDGET.labels("default", stage)._value.get()
        for stage in ("retrieve", "rank", "total")
    }
    assert told == {"retrieve": 0.02, "rank": 0.055, "total": 0.25}


def test_calls_that_wait_together_are_told_as_one_message() -> None:
    sent: list[int] = []

    async def send(calls: list[Any]) -> list[Any]:
        await asyncio.sleep(0)
        return calls

    async def run() -> list[Any]:
        stage = StageCalls(send, most=2, sent=sent.append)
        return await asyncio.gather(*(stage(n, 1.0) for n in range(3)))

    assert asyncio.run(run()) == [0, 1, 2]
    assert sent == [2, 1]


def test_an_answer_says_what_each_stages_own_process_took() -> None:
    world = World()
    world.graph.worked_seconds = {"retrieve": 0.0025, "rank": 0.004}
    told = world.recommend()["timings_ms"]
    assert {name: took_ms for name, took_ms in told.items() if name.endswith("_work")} == {
        "retrieve_work": 2.5,
        "rank_work": 4.0,
    }
