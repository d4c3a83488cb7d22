"""What one request costs a fused gateway's process: CPU by thread, stages, collector, switches, faults, and functions by own time.

Runs the gateway, its stages and its routes in this process, without Ray, proxy and sockets; Valkey alone is another. Requests come
one after the other, so what a request costs is told also by a machine that does other work; latencies are not. With `--bare` it is
`serving_bare`'s application in the gateway's place, and the difference is what a gateway adds. Not a benchmark: `serving` is.

    python benchmarks/serving_world.py FOLDER --items 1000000 --users 2000
    python benchmarks/serving_profile.py FOLDER/home --requests 1000 [--bare] [--functions 40]
"""

import argparse
import asyncio
import cProfile
import gc
import json
import pstats
import resource
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
import torch
from fastapi import FastAPI
from serving_bare import create
from serving_load import TIMED, K

from tastemaker.config import Settings
from tastemaker.home import Home
from tastemaker.registry.client import Registry
from tastemaker.registry.live import write_live
from tastemaker.state.connection import open_keys, open_state

WARM_UP: Final = 200
PATIENT_MS: Final = 5000
READY_SECONDS: Final = 120.0


async def post(app: FastAPI, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The answer to one request, by ASGI; one that a busy machine made the gateway refuse is as a degraded one."""
    content, parts, is_refused = json.dumps(body).encode(), list[bytes](), list[bool]()
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            parts.append(message.get("body", b""))
        elif message["status"] == 429:
            is_refused.append(True)
        elif message["status"] != 200:
            raise RuntimeError(f"status {message['status']}")

    await app(scope, receive, send)
    found: dict[str, Any] = json.loads(b"".join(parts))
    return {"degraded": ["refused"]} if is_refused else found


class Costs:
    """What the process uses between two moments."""

    def __init__(self) -> None:
        self._collected: dict[int, list[float]] = defaultdict(list)
        self._began = 0.0

    @contextmanager
    def counted(self) -> Iterator[dict[str, Any]]:
        """Fills what it gives once it ends."""
        found: dict[str, Any] = {}
        gc.callbacks.append(self._collect)
        usage, threads, began = resource.getrusage(resource.RUSAGE_SELF), _threads(), time.perf_counter()
        yield found
        found["seconds"] = time.perf_counter() - began
        gc.callbacks.remove(self._collect)
        after, now = resource.getrusage(resource.RUSAGE_SELF), _threads()
        found["threads"] = {
            name: seconds - threads.get(name, 0.0)
            for name, seconds in now.items()
            if seconds > threads.get(name, 0.0)
        }
        for name in ("ru_utime", "ru_stime", "ru_minflt", "ru_nvcsw", "ru_nivcsw"):
            found[name] = getattr(after, name) - getattr(usage, name)
        found["collected"] = {
            generation: (len(times), 1000 * max(times)) for generation, times in self._collected.items()
        }

    def _collect(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.perf_counter()
        else:
            self._collected[info["generation"]].append(time.perf_counter() - self._began)


def _threads() -> dict[str, float]:
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    found: dict[str, float] = defaultdict(float)
    for thread in psutil.Process().threads():
        found[names.get(thread.id, "not Python's")] += thread.user_time + thread.system_time
    return found


async def asked(app: FastAPI, number: int, num_users: int, seed: int) -> list[dict[str, float]]:
    """The timings of that many whole answers, in ms."""
    rng, found = np.random.default_rng(seed), []
    for user in rng.integers(num_users, size=number):
        began = time.perf_counter()
        answer = await post(
            app, "/v1/recommendations", {"user_id": f"u{user}", "k": K, "deadline_ms": PATIENT_MS}
        )
        whole = 1000 * (time.perf_counter() - began)
        if not answer["degraded"]:
            found.append(answer["timings_ms"] | {"whole": whole})
    return found


async def measured(app: FastAPI, pool: Any, options: argparse.Namespace) -> None:
    """Prints what requests cost, then what functions they spend it in."""
    await asked(app, WARM_UP, options.users, seed=0)
    with Costs().counted() as costs:
        timings = await asked(app, options.requests, options.users, seed=1)
    _print(timings, costs, options.requests)
    if options.functions:
        await _print_functions(app, pool, options)


def _print(timings: list[dict[str, float]], costs: dict[str, Any], number: int) -> None:
    """Stages by the whole answers, costs by all `number` requests."""
    print(f"{len(timings)} of {number} answers whole")
    for name in (*TIMED, "whole"):
        times = [one[name] for one in timings if name in one] or [float("nan")]
        p50, p95, p99 = np.percentile(times, [50, 95, 99])
        print(f"{name:10} p50 {p50:7.3f}  p95 {p95:7.3f}  p99 {p99:7.3f} ms")
    used = costs["ru_utime"] + costs["ru_stime"]
    print(
        f"CPU {1e3 * used / number:.3f} ms a request, {1e3 * costs['ru_stime'] / number:.3f} of them the system's"
    )
    for name, seconds in sorted(costs["threads"].items(), key=lambda thread: -thread[1]):
        print(f"  {name:28} {1e3 * seconds / number:7.3f} ms a request")
    told = (("ru_minflt", "page faults"), ("ru_nvcsw", "waits"), ("ru_nivcsw", "switches"))
    print(", ".join(f"{costs[name] / number:.2f} {what} a request" for name, what in told))
    for generation, (times, longest) in sorted(costs["collected"].items()):
        print(
            f"collector, generation {generation}: {times} times in {number} requests, at most {longest:.2f} ms"
        )
    sizes = [(len(held), type(held).__name__) for held in gc.get_objects() if type(held) in (list, dict, set)]
    print("largest that it looks at:", ", ".join(f"{kind} of {size:,}" for size, kind in sorted(sizes)[-5:]))


async def _print_functions(app: FastAPI, pool: Any, options: argparse.Namespace) -> None:
    """By CPU time, of the event loop's thread and of that of the stages; the profiler makes small functions look dearer."""
    loop, profiles = asyncio.get_running_loop(), {"event loop": cProfile.Profile(time.thread_time)}
    if pool is not None:
        profiles["stages"] = cProfile.Profile(time.thread_time)
        await loop.run_in_executor(pool, profiles["stages"].enable)
    profiles["event loop"].enable()
    await asked(app, options.requests // 2, options.users, seed=2)
    profiles["event loop"].disable()
    if pool is not None:
        await loop.run_in_executor(pool, profiles["stages"].disable)
    for name, profile in profiles.items():
        print(f"\n{name}, ms by request:")
        _print_top(profile, options.requests // 2, options.functions, options.sort)


def _print_top(profile: cProfile.Profile, number: int, most: int, sort: str) -> None:
    rows: Any = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    by = 2 if sort == "own" else 3
    for (file, line, function), (_, calls, own, whole, _) in sorted(
        rows.items(), key=lambda row: -row[1][by]
    )[:most]:
        place = f"{'/'.join(Path(file).parts[-2:])}:{line}" if line else ""
        print(
            f"{1e3 * own / number:8.3f} own {1e3 * whole / number:8.3f} with calls {calls / number:8.2f} x  {function} {place}"
        )


async def _gateway(home: Home, options: argparse.Namespace) -> None:
    from tastemaker_services.graph.ingress import GatewayReplica

    patient = {"deadline_ms": PATIENT_MS}  # else a busy machine is shed, and its requests cost nothing
    serving = {"graph": "fused", "source_ms": PATIENT_MS}
    settings = Settings.model_validate(
        {"home": home.root, "cache": {"seconds": 0}, "gateway": patient, "serving": serving}
    )
    replica = GatewayReplica(settings)
    app = replica.__serve_build_asgi_app__()
    async with app.router.lifespan_context(app):
        give_up = time.monotonic() + READY_SECONDS
        while (reason := await replica.why_not_ready()) is not None:
            assert time.monotonic() < give_up, reason
            await asyncio.sleep(0.2)
        await measured(app, replica._graph._all._pool, options)  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("home", type=Path)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--functions", type=int, default=40)
    parser.add_argument("--sort", choices=("own", "whole"), default="own")
    parser.add_argument("--bare", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    home = Home.open(options.home)
    settings = Settings(home=home.root)
    with open_state(settings, home) as client:
        registry = Registry(settings, home)
        write_live(client, open_keys(client, settings), registry.aliases(settings.catalogue))
        if options.bare:
            asyncio.run(measured(create(home), None, options))
        else:
            asyncio.run(_gateway(home, options))


if __name__ == "__main__":
    main()
