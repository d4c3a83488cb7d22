"""Routers and the joiner: how fast one decision is, and whether rewards get lost between many routers and one joiner."""

import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from turns import Effort, Part, column, shown

from tastemaker.config import Settings
from tastemaker.events.attribution import Outcome
from tastemaker.events.consumer import StreamConsumer
from tastemaker.events.drained import await_drained
from tastemaker.events.log import append
from tastemaker.events.schema import Event
from tastemaker.experiments.allocation import (
    Adaptive,
    Contextual,
    Fixed,
    LinThompson,
    LinUcb,
    Thompson,
    arm_context,
)
from tastemaker.experiments.assignment import Assignment, assign_fixed
from tastemaker.experiments.decision_log import Decision, append_decision
from tastemaker.experiments.definition import Experiment, Variant
from tastemaker.experiments.eligibility import Subject
from tastemaker.experiments.posterior import Posterior, increments, read_posterior
from tastemaker.experiments.reward_joiner import RewardJoiner
from tastemaker.experiments.router import Router, draw, takes_part
from tastemaker.experiments.store import ExperimentStore
from tastemaker.features.stream import StreamFeatures
from tastemaker.home import Home
from tastemaker.state.connection import connect, connect_async, open_keys, url_of
from tastemaker.state.server import EmbeddedValkey

NUM_DECISIONS = 20_000
SNAPSHOT_EVERY = 2_000
"""A router that answers 2,000 requests a second reads a snapshot each second."""
TARGET_P99_US = 100.0
REPLICAS, PROCESSES, UNITS = 16, 4, 100
WINDOW_SECONDS, LEASE_SECONDS = 6.0, 2.0
CATALOGUE = "bench"


