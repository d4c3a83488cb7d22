"""Sends requests for recommendations to a gateway from a process of its own, and says how long each took.

`--rate` sends at random (Poisson) moments whether or not earlier answers have come; a latency counts from the moment at
which the request was due, so that queueing shows. `--in-flight` sends the next when one is answered. Users come at random.
Prints JSON: `python benchmarks/serving_load.py http://127.0.0.1:8700 --rate 25 --seconds 20 --users 2000`.
"""

import argparse
import asyncio
import gc
import json
import subprocess
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np

K = 20
WORK = ("retrieve_work", "rank_work", "rerank_work")
TIMED = ("history", "wait", "retrieve", "rank", "rerank", *WORK, "total")
LOST_SECONDS = 30.0
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Found:
    """What came back. Latencies in ms; `stages` are the server's own timings of answers."""

    latency_ms: list[float] = field(default_factory=list)
    late_ms: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    status: Counter[str] = field(default_factory=Counter)
    rungs: Counter[str] = field(default_factory=Counter)
    degraded: int = 0
    seconds: float = 0.0


class Client:
    """HTTP/1.1 with kept connections and nothing else: it must not take the cores from what is measured."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._host, self._port = parts.hostname, parts.port or 80
        self._free: list[Streams] = []

    async def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Status and the JSON that came back, {} where it is none: a proxy's own page. A kept connection that the server has closed meanwhile is not its fault."""
        while self._free:
            try:
                return await self._exchange(self._free.pop(), path, body)
            except (ConnectionError, asyncio.IncompleteReadError) as error:
                if isinstance(error, asyncio.IncompleteReadError) and error.partial:
                    raise
        return await self._exchange(await asyncio.open_connection(self._host, self._port), path, body)

    async def _exchange(self, streams: Streams, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        reader, writer = streams
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: {self._host}\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        writer.write(head.encode() + content)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
        answer = await reader.readexactly(int(headers["content-length"]))
        if headers.get("connection") == "close":
            writer.close()
        else:
            self._free.append(streams)
        is_json = "json" in headers.get("content-type", "")
        return int(lines[0].split()[1]), json.loads(answer) if is_json else {}


class Load:
    """One run against one gateway."""

    def __init__(self, url: str, num_users: int, deadline_ms: float | None, seed: int) -> None:
        self._client, self._rng = Client(url), np.random.default_rng(seed)
        self._num_users, self._deadline_ms = num_users, deadline_ms
        self.found = Found()

    async def one(self, due: float, *, counts: bool) -> None:
        """Asks for one list; `due` is when it should have been."""
        body: dict[str, Any] = {"user_id": f"u{self._rng.integers(self._num_users)}", "k": K}
        if self._deadline_ms:
            body["deadline_ms"] = self._deadline_ms
        late = time.perf_counter() - due
        try:
            async with asyncio.timeout(LOST_SECONDS):
                status, answer = await self._client.post("/v1/recommendations", body)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            status, answer = 0, {"error": type(error).__name__}
        if not counts:
            return
        found = self.found
        found.late_ms.append(1000 * late)
        found.latency_ms.append(1000 * (time.perf_counter() - due))
        found.status[str(status)] += 1
        if status == 200:
            found.degraded += bool(answer["degraded"])
            found.rungs.update(answer["degraded"])
            for name in TIMED:
                found.stages[name].append(answer["timings_ms"].get(name, float("nan")))

    async def at_rate(self, rate: float, seconds: float, warm_up: float) -> None:
        """Poisson arrivals; those of the first `warm_up` seconds do not count."""
        due_N = np.cumsum(self._rng.exponential(1 / rate, int(rate * (seconds + warm_up))))
        began, tasks = time.perf_counter(), []
        for due in due_N.tolist():
            await asyncio.sleep(max(began + due - time.perf_counter(), 0.0))
            tasks.append(asyncio.create_task(self.one(began + due, counts=due > warm_up)))
        await asyncio.gather(*tasks)
        self.found.seconds = time.perf_counter() - began - warm_up

    async def in_flight(self, number: int, seconds: float, warm_up: float) -> None:
        """So many at a time, each followed by the next."""
        began = time.perf_counter()

        async def go_on() -> None:
            while (now := time.perf_counter()) < began + warm_up + seconds:
                await self.one(now, counts=now > began + warm_up)

        await asyncio.gather(*(go_on() for _ in range(number)))
        self.found.seconds = time.perf_counter() - began - warm_up


def send(url: str, **asked: Any) -> dict[str, Any]:
    """What a run in a process of its own found; arguments as of the command line."""
    options = [part for name, value in asked.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, __file__, url, *options]
    out = subprocess.run(command, capture_output=True, text=True, check=False)
    if out.returncode:
        raise RuntimeError(f"the load failed: {out.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(out.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url")
    parser.add_argument("--rate", type=float, help="requests a second, open loop")
    parser.add_argument("--in-flight", type=int, help="requests at a time, closed loop")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--warm-up", type=float, default=2.0)
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--deadline-ms", type=float)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    load = Load(asked.url, asked.users, asked.deadline_ms, asked.seed)
    gc.disable()
    if asked.rate:
        asyncio.run(load.at_rate(asked.rate, asked.seconds, asked.warm_up))
    else:
        asyncio.run(load.in_flight(asked.in_flight or 1, asked.seconds, asked.warm_up))
    print(json.dumps(load.found.__dict__))


if __name__ == "__main__":
    main()
