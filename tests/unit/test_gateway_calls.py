"""Messages to a stage: company under load, none without, and each call's own deadline."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from waiting import eventually

from tastemaker_services.replicas.calls import MAX_BATCH, Failed, StageCalls, StageError

REPLICAS = 2


class Stage:
    """Answers each call with its double; holds a message while `gate` is closed."""

    def __init__(self) -> None:
        self.messages: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def send(self, calls: list[Any]) -> Sequence[Any]:
        self.messages.append(calls)
        await self.gate.wait()
        return [Failed("odd") if call % 2 else call * 2 for call in calls]


def run(action: Callable[[Stage, StageCalls], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        stage = Stage()
        calls = StageCalls(stage.send)
        calls.num_replicas = REPLICAS
        return await action(stage, calls)

    return asyncio.run(main())


def test_a_lone_call_travels_at_once() -> None:
    async def action(stage: Stage, calls: StageCalls) -> None:
        assert await calls(4, 1.0) == 8
        assert await calls(6, 1.0) == 12
        assert stage.messages == [[4], [6]]

    run(action)


def test_what_waits_travels_together_and_each_gets_its_own_answer() -> None:
    async def action(stage: Stage, calls: StageCalls) -> None:
        stage.gate.clear()
        wanted = [2 * i for i in range(2 * MAX_BATCH + 3)]
        tasks = [asyncio.create_task(calls(value, 5.0)) for value in wanted]
        await eventually(lambda: len(stage.messages) == REPLICAS, "a message for each replica")
        assert [len(message) for message in stage.messages] == [MAX_BATCH, MAX_BATCH]
        stage.gate.set()
        assert await asyncio.gather(*tasks) == [4 * i for i in range(len(wanted))]
        assert [len(message) for message in stage.messages] == [MAX_BATCH, MAX_BATCH, 3]

    run(action)


def test_calls_that_one_message_brought_back_go_on_together() -> None:
    async def action(first: Stage, calls: StageCalls) -> None:
        second = Stage()
        next_calls = StageCalls(second.send)

        async def both(value: int) -> int:
            answer: int = await next_calls(await calls(value, 5.0), 5.0)
            return answer

        assert await asyncio.gather(*(both(value) for value in (2, 4, 6))) == [8, 16, 24]
        assert (first.messages, second.messages) == ([[2, 4, 6]], [[4, 8, 12]])

    run(action)


def test_a_call_that_the_stage_could_not_do_concerns_no_other() -> None:
    async def action(stage: Stage, calls: StageCalls) -> None:
        stage.gate.clear()
        tasks = [asyncio.create_task(calls(value, 5.0)) for value in (0, 2, 3, 4)]
        await asyncio.sleep(0)
        stage.gate.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [answers[0], answers[1], answers[3]] == [0, 4, 8]
        assert isinstance(answers[2], StageError)
        assert "odd" in str(answers[2])

    run(action)


def test_a_late_call_is_given_up_and_one_not_yet_sent_is_never_sent() -> None:
    async def action(stage: Stage, calls: StageCalls) -> None:
        stage.gate.clear()
        sent = []
        for replica in range(REPLICAS):
            sent.append(asyncio.create_task(calls(2 * replica, 5.0)))
            await eventually(lambda: len(stage.messages) == len(sent), "its message")
        with pytest.raises(StageError, match="late: over 20 ms"):
            await calls(100, 0.02)
        stage.gate.set()
        await asyncio.gather(*sent)
        assert await calls(200, 1.0) == 400
        assert [100] not in stage.messages

    run(action)


def test_no_time_left_means_no_call() -> None:
    async def action(stage: Stage, calls: StageCalls) -> None:
        with pytest.raises(StageError, match="no time is left"):
            await calls(1, 0.0)
        assert stage.messages == []

    run(action)


def test_a_replica_that_dies_fails_its_messages_and_the_next_goes_through() -> None:
    async def main() -> None:
        deaths = [ConnectionError("the actor died")]

        async def send(calls: list[Any]) -> Sequence[Any]:
            if deaths:
                raise deaths.pop()
            return calls

        calls = StageCalls(send)
        with pytest.raises(StageError, match="ConnectionError: the actor died"):
            await calls(1, 1.0)
        assert await calls(2, 1.0) == 2

    asyncio.run(main())


def test_a_hung_replica_does_not_hold_its_slot_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tastemaker_services.replicas.calls.LOST_AFTER_SECONDS", 0.05)

    async def main() -> None:
        hang = True

        async def send(calls: list[Any]) -> Sequence[Any]:
            if hang:
                await asyncio.Event().wait()
            return calls

        calls = StageCalls(send)
        with pytest.raises(StageError, match="late"):
            await calls(1, 0.01)
        hang = False
        assert await calls(2, 2.0) == 2

    asyncio.run(main())
