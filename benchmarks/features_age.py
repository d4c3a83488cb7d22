"""How old an event is when it counts: from HTTP to the user's record, and to the next answer, under a steady load.

A small bundle is trained and really served. A process of its own posts events over HTTP in batches, at half of what one
consumer has to apply; meanwhile one thread hides the first item of a new user's list and asks again until it is gone,
and another posts a view and looks for it in the user's record, which is what the next request's retrieval reads. All of it shares this
machine's cores.
"""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import redis
from report import ROOT
from turns import Effort, Part

sys.path.append(str(ROOT / "tests" / "support"))
from small import NUM_ITEMS, SmallHome

from tastemaker.config import Settings
from tastemaker.features.user_state import UserState
from tastemaker.home import Home
from tastemaker.state.connection import connect, url_of
from tastemaker.state.keys import Keys

SECONDS = 45
PER_SECOND, BATCH, LOAD_USERS = 5000, 250, 20_000
POLL_SECONDS, LOOK_SECONDS = 0.025, 0.002
LOST_SECONDS = 10.0
TARGET_AGE_SECONDS, TARGET_RECORD_MS = 1.0, 100.0
_names = itertools.count()


@dataclass(frozen=True)
class Served:
    """What runs: the gateway, its state, and the consumer's process."""

    url: str
    client: redis.Redis
    keys: Keys
    consumer: psutil.Process


def age(effort: Effort) -> Part:
    seconds, others = max(SECONDS // effort.divide, 12), os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as serving:
        idle = cpu_share(serving.consumer, lambda: time.sleep(5.0))
        quiet = probes(serving, 5.0)
        load: dict[str, float] = {}
        found: dict[str, list[float]] = {}

        def both() -> None:
            with loading(serving.url, seconds) as finished:
                time.sleep(3.0)  # the load has come up
                found.update(probes(serving, seconds - 4.0))
                load.update(finished())

        busy = cpu_share(serving.consumer, both)
    part = Part(
        f"Age of events: {load['events_per_second']:,.0f} a second over HTTP in batches of {BATCH} for {seconds} s, all of "
        f"it on {os.cpu_count()} cores",
        ("from", "to", "number", "ms, p50", "p95", "p99"),
    )
    part.rows = [
        ("a batch is sent", "202", f"{load['batches']:.0f}", *(f"{load[f'p{p}_ms']:.0f}" for p in (50, 95, 99))),
        row("an event is sent", "its user's record has it", found["record"]),
        row("an event is accepted (202)", "the next answer shows it", found["answer"]),
        row("an event is sent, no other load", "its user's record has it", quiet["record"]),
        row("an event is accepted, no other load", "the next answer shows it", quiet["answer"]),
    ]  # fmt: skip
    part.notes = [
        f"The record is looked for every {1000 * LOOK_SECONDS:.0f} ms in Valkey; it holds the session, and a request reads it "
        f"before retrieval. Answers are asked for every {1000 * POLL_SECONDS:.0f} ms, so that ages of answers are up to "
        "that and an answer's own time too high.",
        f"The consumer takes {100 * idle:.1f}% of a core while nothing comes, {100 * busy:.0f}% under the load. Gateway, "
        f"stages, Valkey, consumer, the load and the probes share the machine, whose load average was {others:.1f} before: where "
        "other work competes for the cores, ages are longer.",
    ]
    record, answer = found["record"], found["answer"]
    part.target(
        "accepted event to an answer that shows it, p99 s",
        percentile(answer, 99) / 1000,
        TARGET_AGE_SECONDS,
        "lower",
    )
    part.target(
        "event to the session that retrieval reads, p95 ms", percentile(record, 95), TARGET_RECORD_MS, "lower"
    )
    part.figures = {
        "load": load,
        "under load": found,
        "quiet": quiet,
        "consumer": {"idle": idle, "busy": busy},
    }
    return part


def percentile(values: list[float], which: float) -> float:
    return float(np.percentile(values, which))


def row(start: str, end: str, ms: list[float]) -> tuple[str, ...]:
    return (start, end, str(len(ms)), *(f"{percentile(ms, p):.0f}" for p in (50, 95, 99)))


@contextlib.contextmanager
def served(folder: Path) -> Iterator[Served]:
    """A trained home whose champion is served by the command line."""
    small = SmallHome(folder)
    small.run("train", "small.yaml")
    small.run("publish", "small")
    small.run("promote", "1", "--to", "champion", "--force", "--reason", "the only one")
    small.write("serve.yaml", "gateway: {port: 0, admin_port: 0}\n")
    process = small.start("--config", "serve.yaml", "serve")
    try:
        home = Home.open(small.home)
        announced = home / "run" / "serving.json"
        deadline = time.monotonic() + 180
        while not announced.exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "it does not serve"
            time.sleep(0.1)
        settings = Settings(home=home.root)
        with connect(url_of(settings, home)) as client:
            keys = Keys(settings.catalogue, settings.state.partitions)
            url = json.loads(announced.read_text())["url"]
            yield Served(url, client, keys, consumer_of(process.pid))
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=60)
        if process.poll() is None:
            process.kill()
            process.wait()


def consumer_of(pid: int) -> psutil.Process:
    """The consumer's process among what a served home has started."""
    (found,) = [
        child for child in psutil.Process(pid).children(recursive=True)
        if any(word.startswith("ray::_Actor") for word in child.cmdline())
    ]  # fmt: skip
    return found


