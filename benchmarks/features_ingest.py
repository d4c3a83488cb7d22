"""Events a second that one gateway accepts: on the log's disk (WAITAOF), and on its own (the spool), side by side.

What is measured is `Intake.append` on an embedded Valkey that flushes every second, in batches of 100, one and eight in
flight; the spool is emptied to the same server meanwhile, and the time until that is done is given beside. HTTP, JSON
and the rows' checks are the same for both and are left out.
"""

import asyncio
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from turns import Effort, Part, column, shown, turns

from tastemaker.config import Settings, StateSettings
from tastemaker.events.schema import Event
from tastemaker.home import Home
from tastemaker.state.connection import connect, connect_async, url_of
from tastemaker.state.keys import Keys
from tastemaker.state.server import EmbeddedValkey
from tastemaker_services.gateway.intake import Intake

NUM_EVENTS, BATCH, NUM_USERS = 60_000, 100, 5000
NAMES = {"waitaof": "log, WAITAOF", "spool": "spool, fsync"}
_turns = itertools.count()


def ingest(effort: Effort) -> Part:
    num_events = NUM_EVENTS // effort.divide
    part = Part(
        f"Events a second that a gateway accepts, {num_events:,} events in batches of {BATCH}",
        ("accepted on", "in flight", "events/s", "ms a batch, median", "events/s until in the log"),
    )
    with tempfile.TemporaryDirectory() as folder:
        home = Home.make(Path(folder) / "home")
        with EmbeddedValkey(home):
            for in_flight in (1, 8):
                jobs = {mode: _job(home, mode, in_flight, num_events) for mode in NAMES}
                part.num_turns = effort.turns
                found = turns(part.num_turns, jobs)
                for mode, measured in found.items():
                    part.rows.append(
                        (NAMES[mode], str(in_flight), shown(column(measured, "accepted"), 0),
                         shown(column(measured, "batch_ms"), 2), shown(column(measured, "logged"), 0))
                    )  # fmt: skip
                part.figures[f"{in_flight} in flight"] = found
    part.notes.append(
        "Median over turns [least, most]. Valkey, gateway and the spool's threads share the machine's cores. A power loss "
        "takes nothing that was accepted in either mode; kill -9 of gateway or Valkey takes nothing either (tests)."
    )
    return part


def _job(home: Home, mode: str, in_flight: int, num_events: int) -> Callable[[], dict[str, Any]]:
    return lambda: asyncio.run(_accept(home, mode, in_flight, num_events))


async def _accept(home: Home, mode: str, in_flight: int, num_events: int) -> dict[str, Any]:
    catalogue = f"turn-{next(_turns)}"
    settings = Settings(
        home=home.root, catalogue=catalogue, state=StateSettings.parse({"ingest": mode}, "here")
    )
    url, keys = url_of(settings, home), Keys(catalogue, settings.state.partitions)
    client = connect_async(url)
    intake = Intake(client, url, keys, settings, home)
    intake.start()
    waiting = iter(_batches(num_events))
    batch_ms: list[float] = []
    began = time.perf_counter()
    await asyncio.gather(*(_send(intake, waiting, batch_ms) for _ in range(in_flight)))
    accepted = time.perf_counter() - began
    await asyncio.to_thread(_await_logged, url, keys, num_events)
    logged = time.perf_counter() - began
    await asyncio.to_thread(intake.stop)
    await client.flushdb()
    await client.aclose()
    middle = sorted(batch_ms)[len(batch_ms) // 2]
    return {"accepted": num_events / accepted, "logged": num_events / logged, "batch_ms": middle}


async def _send(intake: Intake, waiting: Any, batch_ms: list[float]) -> None:
    for batch in waiting:
        began = time.perf_counter()
        await intake.append(batch)
        batch_ms.append(1000 * (time.perf_counter() - began))


def _await_logged(url: str, keys: Keys, num_events: int) -> None:
    with connect(url) as client:
        while sum(client.xlen(keys.events(p)) for p in range(keys.partitions)) < num_events:  # type: ignore[misc]
            time.sleep(0.002)


def _batches(num_events: int) -> list[list[Event]]:
    events = [
        Event(
            event_id=f"event-{n:032x}", user_id=f"user-{n % NUM_USERS}", item_id=f"item-{n % 997}", kind="click",
            timestamp_ms=1_750_000_000_000 + n, request_id=f"{n:032x}", position=n % 10, context={"device": "tv"},
        )
        for n in range(num_events)
    ]  # fmt: skip
    return [events[start : start + BATCH] for start in range(0, num_events, BATCH)]
