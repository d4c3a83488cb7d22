"""Calls to all shards at once: who is waited for, who is left out, and what becomes of a shard that does not answer."""

import asyncio
import gc
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY

from tastemaker.config import Settings
from tastemaker.config_serving import BreakerSettings, RetrieverSettings, ServingSettings
from tastemaker.errors import ConfigError
from tastemaker.stages.cold_start import ColdStartConfig
from tastemaker.stages.merging import Merging, ShardAnswer, SourceConfig
from tastemaker.types import Query
from tastemaker_services.gateway.breakers import Breaker, State
from tastemaker_services.graph.shards import ShardedCall, shards_of
from tastemaker_services.replicas.calls import Failed, StageCalls, StageError

PATIENT = 30.0


class Shard:
    """Answers with its number at once, never, or not at all."""

    def __init__(self, number: int, mode: str = "answers") -> None:
        self.number, self.mode, self.asked = number, mode, 0

    async def send(self, calls: list[Any]) -> Sequence[Any]:
        self.asked += 1
        if self.mode == "hangs":
            await asyncio.Event().wait()
        if self.mode == "dies":
            raise RuntimeError("the actor died")
        return [Failed("broken") if self.mode == "fails" else self.number for _ in calls]


class Fixture:
    def __init__(self, *modes: str, seconds: float = 0.2, breaker: BreakerSettings | None = None) -> None:
        self.shards = [Shard(number, mode) for number, mode in enumerate(modes)]
        self.guards = [Breaker(breaker or BreakerSettings()) for _ in modes]
        self.outcomes: list[tuple[int, str]] = []
        self.seconds = seconds

    def call(self) -> ShardedCall:
        calls = [StageCalls(shard.send) for shard in self.shards]
        return ShardedCall(
            calls, self.guards, self.seconds, lambda call, found, missing: (call, sorted(found), missing),
            lambda number, outcome: self.outcomes.append((number, outcome)),
        )  # fmt: skip

    def ask(self, timeout_seconds: float = PATIENT) -> Any:
        async def ask() -> Any:
            return await self.call()("call", timeout_seconds)

        return asyncio.run(ask())


async def turns() -> None:
    """Lets the loop do all that waits for no time."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_all_are_asked_and_all_answers_are_joined() -> None:
    shards = Fixture("answers", "answers", "answers", seconds=PATIENT)
    assert shards.ask() == ("call", [0, 1, 2], 0)
    assert sorted(shards.outcomes) == [(0, "ok"), (1, "ok"), (2, "ok")]


@pytest.mark.parametrize(("mode", "outcome"), [("hangs", "late"), ("dies", "failed"), ("fails", "failed")])
def test_a_shard_that_does_not_answer_is_missing_and_no_more(mode: str, outcome: str) -> None:
    shards = Fixture("answers", mode, "answers")
    assert shards.ask() == ("call", [0, 2], 1)
    assert sorted(shards.outcomes) == [(0, "ok"), (1, outcome), (2, "ok")]


def test_while_none_has_answered_all_are_waited_for() -> None:
    """As a first call to cold shards is, which takes longer than `seconds`."""
    shards = Fixture("answers", "answers", seconds=0.0)
    gates = [asyncio.Event(), asyncio.Event()]

    async def ask() -> Any:
        def behind(number: int) -> Callable[..., Any]:
            async def call(*_: Any) -> int:
                await gates[number].wait()
                return number

            return call

        whole = ShardedCall(
            [behind(0), behind(1)], shards.guards, 0.0, lambda *said: said[1:], lambda *_: None
        )
        answer = asyncio.ensure_future(whole("call", PATIENT))
        await turns()
        assert not answer.done()
        gates[1].set()
        return await answer

    assert asyncio.run(ask()) == ([1], 1)


def test_no_shard_at_all_is_a_stage_that_does_not_answer() -> None:
    with pytest.raises(StageError, match="no shard of the retriever answers"):
        Fixture("dies", "hangs").ask(0.05)


def test_a_shard_that_fails_again_and_again_is_left_alone_until_a_probe_succeeds() -> None:
    shards = Fixture("answers", "dies", breaker=BreakerSettings(calls=4, least_calls=3, retry_seconds=0.001))

    async def go_on() -> None:
        call = shards.call()
        for _ in range(3):
            assert await call("call", PATIENT) == ("call", [0], 1)
        assert shards.guards[1].state is State.OPEN
        shards.guards[1]._settings = BreakerSettings(calls=4, least_calls=3, retry_seconds=3600.0)
        asked = shards.shards[1].asked
        assert await call("call", PATIENT) == ("call", [0], 1)
        assert shards.shards[1].asked == asked
        assert shards.outcomes[-2:] == [(1, "skipped"), (0, "ok")]
        shards.shards[1].mode = "answers"
        shards.guards[1]._settings = BreakerSettings(calls=4, least_calls=3, retry_seconds=1e-9)
        assert await call("call", PATIENT) == ("call", [0, 1], 0)
        assert shards.guards[1].state is State.CLOSED

    asyncio.run(go_on())


def test_a_request_that_has_no_time_says_nothing_of_a_shard() -> None:
    shards = Fixture("hangs", "hangs", seconds=PATIENT, breaker=BreakerSettings(calls=1, least_calls=1))
    with pytest.raises(StageError, match="no shard of the retriever answers"):
        shards.ask(0.01)
    assert [guard.state for guard in shards.guards] == [State.CLOSED] * 2
    assert shards.outcomes == [(0, "late"), (1, "late")]


def test_a_request_that_is_given_up_leaves_no_call_behind() -> None:
    shards = Fixture("hangs", "hangs")

    async def give_up() -> int:
        answer = asyncio.ensure_future(shards.call()("call", PATIENT))
        await turns()
        assert [shard.asked for shard in shards.shards] == [1, 1]
        answer.cancel()
        await asyncio.gather(answer, return_exceptions=True)
        await turns()
        return sum("StageCalls.__call__" in repr(task.get_coro()) for task in asyncio.all_tasks())

    assert asyncio.run(give_up()) == 0


def test_a_shard_that_had_failed_before_a_request_was_given_up_is_not_told_as_an_error_of_ours() -> None:
    """It fails after another has answered, while a third is waited for."""
    shards = Fixture("answers", "dies", "hangs", seconds=PATIENT)
    told: list[str] = []

    async def give_up() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
        gate, send = asyncio.Event(), shards.shards[1].send

        async def late(calls: list[Any]) -> Sequence[Any]:
            await gate.wait()
            return await send(calls)

        shards.shards[1].send = late  # type: ignore[method-assign]
        answer = asyncio.ensure_future(shards.call()("call", PATIENT))
        await turns()
        gate.set()
        await turns()
        assert shards.shards[1].asked == 1
        answer.cancel()
        with suppress(asyncio.CancelledError):
            await answer
        del answer
        await turns()
        gc.collect()

    asyncio.run(give_up())
    assert told == []


# --- through handles -----------------------------------------------------------------------------------------------------


class Handle:
    """A deployment's handle, whose retriever has some rows."""

    def __init__(self, *rows: int, fails: bool = False) -> None:
        self.rows, self.fails = np.array(rows, np.int32), fails

    def options(self, **_: object) -> "Handle":
        return self

    def __getattr__(self, method: str) -> Any:
        return _Method(self, method)