def router(effort: Effort) -> Part:
    """Both halves."""
    part = Part(
        "Router",
        ("one decision, on one core", "decisions a second", "p50, us", "p99, us", "p99 by the clock, us"),
    )
    num = max(2_000, NUM_DECISIONS // effort.divide)
    speeds = {
        name: [_speed(of, num, turn) for turn in range(min(effort.turns, 3))] for name, of in _kinds().items()
    }
    for name, found in speeds.items():
        cells = (
            shown(column(found, key), digits)
            for key, digits in (("per_second", 0), ("p50", 1), ("p99", 1), ("wall_p99", 1))
        )
        part.rows.append((name, *cells))
        p99 = statistics.median(column(found, "p99"))
        part.target(f"p99 of one decision, {name}, us", p99, TARGET_P99_US, "lower")
    units = max(20, UNITS // effort.divide)
    lost = _lost(units)
    part.notes += [
        "A decision is all that a router does but for keeping a bandit's draw: is the unit in the layer's range, which shares, which "
        f"variant. Times are of the processor, beside them by the clock, which has whatever else this machine did. A new snapshot comes every {SNAPSHOT_EVERY:,} decisions, and with it the integrals anew.",
        f"{REPLICAS} routers in {PROCESSES} processes, {REPLICAS * units:,} decisions over a real Valkey at {lost['per_second']:,.0f} a second, "
        f"each kept and logged, {lost['clicks']:,} with a click; the one joiner was killed half-way, and another took over: "
        f"{lost['joined']:,} decisions came to the posterior, {lost['wrong']} differ from what was sent. assign with its draw kept: "
        f"p50 {lost['p50_ms']:.2f} ms, p99 {lost['p99_ms']:.2f} ms with everything on this machine's cores.",
    ]
    part.target("rewards lost or counted twice, 16 routers and one joiner", lost["wrong"], 0, "lower")
    part.figures, part.num_turns = {"speeds": speeds, "lost": lost}, min(effort.turns, 3)
    return part


def _kinds() -> dict[str, Fixed | Adaptive]:
    return {
        "fixed split of 2": Fixed(weights=(0.5, 0.5)),
        "Thompson of 2": Thompson(),
        "Thompson of 4, real rewards": Thompson(reward="real"),
        "LinUCB of 4": LinUcb(),
        "linear Thompson of 4": LinThompson(),
    }


def _speed(allocation: Fixed | Adaptive, num: int, seed: int) -> dict[str, float]:
    """Seconds by decision, in a process held to one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        return _timed(allocation, num, np.random.default_rng(seed))
    finally:
        os.sched_setaffinity(0, cores)


def _timed(allocation: Fixed | Adaptive, num: int, generator: np.random.Generator) -> dict[str, float]:
    variants = tuple(Variant(name=f"v{n}", alias="champion") for n in range(_num_variants(allocation)))
    one = Experiment(name="exp", hypothesis="h", salt="s", variants=variants, allocation=allocation)
    subjects = [_subject(generator, n) for n in range(num)]
    fields = _fields(one, generator, num)
    now_ms = time.time_ns() // 1_000_000
    taken, waited = np.empty(num), np.empty(num)
    posterior = Posterior.decode(fields)
    for n, subject in enumerate(subjects):
        if n % SNAPSHOT_EVERY == 0:
            posterior = Posterior.decode(fields)
        began, worked = time.perf_counter_ns(), time.thread_time_ns()
        _decide(one, posterior, subject, now_ms)
        taken[n], waited[n] = time.thread_time_ns() - worked, time.perf_counter_ns() - began
    p50, p99 = np.quantile(taken, (0.5, 0.99)) / 1000
    wall_p99 = float(np.quantile(waited, 0.99)) / 1000
    return {"per_second": 1e9 * num / taken.sum(), "p50": float(p50), "p99": float(p99), "wall_p99": wall_p99}


def _num_variants(allocation: Fixed | Adaptive) -> int:
    is_two = isinstance(allocation, Fixed) or (
        isinstance(allocation, Thompson) and allocation.reward == "binary"
    )
    return 2 if is_two else 4


def _decide(one: Experiment, posterior: Posterior, subject: Subject, now_ms: int) -> Assignment:
    unit = takes_part(one, subject, now_ms)
    assert unit is not None
    if isinstance(one.allocation, Fixed):
        return assign_fixed(one, unit)
    return draw(one, posterior, unit, now_ms, arm_context(one.allocation, subject.features()))


def _subject(generator: np.random.Generator, n: int) -> Subject:
    context = {
        "device": str(generator.choice(["phone", "tablet", "desktop", "tv"])),
        "country": str(generator.choice(["de", "fr", "us", "jp", "br", "in", "gb", "es", "it", "pl"])),
        "local_time": f"2026-11-26T{generator.integers(0, 24):02d}:00:00",
    }
    return Subject(f"user-{n}", context=context, is_known=bool(generator.integers(0, 2)))


def _fields(one: Experiment, generator: np.random.Generator, num: int) -> dict[str, str]:
    """A posterior of 2,000 decisions."""
    if isinstance(one.allocation, Fixed):
        return {}
    totals: Counter[str] = Counter()
    for n in range(min(num, 2_000)):
        context = arm_context(one.allocation, _subject(generator, n).features())
        context = context if isinstance(one.allocation, Contextual) else ()
        place = int(generator.integers(0, len(one.variants)))
        reward = float(generator.random() < 0.1 + 0.01 * place)
        for name, value in increments(
            Outcome("exp", one.variants[place].name, reward, n, context), one.allocation, True
        ):
            totals[name] += value  # type: ignore[assignment]
    return {name: repr(float(value)) for name, value in totals.items()} | {"version": "1"}


def _lost(units: int) -> dict[str, Any]:
    """What 16 routers sent, and what one joiner made of it."""
    with tempfile.TemporaryDirectory() as folder:
        home = Home.make(Path(folder) / "home")
        with EmbeddedValkey(home):
            settings = Settings(home=home.root, catalogue=CATALOGUE)
            with connect(url_of(settings, home), timeout_seconds=60.0) as client:
                return _compare(home, client, settings, units)


def _compare(home: Home, client: Any, settings: Settings, units: int) -> dict[str, Any]:
    keys = open_keys(client, settings)
    arms = (Variant(name="a", alias="champion"), Variant(name="b", alias="champion"))
    ExperimentStore(client, keys).create(
        Experiment(
            name="exp", hypothesis="h", salt="s", origin="simulator", variants=arms,
            allocation=Thompson(), attribution_window_seconds=WINDOW_SECONDS,
        )
    )  # fmt: skip
    sent = _traffic(home, client, keys, units)
    found = read_posterior(client, keys, "exp")
    expected: Counter[str] = sum((Counter(one["outcomes"]) for one in sent), Counter())
    counted = {f"{name}:1": int(count) for name, count in found.successes.items()}
    counted |= {f"{name}:0": int(count) for name, count in found.failures.items()}
    names = expected.keys() | counted.keys()
    latency = np.concatenate([one["ms"] for one in sent])
    return {
        "wrong": sum(abs(expected[name] - counted.get(name, 0)) for name in names),
        "joined": found.version,
        "clicks": sum(count for name, count in expected.items() if name.endswith(":1")),
        "per_second": sum(expected.values()) / max(one["seconds"] for one in sent),
        "p50_ms": float(np.median(latency)),
        "p99_ms": float(np.quantile(latency, 0.99)),
    }


def _traffic(home: Home, client: Any, keys: Any, units: int) -> list[dict[str, Any]]:
    """What the processes of routers sent, once all of it is joined; the joiner dies meanwhile, and another takes over."""
    running = [_spawn("join", home.root)]
    senders = [_spawn("route", home.root, number, units) for number in range(PROCESSES)]
    try:
        time.sleep(3.0)
        running[0].send_signal(signal.SIGKILL)  # with decisions open and clicks on their way
        running.append(_spawn("join", home.root))
        sent = [json.loads(sender.communicate(timeout=240)[0]) for sender in senders]
        assert await_drained(client, keys, timeout_seconds=120.0), "the joiner did not come to an end"
    finally:
        for one in (*running, *senders):
            one.kill()
            one.wait()
    return sent


def _spawn(*words: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, __file__, *map(str, words)], stdout=subprocess.PIPE)


def route(home: Home, number: int, units: int) -> None:
    """Some of the routers, in a process of their own."""
    print(json.dumps(asyncio.run(_route(home, number, units))))


async def _route(home: Home, number: int, units: int) -> dict[str, Any]:
    settings = Settings(home=home.root, catalogue=CATALOGUE)
    log = connect(url_of(settings, home), timeout_seconds=60.0)
    keys = open_keys(log, settings)
    outcomes: Counter[str] = Counter()
    taken: list[float] = []

    async def one_router(replica: int) -> None:
        generator = np.random.default_rng([number, replica])
        client = connect_async(url_of(settings, home))
        routed = Router(client, keys)
        for n in range(units):
            user = f"user-{number}-{replica}-{n}"
            now_ms = time.time_ns() // 1_000_000
            began = time.perf_counter()
            assignment = (await routed.assign(Subject(user), now_ms, "simulator")).first
            taken.append(1000 * (time.perf_counter() - began))
            assert assignment is not None
            clicked = bool(generator.random() < (0.2 if assignment.variant == "a" else 0.4))
            _send(log, keys, settings, assignment, user, now_ms, clicked=clicked)
            outcomes[f"{assignment.variant}:{int(clicked)}"] += 1
            await asyncio.sleep(0.03)
        await client.aclose()

    began = time.monotonic()
    await asyncio.gather(*(one_router(replica) for replica in range(REPLICAS // PROCESSES)))
    return {"outcomes": outcomes, "ms": taken, "seconds": time.monotonic() - began}


def _send(
    client: Any,
    keys: Any,
    settings: Settings,
    assignment: Assignment,
    user: str,
    now_ms: int,
    *,
    clicked: bool,
) -> None:
    request_id = f"request-{user}"
    decision = Decision(
        decision_id=request_id, request_id=request_id, timestamp_ms=now_ms, catalogue=CATALOGUE, origin="simulator",
        unit=user, user_id=user, bundle="b", experiment=assignment.experiment, variant=assignment.variant,
        epoch=assignment.epoch, propensity=assignment.propensity, propensities=assignment.propensities,
    )  # fmt: skip
    append_decision(client, keys, decision, settings.state)
    if clicked:
        click = Event(
            event_id=f"click-{user}", user_id=user, item_id="i", kind="click", timestamp_ms=now_ms,
            request_id=request_id, origin="simulator",
        )  # fmt: skip
        append(client, keys, [click, click], settings.state, now_ms, durable=False)


def join(home: Home) -> None:
    """The joiner, in a process of its own, until it is ended."""
    settings = Settings(home=home.root, catalogue=CATALOGUE)
    client = connect(url_of(settings, home))
    keys = open_keys(client, settings)
    rewards, effects = RewardJoiner(client, keys), StreamFeatures(client, keys, home)
    consumer = StreamConsumer(client, keys, home, settings, rewards, effects, LEASE_SECONDS)
    while True:
        if not consumer.step().behind:
            time.sleep(0.02)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["join", root]:
            join(Home.open(Path(root)))
        case ["route", root, number, units]:
            route(Home.open(Path(root)), int(number), int(units))
