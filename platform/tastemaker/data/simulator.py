"""Lets a world's visitors use a running gateway over HTTP. What variants are truly worth to them: see `exact_lift`.

What happens here is marked origin=simulator throughout, so that nothing of it reaches training.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import httpx

from tastemaker.data.world import Visitor
from tastemaker.data.world_process import WorldProcess
from tastemaker.errors import ServingError
from tastemaker.terminal import progress

CONCURRENCY = 8
SLATE_SIZE = 10
EVENTS_EVERY_SECONDS = 0.1
SLATES_PER_POST = 32
TIMEOUT_SECONDS = 10.0
GIVE_UP_AFTER = 20
"""Failures in a row after which the gateway counts as gone."""
HEADERS = {"content-type": "application/json", "x-tastemaker-origin": "simulator"}


@dataclass(frozen=True, slots=True)
class Served:
    """One answered request. `latency_ms` is the client's, `timings_ms` the gateway's by stage."""

    visitor_id: str
    request: int
    session: list[str]
    slate: list[str]
    request_id: str
    experiment: str | None
    variant: str | None
    bundle: str | None
    degraded: list[str]
    timings_ms: dict[str, float]
    latency_ms: float


@dataclass(frozen=True, slots=True)
class Trace:
    """What all visitors of one run saw. `clicks` are clicked positions, from 0, by request id."""

    served: list[Served]
    clicks: dict[str, list[int]]
    failures: dict[str, int]
    num_visitors: int
    seconds: float

    def summary(self) -> dict[str, Any]:
        """Counts, wall time, latencies; JSON-able. Latencies are the gateway's by stage; `client` is ours."""
        latencies: dict[str, list[float]] = {"client": [one.latency_ms for one in self.served]}
        for one in self.served:
            for stage, milliseconds in one.timings_ms.items():
                latencies.setdefault(stage, []).append(milliseconds)
        return {
            "visitors": self.num_visitors,
            "requests": len(self.served) + sum(self.failures.values()),
            "failed": sum(self.failures.values()),
            "failures": self.failures,
            "degraded": sum(1 for one in self.served if one.degraded),
            "shown": sum(len(one.slate) for one in self.served),
            "clicks": sum(len(positions) for positions in self.clicks.values()),
            "variants": dict(Counter(one.variant or "" for one in self.served)),
            "seconds": self.seconds,
            "latencies_ms": latencies,
        }


class Simulator:
    """The visitors of `world`, as clients of the gateway at `url` (without `/v1`).

    `deadline_ms` is what each request gives the gateway; unset, the gateway's own holds.
    """

    def __init__(self, url: str, world: WorldProcess, deadline_ms: float | None = None) -> None:
        self._url, self._world, self._deadline_ms = url.rstrip("/"), world, deadline_ms

    def run(self, visitors: Sequence[Visitor]) -> Trace:
        """Every request of every visitor: a visitor's in order, `CONCURRENCY` visitors at once.

        Events follow in batches, about `EVENTS_EVERY_SECONDS` after the answer; at return all are sent.

        Raises:
            ServingError: The gateway is gone, or refuses the events.
        """
        started = time.monotonic()
        total = sum(len(visitor.sessions) for visitor in visitors)
        with (
            httpx.Client(
                base_url=self._url, headers=HEADERS, timeout=TIMEOUT_SECONDS, trust_env=False
            ) as client,
            progress("simulated requests", total) as advance,
        ):
            run = _Run(client, self._world, advance, SimpleQueue(), self._deadline_ms)
            run.all(visitors)
        return Trace(run.served, run.clicks, dict(run.failures), len(visitors), time.monotonic() - started)


