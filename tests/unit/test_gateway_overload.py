"""The ladder under load and beside what is dead: breakers, and what is shed."""

import asyncio
from typing import Any

import pytest
from gateway_world import items
from ladder_world import DEADLINE_MS, Ladder, ladder_time, request

from tastemaker import telemetry
from tastemaker.config_serving import BreakerSettings, SheddingSettings
from tastemaker_services.gateway.gateway import Gateway
from tastemaker_services.replicas.calls import StageError
from tastemaker_services.web.problems import Problem

pytestmark = pytest.mark.usefixtures("either_graph")


@pytest.mark.parametrize("fault", ["raises", "hangs"])
@pytest.mark.parametrize(("part", "rung"), [("rank", "retrieval-order"), ("rerank", "no-rerank")])
def test_a_dead_stage_is_left_alone_until_it_answers_again(part: str, rung: str, fault: str) -> None:
    settings_ = BreakerSettings(least_calls=5, retry_seconds=1.0)
    with ladder_time():
        world = Ladder(breakers=settings_)
        world.faults[part] = fault

        async def action(gateway: Gateway) -> list[list[str]]:
            clock = asyncio.get_running_loop().time
            seen = []
            for n in range(40):
                if n == 20:
                    world.faults.clear()
                    await asyncio.sleep(1.0)
                before, asked = clock(), len(world.asked)
                answer = await gateway.recommend(request(), "live")
                seen.append(answer["degraded"])
                if 5 <= n < 20:
                    assert part not in world.asked[asked:]
                    assert clock() == before  # the next rung at once
            return seen

        seen = world.use(action)
    assert seen == [[rung]] * 20 + [[]] * 20


def test_a_frozen_state_store_costs_a_few_requests_their_time_and_no_more() -> None:
    with ladder_time():
        world = Ladder(breakers=BreakerSettings(least_calls=5))
        world.faults = dict.fromkeys(("history", "experiment", "stored"), "hangs")

        async def action(gateway: Gateway) -> list[float]:
            clock = asyncio.get_running_loop().time
            waits = []
            for _ in range(12):
                before = clock()
                answer = await gateway.recommend(request(), "live")
                assert answer["degraded"] == ["no-history", "no-experiment"]
                assert items(answer) == ["i5", "i0", "i1"]
                waits.append(clock() - before)
            return waits

        waits = world.use(action)
    # Five wait for the history, five for the experiment, each up to the end of retrieval's share: 30 of 95 parts of 95 ms.
    assert waits == pytest.approx([0.03] * 10 + [0.0] * 2)


def test_an_overloaded_gateway_refuses_with_429_and_never_with_5xx() -> None:
    with ladder_time():
        world = Ladder(shedding=SheddingSettings(max_in_flight=30, first_limit=10, least_limit=4))
        world.faults = {"history": "takes a while", "rank": "slow"}
        refused = telemetry.SHED.labels("default", "interactive", "refused")
        before = refused._value.get()

        async def action(gateway: Gateway) -> list[Any]:
            calls = [gateway.recommend(request(), "live") for _ in range(50)]
            return await asyncio.gather(*calls, return_exceptions=True)

        answers = world.use(action)
    problems = [answer for answer in answers if isinstance(answer, BaseException)]
    assert {problem.status for problem in problems if isinstance(problem, Problem)} == {429}
    assert len(problems) == 20
    assert refused._value.get() == before + 20
    rungs = [tuple(answer["degraded"]) for answer in answers if isinstance(answer, dict)]
    assert (
        rungs.count(("retrieval-order",)) == 10
    )  # all that use stages: some were late, the others did not try
    assert rungs.count(("popular",)) == 20


def test_thrice_what_the_graph_can_do_is_answered_in_time_and_the_graph_is_not_idle() -> None:
    capacity, seconds = 100, 8

    class Queueing(Ladder):
        """Ranking takes 10 ms, one request after the other: a hundred a second."""

        def __init__(self) -> None:
            super().__init__()
            self.free_at, self.worked = 0.0, 0

        async def misbehave(self, part: str, timeout_seconds: float = 1000.0) -> None:
            if part == "rank":
                now = asyncio.get_running_loop().time()
                if max(now, self.free_at) + 1 / capacity > now + timeout_seconds:
                    await asyncio.sleep(timeout_seconds)
                    raise StageError("rank is late")
                self.free_at = max(now, self.free_at) + 1 / capacity
                await asyncio.sleep(self.free_at - now)
                self.worked += 1

    with ladder_time():
        world = Queueing()

        async def action(gateway: Gateway) -> list[tuple[float, float, dict[str, Any]]]:
            clock = asyncio.get_running_loop().time

            async def one() -> tuple[float, float, dict[str, Any]]:
                before = clock()
                answer = await gateway.recommend(request(), "live")
                return before, 1000 * (clock() - before), answer

            tasks = []
            for _ in range(3 * capacity * seconds):
                tasks.append(asyncio.create_task(one()))
                await asyncio.sleep(1 / (3 * capacity))
            return await asyncio.gather(*tasks)

        answers = world.use(action)
    assert max(took for _, took, _ in answers) <= DEADLINE_MS
    assert world.worked >= 0.8 * capacity * seconds
    settled = [(took, answer["degraded"]) for at, took, answer in answers if at > 2]
    ranked = sum(rungs in ([], ["no-rerank"]) for _, rungs in settled)
    assert ranked >= 0.9 * capacity * (seconds - 2)  # what is let in is answered, it does not queue in vain
    assert sum(took > 0.9 * DEADLINE_MS for took, _ in settled) <= 0.02 * len(settled)
