"""Full disks, each a small tmpfs: what was accepted is kept, what is not kept is not accepted, and with room all goes on."""

import asyncio
import dataclasses
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from streams import event, make_consumer, records, send
from tiny_disk import fill, tiny_disk
from valkey_process import ValkeyProcess
from waiting import eventually, until

from tastemaker.config import Settings, StateSettings
from tastemaker.config_serving import GatewaySettings
from tastemaker.errors import DataError
from tastemaker.events.archive import EVENT_SCHEMA, read_days
from tastemaker.events.schema import Event
from tastemaker.features.counters import Counters, row_of
from tastemaker.home import Home
from tastemaker.state.connection import connect, connect_async
from tastemaker.state.keys import Keys
from tastemaker_services.gateway.intake import Intake
from tastemaker_services.routes.api import create_api

KEYS = Keys("shop", 4)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with tiny_disk(tmp_path / "tiny", "4m") as folder:
        yield folder


def some_events(start: int, number: int, note: str = "") -> list[Event]:
    return [
        event(f"u{n % 7}", "i", event_id=f"e{n}", context={"note": note} if note else {})
        for n in range(start, start + number)
    ]


def logged(url: str) -> Counter[str]:
    """Ids in the log, by how often they are there."""
    with connect(url) as client:
        entries = [entry for p in range(KEYS.partitions) for entry in client.xrange(KEYS.events(p))]
    return Counter(json.loads(fields["e"])["event_id"] for _, fields in entries)


def test_days_that_cannot_be_written_stay_in_the_log_and_features_go_on(state: Any, disk: Path) -> None:
    state = dataclasses.replace(state, home=Home.make(disk / "home"))
    worker = make_consumer(state)
    send(state, *some_events(0, 100))
    assert worker.drain()
    ballast = fill(disk)
    send(state, *some_events(100, 100))
    worker._archive_at = 0.0
    with pytest.raises(DataError, match=r"cannot write .*No space left on device.*make room"):
        worker.step()
    send(state, *some_events(200, 100))
    assert worker.step().archived == 0  # not tried again at once
    until(lambda: clicks(state) == projected(worker, 300), "totals")
    assert sum(state.client.xlen(state.keys.events(p)) for p in range(4)) == 200
    with pytest.raises(DataError, match="No space left"):
        worker.drain()
    ballast.unlink()
    assert worker.drain()
    assert sum(state.client.xlen(state.keys.events(p)) for p in range(4)) == 0
    table = read_days(state.home / "events" / state.keys.catalogue, EVENT_SCHEMA, "event_id")
    assert Counter(table["event_id"].to_pylist()) == {f"e{n}": 1 for n in range(300)}
    assert clicks(state) == 300
    assert not list(disk.rglob("*.tmp"))
    worker.close()


def projected(worker: Any, number: int) -> int:
    worker._project_at, worker._archive_at = 0.0, time.monotonic() + 60
    worker.step()
    return number


def clicks(state: Any) -> int:
    (total,) = Counters.decode(records(state, state.keys.item_totals, ["i"])).value_NKW[
        :, row_of("click"), -1
    ]
    return round(total)


class Backend:
    """Only events."""

    def __init__(self, intake: Intake) -> None:
        self.append = intake.append


async def post(intake: Intake, batches: list[list[Event]]) -> list[httpx.Response]:
    api: Any = create_api(Backend(intake), GatewaySettings(), "shop")  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://gateway") as client:
        return [
            await client.post(
                "/v1/events", json={"events": [one.model_dump(exclude_none=True, exclude={"origin"}) for one in rows]}
            )
            for rows in batches
        ]  # fmt: skip


def test_a_log_whose_disk_is_full_is_answered_by_the_spool_and_nothing_is_lost_or_doubled(
    disk: Path, tmp_path: Path
) -> None:
    home = Home.make(tmp_path / "home")
    settings = Settings(catalogue="shop", state=StateSettings(partitions=4))
    batches = [some_events(50 * n, 50, note="x" * 200) for n in range(40)]

    async def run(action: Any) -> Any:
        client = connect_async(server.url)
        intake = Intake(client, server.url, KEYS, settings, home)
        await asyncio.to_thread(intake.start)
        try:
            return await action(intake)
        finally:
            await asyncio.to_thread(intake.stop)
            await client.aclose()

    async def through_it(intake: Intake) -> list[httpx.Response]:
        answers = await post(intake, batches[:3])
        ballast = fill(disk, leave_bytes=65_536)
        answers += await post(intake, batches[3:30])
        await asyncio.to_thread(server.kill)  # what it had in memory alone is gone
        ballast.unlink()
        await asyncio.to_thread(server.start)
        answers += await post(intake, batches[30:])
        await eventually(lambda: intake._spool.is_empty, "the spool to be emptied")
        return answers

    with ValkeyProcess(disk / "valkey") as server:
        answers = asyncio.run(run(through_it))
        assert {answer.status_code for answer in answers} == {202}
        bodies = [answer.json() for answer in answers]
        assert [body["spooled"] for body in bodies[:3]] == [0, 0, 0]
        assert sum(body["spooled"] for body in bodies) >= 20 * 50
        assert logged(server.url) == {f"e{n}": 1 for n in range(2000)}


def test_with_log_and_spool_on_a_full_disk_ingest_says_503_and_keeps_what_it_accepted(disk: Path) -> None:
    home = Home.make(disk / "home")
    settings = Settings(catalogue="shop", state=StateSettings(partitions=4))
    batches = [some_events(50 * n, 50, note="x" * 200) for n in range(16)]

    async def run() -> tuple[list[httpx.Response], list[httpx.Response]]:
        client = connect_async(server.url)
        intake = Intake(client, server.url, KEYS, settings, home)
        await asyncio.to_thread(intake.start)
        try:
            ballast = fill(disk, leave_bytes=65_536)
            during = await post(intake, batches[:6])
            await asyncio.to_thread(server.kill)
            ballast.unlink()
            await asyncio.to_thread(server.start)
            after = await post(intake, batches[6:])
            await eventually(lambda: intake._spool.is_empty, "the spool to be emptied")
            return during, after
        finally:
            await asyncio.to_thread(intake.stop)
            await client.aclose()

    with ValkeyProcess(disk / "valkey") as server:
        during, after = asyncio.run(run())
        codes = [answer.status_code for answer in during]
        assert 202 in codes
        assert codes[-2:] == [503, 503]  # each after the log has had its two seconds
        refused = during[-1]
        assert refused.headers["retry-after"] == "1"
        assert "cannot write to the spool: No space left on device" in refused.json()["detail"]
        assert {answer.status_code for answer in after} == {202}
        accepted = [
            one.event_id
            for rows, answer in zip(batches, [*during, *after], strict=True)
            for one in rows
            if answer.status_code == 202
        ]
        found = logged(server.url)
        assert set(found.values()) == {1}
        assert set(accepted) <= set(found)
