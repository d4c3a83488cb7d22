"""A gateway's real routes behind a real listener, with a backend that a test controls."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from tastemaker.config_serving import GatewaySettings
from tastemaker.events.schema import Event
from tastemaker.state.items import Written
from tastemaker_services.gateway.intake import Taken
from tastemaker_services.routes.api import create_api
from tastemaker_services.web.problems import Problem

ITEM = {"item_id": "i1", "score": 0.5, "rank": 1, "sources": ["popular"], "reason": "popular now"}
LIST = {
    "request_id": "r1", "items": [ITEM], "experiment": None, "variant": None, "bundle": "b", "bundle_version": 1,
    "degraded": [], "forced": None, "cached": False, "cached_from": None, "timings_ms": {"total": 1.0},
    "next_cursor": None,
}  # fmt: skip
EXPLANATION = {
    "request_id": "r1", "item_id": "i1", "verdict": "shown", "why": "it is in the list", "rules": [], "sources": [],
    "num_candidates": 1, "stages": {}, "shown_rank": 1, "features": {}, "record_age_ms": None, "personalised": True,
    "experiment": None, "variant": None, "bundle": "b", "bundle_version": 1, "degraded": [],
}  # fmt: skip


class Backend:
    """Answers every question; remembers what it was asked, and events by their id.

    `refusals` are raised one by one, each instead of an answer; `delay_seconds` holds answers back; `lose` drops that many
    answers after their work is done, as a network does.
    """

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.events: dict[str, Event] = {}
        self.items: dict[str, str | None] = {}
        self.refusals: list[Problem] = []
        self.delay_seconds = 0.0

    async def _answer(self, asked: Any, answer: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(asked)
        if self.delay_seconds:
            await asyncio.sleep(self.delay_seconds)
        if self.refusals:
            raise self.refusals.pop(0)
        return answer

    async def recommend(self, request: Any, origin: str, variants: Any = None) -> dict[str, Any]:
        return await self._answer(request, LIST)

    async def similar(self, request: Any) -> dict[str, Any]:
        return await self._answer(request, LIST)

    async def search(self, request: Any) -> dict[str, Any]:
        return await self._answer(request, LIST)

    async def explain(self, request: Any, origin: str) -> dict[str, Any]:
        return await self._answer(request, EXPLANATION)

    async def append(self, events: list[Event]) -> Taken:
        new = {event.event_id: event for event in events if event.event_id not in self.events}
        self.events |= new
        await self._answer(events, {})
        return Taken(len(new), len(events) - len(new), 0)

    async def write_items(self, rows: Any) -> Written:
        changed = [self.items.get(item_id) != row for item_id, row in rows.items()]
        self.items |= rows
        return Written(changed)

    def serves_item(self, item_id: str) -> bool:
        return item_id in self.items

    async def put_users(self, rows: Any) -> None:
        await self._answer(rows, {})

    async def user(self, user_id: str) -> dict[str, Any] | None:
        kept = {"user_id": user_id, "profile": {"personalise": True}, "history": ["i1"]}
        return await self._answer(user_id, kept) if user_id == "old" else None

    async def merge_users(self, from_user: str, into_user: str) -> dict[str, str]:
        return await self._answer((from_user, into_user), {"into_user_id": into_user, "state": "noted"})

    async def erase(self, user_id: str) -> str:
        await self._answer(user_id, {})
        return "receipt-1"

    async def receipt(self, name: str) -> dict[str, Any] | None:
        return {} if name == "receipt-1" else None

    async def why_not_ready(self) -> str | None:
        return None


@contextmanager
def listening(backend: Any, settings: GatewaySettings | None = None) -> Iterator[str]:
    """The address of a gateway that listens on loopback until the block ends."""
    app = create_api(backend, settings or GatewaySettings(), "default")
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[bound])), daemon=True)
        thread.start()
        deadline = time.monotonic() + 30
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        assert server.started, "the gateway did not start to listen"
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=30)
