"""Calls to a stage of the same process: their deadlines, and what becomes of work that nobody waits for."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tastemaker_services.graph.fused import PoolCalls
from tastemaker_services.replicas.calls import Failed, StageError


class Stage:
    """Doubles even numbers in one thread, which waits while `gate` is closed."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.pool = ThreadPoolExecutor(1)

    async def send(self, calls: list[int]) -> list[Any]:
        return await asyncio.get_running_loop().run_in_executor(self.pool, self._work, calls)

    def _work(self, calls: list[int]) -> list[Any]:
        self.begun += calls
        assert self.gate.wait(10.0)
        return [Failed("odd") if call % 2 else call * 2 for call in calls]


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.gate.set()
    stage.pool.shutdown()


def test_a_call_is_answered(stage: Stage) -> None:
    assert asyncio.run(PoolCalls(stage.send)(4, 5.0)) == 8


def test_a_stage_that_fails_says_why(stage: Stage) -> None:
    with pytest.raises(StageError, match="the stage failed") as raised:
        asyncio.run(PoolCalls(stage.send)(3, 5.0))
    assert raised.value.mend == "odd"


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_without_time_nothing_is_begun(stage: Stage, seconds: float) -> None:
    with pytest.raises(StageError, match="no time is left"):
        asyncio.run(PoolCalls(stage.send)(4, seconds))
    assert stage.begun == []


def test_what_waits_for_a_thread_until_its_time_is_over_is_never_begun(stage: Stage) -> None:
    async def both() -> None:
        call = PoolCalls(stage.send)
        stage.gate.clear()
        first = asyncio.create_task(call(2, 10.0))
        while not stage.begun:
            await asyncio.sleep(0)
        with pytest.raises(StageError, match="late: over 20 ms"):
            await call(4, 0.02)
        stage.gate.set()
        assert await first == 4
        assert await call(6, 10.0) == 12

    asyncio.run(both())
    assert stage.begun == [2, 6]


def test_a_late_answer_is_dropped_and_its_thread_comes_back(stage: Stage) -> None:
    async def late() -> None:
        call = PoolCalls(stage.send)
        stage.gate.clear()
        with pytest.raises(StageError, match="late"):
            await call(2, 0.02)
        stage.gate.set()
        assert await call(8, 10.0) == 16

    asyncio.run(late())
    assert stage.begun == [2, 8]
