"""Requests that never stop, from a process of their own, and a growing log of what became of each.

They are sent at random (Poisson) moments whether or not earlier answers have come; a latency counts from the moment at which
the request was due. `python benchmarks/chaos_load.py URL --rate 20` sends until its input ends, and prints a line of JSON each.
"""

import argparse
import asyncio
import gc
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from serving_load import Client, K

LOST_SECONDS = 2.0
"""A client that waits no longer: twenty times the deadline."""
LOST = 0
"""Status of a request without an answer."""


class Asked(NamedTuple):
    """One request: when it was due (wall clock, s), how long it took from then on, and what came."""

    due: float
    latency_ms: float
    status: int
    rungs: tuple[str, ...]
    error: str

    @property
    def is_fault(self) -> bool:
        """Whether the service says that it is at fault."""
        return self.status >= 500

    @property
    def is_whole(self) -> bool:
        """Whether the answer came by all stages."""
        return self.status == 200 and not self.rungs


@contextmanager
def requests(url: str, rate: float, num_users: int) -> Iterator[list[Asked]]:
    """The log, in the order of the answers; it ends with the block."""
    log: list[Asked] = []
    command = [sys.executable, __file__, url, "--rate", str(rate), "--users", str(num_users)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None

        def read() -> None:
            for line in process.stdout or ():
                due, latency_ms, status, rungs, error = json.loads(line)
                log.append(Asked(due, latency_ms, status, tuple(rungs), error))

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            yield log
        finally:
            process.stdin.close()
            process.wait(timeout=10 * LOST_SECONDS)
            reader.join()


async def _send(url: str, rate: float, num_users: int) -> None:
    client, rng = Client(url), np.random.default_rng(0)
    ended, tasks = asyncio.Event(), set[asyncio.Task[None]]()
    loop = asyncio.get_running_loop()
    loop.run_in_executor(None, sys.stdin.read).add_done_callback(lambda _: ended.set())
    due = time.perf_counter()
    apart = time.time() - due
    while not ended.is_set():
        due += rng.exponential(1 / rate)
        await asyncio.sleep(max(due - time.perf_counter(), 0.0))
        task = asyncio.create_task(_one(client, due, apart, f"u{rng.integers(num_users)}"))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)


async def _one(client: Client, due: float, apart: float, user_id: str) -> None:
    status, answer, failed = LOST, dict[str, Any](), ""
    try:
        async with asyncio.timeout(LOST_SECONDS):
            status, answer = await client.post("/v1/recommendations", {"user_id": user_id, "k": K})
    except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        failed = type(error).__name__
    latency_ms = 1000 * (time.perf_counter() - due)
    said = failed or str(answer.get("detail", ""))
    print(json.dumps([due + apart, latency_ms, status, answer.get("degraded", []), said]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url")
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--users", type=int, default=1000)
    asked = parser.parse_args()
    gc.disable()
    asyncio.run(_send(asked.url, asked.rate, asked.users))


if __name__ == "__main__":
    main()
