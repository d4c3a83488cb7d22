"""Ingest on a real Valkey: what was accepted is in the log once, whatever is killed; what has no room is refused."""

import asyncio
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from intakes import NOW_MS, events, logged, use
from valkey_process import ValkeyProcess
from waiting import eventually

from tastemaker.errors import StreamFullError
from tastemaker.home import Home
from tastemaker_services.gateway.intake import Intake, Taken

MODES = ["waitaof", "spool"]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.make(tmp_path / "home")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyProcess]:
    with ValkeyProcess(tmp_path / "valkey") as running:
        yield running


def spool_files(home: Home) -> list[Path]:
    return list((home / "spool").rglob("*.spool"))


def test_events_are_on_the_logs_disk_and_counted_at_once(server: ValkeyProcess, home: Home) -> None:
    async def twice(intake: Intake) -> tuple[Taken, Taken, Taken]:
        first, again = await intake.append(events(0, 10)), await intake.append(events(5, 10))
        return first, again, await intake.append([])

    assert use(server.url, home, twice) == ((10, 0, 0), (5, 5, 0), (0, 0, 0))
    assert sorted(logged(server.url)) == sorted(f"e{n}" for n in range(15))
    assert spool_files(home) == []


def test_spooled_events_reach_the_log_once_and_in_each_users_order(server: ValkeyProcess, home: Home) -> None:
    async def many(intake: Intake) -> None:
        for start in range(0, 500, 50):
            assert await intake.append(events(start, 50)) == (50, 0, 50)
        assert await intake.append(events(0, 50)) == (50, 0, 50)  # that these are duplicates is found later
        await eventually(lambda: len(logged(server.url)) == 500, "all events")

    use(server.url, home, many, ingest="spool")
    found = logged(server.url)
    assert len(found) == len(set(found)) == 500
    for user in range(7):
        own = [int(e[1:]) for e in found if int(e[1:]) % 7 == user]
        assert own == sorted(own)


@pytest.mark.parametrize("mode", MODES)
def test_a_server_killed_in_the_middle_costs_no_accepted_event(
    server: ValkeyProcess, home: Home, mode: str
) -> None:
    accepted: list[str] = []
    spooled: list[int] = []

    async def stream(intake: Intake) -> None:
        async def client(number: int) -> None:
            for turn in range(30):
                batch = events(10_000 * number + 100 * turn, 100, user=f"c{number}-")
                taken = await intake.append(batch)
                assert taken.accepted == 100
                spooled.append(taken.spooled)
                accepted.extend(event.event_id for event in batch)
                if number == 0 and turn == 10:
                    await asyncio.to_thread(server.kill)
                if number == 0 and turn == 25:
                    await asyncio.to_thread(server.start)

        await asyncio.gather(*(client(number) for number in range(4)))
        await eventually(lambda: len(logged(server.url)) >= len(accepted), "the spool to be emptied")

    use(server.url, home, stream, ingest=mode)
    found = Counter(logged(server.url))
    assert len(accepted) == 12_000
    assert 1000 <= sum(spooled) <= (12_000 if mode == "spool" else 11_900)  # both ways were gone
    assert set(found) == set(accepted)
    assert set(found.values()) == {1}


def test_after_an_outage_the_log_is_written_directly_again(server: ValkeyProcess, home: Home) -> None:
    async def outage(intake: Intake) -> list[Taken]:
        taken = [await intake.append(events(0, 1))]
        await asyncio.to_thread(server.kill)
        taken += [await intake.append(events(1, 1)), await intake.append(events(2, 1))]
        await asyncio.to_thread(server.start)
        await eventually(lambda: intake._spool.is_empty, "the spool to be emptied")
        return [*taken, await intake.append(events(3, 1))]

    assert use(server.url, home, outage) == [(1, 0, 0), (1, 0, 1), (1, 0, 1), (1, 0, 0)]
    assert sorted(logged(server.url)) == ["e0", "e1", "e2", "e3"]


