"""All stages of an answer by one thread: what was done in time counts, and nothing is begun that nobody waits for."""

import asyncio
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from tastemaker.types import Query
from tastemaker_services.replicas.calls import Failed
from tastemaker_services.replicas.through import ThroughPool, Way, Went

QUERY = Query(np.empty(0, np.int32))
LONG = {"retrieve": 10.0, "rank": 10.0, "rerank": 10.0}


class Stages:
    """Stages that give their calls' length and name; the one at the gate waits there, and the one that fails says so."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.gates = {name: threading.Event() for name in LONG}
        for gate in self.gates.values():
            gate.set()
        self.fails = ""
        self.pool = ThreadPoolExecutor(1)
        self.through = ThroughPool(self.pool, {name: self._step(name) for name in LONG})

    def _step(self, name: str) -> Any:
        def step(call: tuple[Any, ...]) -> Any:
            self.begun.append(name)
            assert self.gates[name].wait(10.0)
            return Failed("broken") if name == self.fails else (name, len(call), threading.get_ident())

        return step

    async def go(self, limits: Mapping[str, float] = LONG) -> Mapping[str, Went]:
        return (await self.through("0" * 64, QUERY, limits)).went

    async def until_begun(self, *names: str) -> None:
        while self.begun != list(names):
            await asyncio.sleep(0)


@pytest.fixture
def stages() -> Iterator[Stages]:
    stages = Stages()
    yield stages
    for gate in stages.gates.values():
        gate.set()
    stages.pool.shutdown()


def names_of(went: Mapping[str, Went]) -> list[str]:
    return [name for name, one in went.items() if one.answer is not None]


def test_each_stage_gets_what_the_one_before_gave_in_the_same_thread(stages: Stages) -> None:
    went = asyncio.run(stages.go())
    assert [one.answer[:2] for one in went.values()] == [("retrieve", 2), ("rank", 3), ("rerank", 3)]  # type: ignore[index]
    assert len({one.answer[2] for one in went.values()}) == 1  # type: ignore[index]
    assert all(one.seconds >= 0 for one in went.values())


def test_the_wait_for_a_thread_is_no_stage_s_time(stages: Stages) -> None:
    class Clock:
        """Goes on by 1 s each time that somebody looks, and by 7 s where the thread is taken by another."""

        now = 0.0

        def perf_counter(self) -> float:
            self.now += 1.0
            return self.now

    async def go() -> Way:
        clock = Clock()
        with patch("tastemaker_services.replicas.through.time", clock):
            stages.gates["retrieve"].clear()
            first = asyncio.create_task(stages.go({"retrieve": 10.0}))
            await stages.until_begun("retrieve")
            second = asyncio.create_task(stages.through("0" * 64, QUERY, LONG))
            await asyncio.sleep(0)  # until it waits for the thread
            clock.now += 7.0
            stages.gates["retrieve"].set()
            await first
            return await second

    way = asyncio.run(go())
    assert way.waited_seconds == 9.0  # the 7, the look at the end of the first's stage, and its own
    assert [one.seconds for one in way.went.values()] == [1.0, 1.0, 1.0]


def test_stages_that_are_not_asked_for_are_not_begun(stages: Stages) -> None:
    assert names_of(asyncio.run(stages.go({"retrieve": 10.0}))) == ["retrieve"]
    assert stages.begun == ["retrieve"]


def test_behind_a_stage_that_fails_none_is_begun(stages: Stages) -> None:
    stages.fails = "rank"
    went = asyncio.run(stages.go())
    assert (list(went), names_of(went)) == (["retrieve", "rank"], ["retrieve"])
    assert stages.begun == ["retrieve", "rank"]


def test_a_late_stage_leaves_what_was_done_before_it_and_none_is_begun_behind(stages: Stages) -> None:
    async def late() -> Mapping[str, Went]:
        stages.gates["rank"].clear()
        went = await stages.go({"retrieve": 10.0, "rank": 0.05, "rerank": 10.0})
        stages.gates["rank"].set()
        assert names_of(await stages.go()) == list(LONG), "its thread comes back"
        return went

    assert list(asyncio.run(late())) == ["retrieve"]
    assert stages.begun == ["retrieve", "rank", *LONG]


def test_a_stage_that_is_done_when_its_time_ends_does_not_end_the_way(stages: Stages) -> None:
    async def slowly() -> Mapping[str, Went]:
        stages.gates["rank"].clear()
        task = asyncio.create_task(stages.go({"retrieve": 0.05, "rank": 10.0, "rerank": 10.0}))
        await stages.until_begun("retrieve", "rank")
        await asyncio.sleep(0.1)
        assert not task.done()
        stages.gates["rank"].set()
        return await task

    assert names_of(asyncio.run(slowly())) == list(LONG)


def test_what_waits_for_a_thread_until_its_time_is_over_is_never_begun(stages: Stages) -> None:
    async def both() -> None:
        stages.gates["retrieve"].clear()
        first = asyncio.create_task(stages.go({"retrieve": 10.0}))
        await stages.until_begun("retrieve")
        way = await stages.through("0" * 64, QUERY, {"retrieve": 0.02, "rank": 0.03})
        assert (way.went, way.is_begun) == ({}, False)
        assert way.waited_seconds > 0  # all the time that it was waited for
        stages.gates["retrieve"].set()
        assert names_of(await first) == ["retrieve"]

    asyncio.run(both())
    assert stages.begun == ["retrieve"]


def test_a_request_that_is_given_up_goes_no_further(stages: Stages) -> None:
    async def given_up() -> None:
        stages.gates["retrieve"].clear()
        task = asyncio.create_task(stages.go())
        await stages.until_begun("retrieve")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        stages.gates["retrieve"].set()

    asyncio.run(given_up())
    stages.pool.shutdown()
    assert stages.begun == ["retrieve"]
