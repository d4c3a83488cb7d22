"""What dashboards show of a gateway: empty lists, budgets, how many calls travel together."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from gateway_world import NUM_ITEMS, World, candidates, items

from tastemaker import telemetry
from tastemaker_services.replicas.calls import Failed, StageCalls
from tastemaker_services.replicas.process import StageReplica


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


def test_all_calls_of_a_message_were_as_long_in_the_stages_process() -> None:
    histogram = telemetry.STAGE_WORK_SECONDS.labels("message", "rank")
    ranker = StageReplica.__new__(StageReplica)
    ranker._stage, ranker._tracer, ranker._worked = "ranker", None, {"rank": histogram}
    ranker._versions = cast(Any, {"held": "a version"})

    async def ask() -> list[Any]:
        with ThreadPoolExecutor(1) as ranker._pool:
            work = lambda version, rest: candidates(rest)  # noqa: E731 (one line says it)
            return await ranker._timed("rank", work, [("held", 3, 1), ("gone", 2), ("held", 5)])

    first, gone, last = asyncio.run(ask())
    assert (first.item_index.tolist(), last.item_index.tolist()) == ([3, 1], [5])
    assert isinstance(gone, Failed)
    assert first.worked_seconds == last.worked_seconds
    assert histogram._sum.get() == 3 * first.worked_seconds
