"""What a gateway takes on under load: less for lower priorities, cheaper rungs first, 429 last."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtual_time import run

from tastemaker import telemetry
from tastemaker.config_serving import SheddingSettings
from tastemaker_services.gateway.loop_lag import LoopLag
from tastemaker_services.gateway.shedding import Admitted, Load
from tastemaker_services.web.problems import Problem
from tastemaker_services.web.schema import Priority

SETTINGS = SheddingSettings(max_in_flight=40, first_limit=20, least_limit=4)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def taken(load: Load, number: int, priority: Priority = "interactive") -> Iterator[list[Admitted]]:
    with ExitStack() as stack:
        yield [stack.enter_context(load.request(priority)) for _ in range(number)]


def test_cheaper_rungs_come_first_and_a_refusal_last() -> None:
    load = Load(SETTINGS, "shed-order")
    with taken(load, 40) as admitted:
        rungs = [one.rung for one in admitted]
        # Of the bound of 20 on stages: up to 16 all of it, to 18 no rerank, to 20 no rank; beyond, no stage: those do not
        # count towards it. Half of 40 requests in all may still ask the cache.
        assert rungs[:20] == [None] * 16 + ["no-rerank"] * 2 + ["retrieval-order"] * 2
        assert set(rungs[20:]) == {"trending"}
        assert (load.in_flight, load.in_stages) == (40, 20)
        with pytest.raises(
            Problem, match="40 requests are under way, at most 40 of priority interactive"
        ) as raised:
            load.request("interactive").__enter__()
        assert (raised.value.status, raised.value.headers) == (429, {"retry-after": "1"})
    assert (load.in_flight, load.in_stages) == (0, 0)


def test_the_cache_is_asked_while_there_is_room() -> None:
    load = Load(SheddingSettings(max_in_flight=40, first_limit=8, least_limit=4), "shed-cache")
    with taken(load, 30) as admitted:
        rungs = [one.rung for one in admitted]
    assert (rungs[7], rungs[8], rungs[19], rungs[20]) == ("retrieval-order", "cached", "cached", "trending")


def test_lower_priorities_give_way_first() -> None:
    load = Load(SETTINGS, "shed-priority")
    with taken(load, 12):  # 12 of 20: all is well for a person who waits
        with load.request("interactive") as admitted:
            assert admitted.rung is None
        with load.request(
            "batch"
        ) as admitted:  # the thirteenth, where 12 of priority batch would be too many
            assert admitted.rung == "trending"
        with pytest.raises(Problem, match="at most 12 of priority background"):  # 0.3 of 40 in all
            load.request("background").__enter__()


def test_one_request_alone_gets_the_whole_graph_whatever_its_priority_and_the_bound() -> None:
    load = Load(SheddingSettings(first_limit=1, least_limit=1), "shed-alone")
    for priority in ("interactive", "batch", "background"):
        with load.request(priority) as admitted:
            assert admitted.rung is None


def test_late_answers_shrink_the_bound_once_for_all_that_waited_together() -> None:
    clock = Clock()
    load = Load(SETTINGS, "shed-shrink", clock=clock)
    clock.now = 1.0
    for _ in range(2):
        with taken(load, 10) as admitted:
            for one in admitted:
                one.used = 0.95
        assert load.limit == pytest.approx(0.8 * 20)
    clock.now = 1.1
    with taken(load, 1) as admitted:
        admitted[0].used = 0.95
    assert load.limit == pytest.approx(0.8 * 0.8 * 20)
    for _ in range(50):
        clock.now += 0.2
        with taken(load, 1) as admitted:
            admitted[0].used = 2.0
    assert load.limit == SETTINGS.least_limit


def test_answers_in_time_widen_the_bound_where_it_is_used_and_never_beyond_the_hard_one() -> None:
    load = Load(SETTINGS, "shed-grow")
    with taken(load, 1) as admitted:
        admitted[0].used = 0.1
    assert load.limit == 20  # one of twenty tells nothing of what twenty would do
    for _ in range(2000):
        with taken(load, 12) as admitted:
            for one in admitted:
                one.used = 0.1
    assert 20 < load.limit <= 40


def test_what_an_overload_left_of_the_bound_goes_back_with_time_to_where_it_began_and_no_further() -> None:
    clock = Clock()
    load = Load(SETTINGS, "shed-calm", clock=clock)
    for _ in range(20):
        clock.now += 0.2
        with taken(load, 1) as admitted:
            admitted[0].used = 2.0
    assert (clock.now, load.limit) == (pytest.approx(4.0), 4)
    limits = []
    for clock.now in (
        8.9,
        9.1,
        13.9,
        14.1,
        19.1,
        99.0,
    ):  # light load, as it comes: one request alone, in time
        with taken(load, 1) as admitted:
            admitted[0].used = 0.1
        limits.append(load.limit)
    assert limits == [
        4,
        8,
        8,
        16,
        20,
        20,
    ]  # doubled every 5 s from the last late answer on, up to the 20 of the settings
    clock.now = 100.0
    with taken(load, 1) as admitted:
        admitted[0].used = 0.95
    assert load.limit == pytest.approx(0.8 * 20)
    clock.now = 104.0
    with taken(load, 1) as admitted:
        admitted[0].used = 0.95
    clock.now = 108.0
    with taken(load, 1):
        assert load.limit == pytest.approx(0.8 * 0.8 * 20)  # 8 s from the first late answer, 4 from the last


def test_a_burst_after_an_overload_gets_the_whole_graph_again() -> None:
    """A stage that takes 10 ms, one request at a time, and a deadline of 100 ms."""

    async def served(load: Load, stage: asyncio.Lock) -> str | None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with load.request("interactive") as admitted:
            if admitted.rung is None:
                async with stage:
                    await asyncio.sleep(0.01)
                admitted.used = (loop.time() - began) / 0.1
            return admitted.rung

    async def at_rate(load: Load, stage: asyncio.Lock, rate: float, seconds: float) -> list[str | None]:
        async with asyncio.TaskGroup() as group:
            tasks = []
            for _ in range(round(rate * seconds)):
                tasks.append(group.create_task(served(load, stage)))
                await asyncio.sleep(1 / rate)
        return [task.result() for task in tasks]

    async def main() -> None:
        loop, stage = asyncio.get_running_loop(), asyncio.Lock()
        load = Load(SheddingSettings(first_limit=64, least_limit=8), "shed-burst", clock=loop.time)
        rungs = await at_rate(load, stage, rate=300.0, seconds=5.0)  # three times what the stage can do
        assert load.limit < 12
        assert rungs.count(None) < 0.5 * len(rungs)
        rungs = await at_rate(load, stage, rate=25.0, seconds=20.0)
        assert set(rungs[25:]) == {None}
        burst = await asyncio.gather(*(served(load, stage) for _ in range(8)))
        assert burst == [None] * 8  # of a bound of 8 the last two would have got less

    run(main())


def test_a_process_that_is_behind_leaves_stages_out_and_refuses_what_would_be_late_before_it_is_begun() -> (
    None
):
    lag = [0.0]
    load = Load(SETTINGS, "shed-lag", lambda: lag[0])

    def rung(priority: Priority) -> str | None:
        with load.request(priority) as admitted:
            return admitted.rung

    assert rung("interactive") is None
    lag[0] = 0.51
    assert rung("interactive") == "trending"
    assert rung("batch") == "trending"  # of 0.6, half is 0.3
    with pytest.raises(
        Problem, match=r"the gateway is 0\.5 deadlines behind, at most 0\.3 for priority background"
    ):
        rung("background")
    lag[0] = 1.01
    with pytest.raises(
        Problem, match=r"1\.0 deadlines behind, at most 1\.0 for priority interactive: retry"
    ) as raised:
        rung("interactive")
    assert raised.value.status == 429


def test_the_lag_is_what_the_loop_is_late_by_and_one_pause_alone_is_none() -> None:
    class Loop:
        """A loop whose timers a test runs, as late as it likes."""

        now = 0.0
        due: list[tuple[float, Callable[[], None]]] = []  # noqa: RUF012 (one test's)

        def time(self) -> float:
            return self.now

        def call_at(self, when: float, look: Callable[[], None]) -> None:
            self.due.append((when, look))

        def run(self, late: float) -> None:
            when, look = self.due.pop()
            self.now = when + late
            look()

    loop, lag = Loop(), LoopLag(unit_seconds=0.1)
    with patch("asyncio.get_running_loop", lambda: loop):
        assert lag() == 0.0
        loop.run(2.0)  # a pause
        assert lag() == 0.0
        loop.run(0.0)
        for _ in range(3):
            loop.run(0.08)
        assert lag() == pytest.approx(0.8)
        loop.run(0.01)
        assert lag() == pytest.approx(0.1)


def test_what_was_shed_is_counted_by_priority_and_rung() -> None:
    load = Load(SETTINGS, "shed-count")
    with taken(load, 17):
        pass
    with taken(load, 9, "batch"):
        pass

    def count(priority: str, rung: str) -> float:
        value: float = telemetry.SHED.labels("shed-count", priority, rung)._value.get()
        return value

    assert count("interactive", "no-rerank") == 1
    assert count("interactive", "retrieval-order") == 0
    # batch may fill 0.6 of 20, which is 12: the ninth makes .75 of it
    assert count("batch", "no-rerank") == 0


@given(
    st.lists(
        st.tuples(st.sampled_from(["interactive", "batch", "background"]), st.floats(0, 3)), max_size=150
    )
)
def test_the_bounds_hold_whatever_comes(requests: list[tuple[Priority, float]]) -> None:
    clock = Clock()
    load, refused = Load(SETTINGS, "shed-bounds", clock=clock), 0
    with ExitStack() as stack:
        for priority, used in requests:
            clock.now += used
            try:
                admitted = stack.enter_context(load.request(priority))
            except Problem:
                refused += 1
                continue
            admitted.used = used
            assert load.in_flight <= SETTINGS.max_in_flight
            assert load.in_stages <= max(load.limit, 1)
        assert load.in_flight == len(requests) - refused
    assert (load.in_flight, load.in_stages) == (0, 0)
    assert SETTINGS.least_limit <= load.limit <= SETTINGS.max_in_flight