class _Method:
    def __init__(self, handle: Handle, name: str) -> None:
        self.handle, self.name = handle, name

    async def remote(self, *arguments: Any) -> Any:
        if self.handle.fails:
            raise RuntimeError("gone")
        rows = self.handle.rows
        if self.name in ("retrieve", "aside"):
            score_K1 = rows[:, None].astype(np.float32)
            seconds = float(rows[0])
            return [ShardAnswer(rows, score_K1, score_K1, worked_seconds=seconds) for _ in arguments[-1]]
        return [(rows, rows.astype(np.float32)) for _ in arguments[0]]


def retrievers(*handles: Handle, merging: Merging | None) -> Any:
    settings = Settings(serving=ServingSettings(retriever=RetrieverSettings(shards=len(handles))))
    return shards_of(handles, settings, lambda _: merging)  # type: ignore[arg-type]


MERGING = Merging([SourceConfig(name="two_tower", quota=2)], 3, ColdStartConfig())


@pytest.mark.parametrize("name", ["retrieve", "aside"])
def test_candidates_are_those_of_all_shards(name: str) -> None:
    async def ask(*handles: Handle) -> Any:
        query = Query(np.empty(0, np.int32), k=3)
        return await getattr(retrievers(*handles, merging=MERGING), name)(("sha", query), PATIENT)

    whole = asyncio.run(ask(Handle(0, 3), Handle(5, 7)))
    assert (whole.item_index.tolist(), whole.missing_shards) == ([7, 5, 3], 0)
    assert whole.worked_seconds == 5.0  # the one that all waited for
    part = asyncio.run(ask(Handle(0, 3), Handle(5, 7, fails=True)))
    assert (part.item_index.tolist(), part.missing_shards) == ([3, 0], 1)


def test_lists_by_one_search_are_the_best_of_all_shards() -> None:
    async def ask(*handles: Handle) -> Any:
        query = Query(np.empty(0, np.int32), k=3)
        return await retrievers(*handles, merging=None).similar(("sha", query, 1), PATIENT)

    assert asyncio.run(ask(Handle(3, 0), Handle(7, 5))).row_K.tolist() == [7, 5, 3]
    part = asyncio.run(ask(Handle(3, 0), Handle(7, 5, fails=True)))
    assert (part.row_K.tolist(), part.missing_shards) == ([3, 0], 1)


def test_a_version_that_the_gateway_has_dropped_is_no_answer() -> None:
    async def ask() -> Any:
        return await retrievers(Handle(1), Handle(2), merging=None).retrieve(
            ("sha", Query(np.empty(0, np.int32))), PATIENT
        )

    with pytest.raises(StageError, match="is not held here any more"):
        asyncio.run(ask())


def test_calls_to_shards_are_counted_by_shard() -> None:
    def counted(shard: str, outcome: str) -> float:
        labels = {"catalogue": "default", "shard": shard, "outcome": outcome}
        return REGISTRY.get_sample_value("tastemaker_gateway_shards_total", labels) or 0.0

    before = counted("0", "ok"), counted("1", "failed")

    async def ask() -> None:
        shards = retrievers(Handle(1), Handle(2, fails=True), merging=MERGING)
        await shards.retrieve(("sha", Query(np.empty(0, np.int32))), PATIENT)

    asyncio.run(ask())
    assert (counted("0", "ok") - before[0], counted("1", "failed") - before[1]) == (1, 1)


@pytest.mark.parametrize("said", [{"graph": "fused"}, {"index_device": "cuda"}])
def test_shards_need_processes_and_are_searched_on_the_cpu(said: dict[str, str]) -> None:
    with pytest.raises(
        ConfigError, match=r"retriever\.shards of 1, unless graph is spread and index_device cpu"
    ):
        ServingSettings.parse(said | {"retriever": {"shards": 2}}, "test")