def test_while_something_waits_what_comes_later_waits_behind_it(
    server: ValkeyProcess, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tastemaker.events.forwarding.TROUBLED_SECONDS", 60.0)

    async def outage(intake: Intake) -> Taken:
        await asyncio.to_thread(server.kill)
        await intake.append(events(0, 1))
        await eventually(lambda: intake._forwarder._troubled, "the forwarder to fail")
        await asyncio.to_thread(server.start)
        return await intake.append(events(7, 1))  # of the same user

    async def drain(intake: Intake) -> None:
        await eventually(lambda: intake._spool.is_empty, "the spool to be emptied")

    assert use(server.url, home, outage) == (1, 0, 1)
    assert logged(server.url) == []
    use(server.url, home, drain)
    assert logged(server.url) == ["e0", "e7"]


@pytest.mark.parametrize("is_up", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_a_killed_gateway_loses_nothing_that_it_accepted_and_repeats_nothing(
    tmp_path: Path, home: Home, mode: str, is_up: bool
) -> None:
    server = ValkeyProcess(tmp_path / "valkey")
    if is_up:
        server.start()
    child = f"""
import asyncio, itertools
from pathlib import Path
from tastemaker.config import Settings, StateSettings
from tastemaker.events.schema import Event
from tastemaker.home import Home
from tastemaker.state.connection import connect_async
from tastemaker.state.keys import Keys
from tastemaker_services.gateway.intake import Intake

async def main():
    settings = Settings(catalogue="shop", state=StateSettings(partitions=4, ingest={mode!r}))
    url, home = {server.url!r}, Home.open(Path({str(home.root)!r}))
    intake = Intake(connect_async(url), url, Keys("shop", 4), settings, home)
    intake.start()
    for n in itertools.count():
        event = Event(event_id=f"e{{n}}", user_id="u", item_id="i", kind="click", timestamp_ms={NOW_MS})
        await intake.append([event])
        print(event.event_id, flush=True)

asyncio.run(main())
"""
    with subprocess.Popen(
        [sys.executable, "-c", child], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as gateway:
        assert gateway.stdout is not None
        accepted = [next(gateway.stdout).strip() for _ in range(100)]
        gateway.kill()
        accepted += [line.strip() for line in gateway.stdout if line.endswith("\n")]

    async def next_gateway(intake: Intake) -> None:
        await eventually(lambda: intake._spool.is_empty, "the next gateway to take up the spool")

    if not is_up:
        server.start()
    try:
        use(server.url, home, next_gateway, ingest=mode)
        found = logged(server.url)
    finally:
        server.kill()
    assert found[: len(accepted)] == accepted
    assert len(found) - len(accepted) in (0, 1)  # the last may be on disk whose answer did not get out
    assert len(set(found)) == len(found)


def test_a_full_stream_is_refused_and_not_spooled(server: ValkeyProcess, home: Home) -> None:
    async def fill(intake: Intake) -> None:
        await intake.append([e.model_copy(update={"user_id": "one"}) for e in events(0, 1000)])
        with pytest.raises(StreamFullError, match="at most 1000 entries"):
            await intake.append([e.model_copy(update={"user_id": "one"}) for e in events(1000, 1)])

    use(server.url, home, fill, stream_max_length=1000)
    assert spool_files(home) == []


def test_a_disk_that_is_slow_keeps_nothing_but_its_events_waiting(
    tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush, begun, mended, num_flushes = os.fdatasync, threading.Event(), threading.Event(), 0

    def slow_flush(file: int) -> None:
        nonlocal num_flushes
        num_flushes += 1
        begun.set()
        mended.wait(30)  # the disk under test
        flush(file)

    monkeypatch.setattr(os, "fdatasync", slow_flush)

    async def measure(intake: Intake) -> None:
        appended = [asyncio.create_task(intake.append(events(n, 1))) for n in range(20)]
        assert await asyncio.to_thread(begun.wait, 30)
        for _ in range(50):
            await asyncio.sleep(0.001)  # the event loop goes on: it never waits for a flush
        assert not any(task.done() for task in appended)
        mended.set()
        assert {found.spooled for found in await asyncio.gather(*appended)} == {1}

    use("redis://127.0.0.1:1", home, measure)
    assert num_flushes < 20  # events that wait share one