@dataclass(slots=True)
class _Run:
    """One run under way. Threads make the requests; the caller's reports events and progress.

    Threads, not asyncio: httpx's synchronous client takes half the processor time of its asynchronous one, and the
    graph under test shares the machine.
    """

    client: httpx.Client
    world: WorldProcess
    advance: Callable[[int], None]
    waiting: SimpleQueue[Visitor]
    deadline_ms: float | None
    served: list[Served] = field(default_factory=list)
    clicks: dict[str, list[int]] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)
    failures_in_a_row: int = 0
    reported: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    stopping: threading.Event = field(default_factory=threading.Event)

    def all(self, visitors: Sequence[Visitor]) -> None:
        """All visitors, and all their events. Whatever fails ends the run once the requests under way are over."""
        for visitor in visitors:
            self.waiting.put(visitor)
        with ThreadPoolExecutor(CONCURRENCY) as threads:
            try:
                pending = {threads.submit(self._work) for _ in range(CONCURRENCY)}
                while pending:
                    done, pending = wait(pending, EVENTS_EVERY_SECONDS, FIRST_EXCEPTION)
                    for worker in done:
                        worker.result()
                    self._report()
            finally:
                self.stopping.set()

    def _work(self) -> None:
        while not self.stopping.is_set():
            try:
                visitor = self.waiting.get_nowait()
            except Empty:
                return
            for number in range(len(visitor.sessions)):
                self._request(visitor, number)

    def _request(self, visitor: Visitor, number: int) -> None:
        session = visitor.sessions[number]
        body: dict[str, Any] = {"user_id": visitor.visitor_id, "k": SLATE_SIZE, "session": session}
        if self.deadline_ms is not None:
            body["deadline_ms"] = self.deadline_ms
        started = time.perf_counter()
        try:
            response = self.client.post("/v1/recommendations", content=json.dumps(body))
            response.raise_for_status()
            latency_ms = (time.perf_counter() - started) * 1000
            one = _served(visitor, number, response.json(), latency_ms)
        except (httpx.HTTPError, ValueError, KeyError) as error:
            with self.lock:
                self._failed(error)
        else:
            with self.lock:
                self.served.append(one)
                self.failures_in_a_row = 0

    def _failed(self, error: Exception) -> None:
        status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None
        self.failures[f"status {status}" if status else type(error).__name__] += 1
        self.failures_in_a_row += 1
        if self.failures_in_a_row >= GIVE_UP_AFTER:
            raise ServingError(
                f"the gateway at {self.client.base_url} does not answer",
                value=f"{self.failures_in_a_row} failures in a row, the last {error!r}",
                mend="see its log, or start it with `tastemaker serve`",
            ) from error

    def _report(self) -> None:
        while self.reported < len(self.served):
            batch = self.served[self.reported : self.reported + SLATES_PER_POST]
            self.reported += len(batch)
            clicks = self.world.click([(one.visitor_id, one.slate, one.request) for one in batch])
            self.clicks |= {one.request_id: positions for one, positions in zip(batch, clicks, strict=True)}
            self._post([event for one in batch for event in _events(one, self.clicks[one.request_id])])
            self.advance(len(batch))

    def _post(self, events: list[dict[str, Any]]) -> None:
        try:
            response = self.client.post("/v1/events", content=json.dumps({"events": events}))
            response.raise_for_status()
            rejected = response.json()["rejected"]
        except (httpx.HTTPError, ValueError, KeyError) as error:
            text = f"{type(error).__name__}: {error}"
            raise ServingError(
                "events were not accepted", value=text, mend="see the gateway's log"
            ) from error
        if rejected:
            raise ServingError("events were rejected", value=response.text[:200], mend="report this")


def _served(visitor: Visitor, number: int, answer: dict[str, Any], latency_ms: float) -> Served:
    return Served(
        visitor_id=visitor.visitor_id,
        request=number,
        session=visitor.sessions[number],
        slate=[item["item_id"] for item in answer["items"]],
        request_id=answer["request_id"],
        experiment=answer["experiment"],
        variant=answer["variant"],
        bundle=answer["bundle"],
        degraded=answer["degraded"],
        timings_ms=answer["timings_ms"],
        latency_ms=latency_ms,
    )


def _events(one: Served, clicked: Sequence[int]) -> list[dict[str, Any]]:
    """Impressions of all positions, and the clicks. Their ids follow the request: a repeat is a duplicate."""
    now_ms = time.time_ns() // 1_000_000
    shown = [("impression", position) for position in range(len(one.slate))]
    return [
        {
            "event_id": str(uuid5(NAMESPACE_URL, f"{one.request_id}/{kind}/{position}")),
            "user_id": one.visitor_id,
            "item_id": one.slate[position],
            "kind": kind,
            "timestamp_ms": now_ms,
            "request_id": one.request_id,
            "position": position,
            "origin": "simulator",
        }
        for kind, position in [*shown, *(("click", position) for position in clicked)]
    ]
