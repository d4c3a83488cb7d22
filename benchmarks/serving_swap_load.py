"""Sends requests for recommendations at random moments until its input ends, and prints each answer as it comes.

A line of JSON for each: when it was due (wall clock, s), latency from then on (ms), status, bundle, item ids, whether it was
degraded. `python benchmarks/serving_swap_load.py http://127.0.0.1:8700 --rate 25 --users 2000`.
"""

import argparse
import asyncio
import gc
import json
import sys
import time
from typing import Any

import numpy as np
from serving_load import LOST_SECONDS, Client, K


async def send(url: str, rate: float, num_users: int) -> None:
    """Sends until stdin ends; a line of JSON for each answer."""
    client, rng = Client(url), np.random.default_rng(0)
    ended, tasks = asyncio.Event(), set[asyncio.Task[None]]()
    loop = asyncio.get_running_loop()
    loop.run_in_executor(None, sys.stdin.read).add_done_callback(lambda _: ended.set())
    due = time.perf_counter()
    apart = time.time() - time.perf_counter()
    while not ended.is_set():
        due += rng.exponential(1 / rate)
        await asyncio.sleep(max(due - time.perf_counter(), 0.0))
        task = asyncio.create_task(_one(client, due, apart, int(rng.integers(num_users))))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)


async def _one(client: Client, due: float, apart: float, user: int) -> None:
    status, answer = 0, dict[str, Any]()
    try:
        async with asyncio.timeout(LOST_SECONDS):
            status, answer = await client.post("/v1/recommendations", {"user_id": f"u{user}", "k": K})
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        status = 0
    latency_ms = 1000 * (time.perf_counter() - due)
    ids = [item["item_id"] for item in answer.get("items", ())]
    row = [due + apart, latency_ms, status, answer.get("bundle", ""), ids, bool(answer.get("degraded"))]
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url")
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--users", type=int, required=True)
    asked = parser.parse_args()
    gc.disable()
    asyncio.run(send(asked.url, asked.rate, asked.users))