def cpu_share(process: psutil.Process, during: Callable[[], Any]) -> float:
    """Share of one core that a process takes meanwhile."""
    before, began = process.cpu_times(), time.monotonic()
    during()
    after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / (time.monotonic() - began)


def probes(serving: Served, seconds: float) -> dict[str, list[float]]:
    """Ages in ms: until the record has an event, and until an answer shows one."""
    until = time.monotonic() + seconds
    found: dict[str, list[float]] = {"record": [], "answer": []}
    failures: list[Exception] = []

    def repeat(name: str, probe: Callable[[Served, httpx.Client], float]) -> None:
        try:
            with httpx.Client(base_url=serving.url, trust_env=False, timeout=LOST_SECONDS) as http:
                while time.monotonic() < until:
                    found[name].append(1000 * probe(serving, http))
                    time.sleep(0.01)
        except Exception as failure:  # noqa: BLE001 (raised below, in the thread that waits)
            failures.append(failure)

    threads = [
        threading.Thread(target=repeat, args=args) for args in (("record", to_record), ("answer", to_answer))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return found


def to_record(serving: Served, http: httpx.Client) -> float:
    """Seconds from sending a view until the user's record has it."""
    user = f"seen-{next(_names)}"
    sent = time.perf_counter()
    post(http, user, "1", "view")
    key: Any = serving.keys.user(user)
    client: Any = serving.client
    while not UserState.decode(client.execute_command("GET", key, NEVER_DECODE=True)).taken:
        assert time.perf_counter() - sent < LOST_SECONDS, f"the record of {user} never had the event"
        time.sleep(LOOK_SECONDS)
    return time.perf_counter() - sent


def to_answer(_: Served, http: httpx.Client) -> float:
    """Seconds from the acceptance of a `hide` until an answer lacks the item."""
    user = f"hides-{next(_names)}"
    item = ask(http, user)[0]
    post(http, user, item, "hide")
    accepted = asked = time.perf_counter()
    while item in ask(http, user):
        assert time.perf_counter() - accepted < LOST_SECONDS, f"{user} was shown the item on and on"
        asked += POLL_SECONDS
        time.sleep(max(asked - time.perf_counter(), 0.0))
    return time.perf_counter() - accepted


def ask(http: httpx.Client, user: str) -> list[str]:
    answer = http.post("/v1/recommendations", json={"user_id": user, "k": 10})
    answer.raise_for_status()
    return [item["item_id"] for item in answer.json()["items"]]


def post(http: httpx.Client, user: str, item: str, kind: str) -> None:
    answer = http.post("/v1/events", json={"events": [row_of(f"{user}-e", user, item, kind)]})
    assert answer.status_code == 202, answer.text
    assert answer.json()["accepted"] == 1


def row_of(event_id: str, user: str, item: str, kind: str) -> dict[str, Any]:
    now_ms = time.time_ns() // 1_000_000
    return {"event_id": event_id, "user_id": user, "item_id": item, "kind": kind, "timestamp_ms": now_ms}


@contextlib.contextmanager
def loading(url: str, seconds: float) -> Iterator[Callable[[], dict[str, float]]]:
    """Posts events from another process meanwhile; what is given waits for its end and tells how it went."""
    command = [sys.executable, __file__, url, str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:

        def finished() -> dict[str, float]:
            out, _ = process.communicate(timeout=60)
            assert process.returncode == 0
            measured: dict[str, float] = json.loads(out)
            return measured

        try:
            yield finished
        finally:
            process.kill()


async def load(url: str, seconds: float) -> dict[str, float]:
    """Posts batches at a fixed pace, whether or not the one before is answered."""
    rng = np.random.default_rng(0)
    users = rng.zipf(1.3, size=int(PER_SECOND * seconds)) % LOAD_USERS
    items = rng.integers(1, NUM_ITEMS + 1, size=len(users))
    kinds = rng.choice(["impression", "view", "click"], len(users), p=[0.6, 0.25, 0.15])
    times_ms: list[float] = []

    async def send(http: httpx.AsyncClient, start: int) -> int:
        rows = [
            row_of(f"load-{n}", f"load-{users[n]}", str(items[n]), str(kinds[n]))
            for n in range(start, min(start + BATCH, len(users)))
        ]
        sent = time.perf_counter()
        answer = await http.post("/v1/events", json={"events": rows})
        times_ms.append(1000 * (time.perf_counter() - sent))
        return int(answer.json()["accepted"]) if answer.status_code == 202 else 0

    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30.0) as http:
        began, tasks = time.perf_counter(), []
        for n, start in enumerate(range(0, len(users), BATCH)):
            await asyncio.sleep(max(began + n * BATCH / PER_SECOND - time.perf_counter(), 0.0))
            tasks.append(asyncio.create_task(send(http, start)))
        accepted = sum(await asyncio.gather(*tasks))
        took = time.perf_counter() - began
    shares = {f"p{p}_ms": percentile(times_ms, p) for p in (50, 95, 99)}
    return {"events_per_second": accepted / took, "batches": float(len(times_ms))} | shares


if __name__ == "__main__":
    print(json.dumps(asyncio.run(load(sys.argv[1], float(sys.argv[2])))))
