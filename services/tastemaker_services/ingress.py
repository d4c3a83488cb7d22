"""The gateway's replica: puts the gateway together with the graph's handles and the state, and serves its routes.

This process imports neither torch nor FAISS: it answers from memory and by calls.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI
from ray.serve.handle import DeploymentHandle

from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.config import Settings
from tastemaker.events.erasure import is_pending_async, request_erasure_async
from tastemaker.events.receipts import read_receipt
from tastemaker.events.schema import Event
from tastemaker.experiments.decision_log import Decision, append_decisions_async
from tastemaker.experiments.router import Router
from tastemaker.home import Home
from tastemaker.registry.live import LiveVersion
from tastemaker.state.connection import cache_url_of, connect, connect_async, url_of
from tastemaker.state.items import PutItems, Written, write_items_async
from tastemaker.state.keys import Keys
from tastemaker.state.lists import StoredList, read_list_async
from tastemaker.types import Origin
from tastemaker.users.profile import ProfileRow
from tastemaker_services.api import create_api
from tastemaker_services.cache import ResultCache
from tastemaker_services.calls import Send, StageCalls
from tastemaker_services.decisions import DecisionLog
from tastemaker_services.face import BundleFace
from tastemaker_services.gateway import Gateway
from tastemaker_services.intake import Intake, Taken
from tastemaker_services.ladder import Stages
from tastemaker_services.live_trending import LiveTrending
from tastemaker_services.pins import Pins
from tastemaker_services.profiles import Profiles
from tastemaker_services.schema import RecommendationRequest
from tastemaker_services.users import User, read_user

READY_SECONDS = 5.0
_PLAIN_PICKLE = {"request_serialization": "pickle", "response_serialization": "pickle"}
"""Between our own processes, under Ray's token; the default, cloudpickle, costs three times as much."""


class GatewayReplica:
    """What Serve runs as the ingress."""

    def __init__(
        self,
        settings: Settings,
        retriever: DeploymentHandle,
        ranker: DeploymentHandle,
        reranker: DeploymentHandle,
    ) -> None:
        self._home = home = Home.open(settings.home)
        self._settings = settings
        self._keys = Keys(settings.catalogue, settings.state.partitions)
        url = url_of(settings, home)
        self._client, self._bytes_client = connect_async(url), connect_async(url, text=False)
        self._cache_client = connect_async(cache_url_of(settings, home), text=False)
        self._trending = LiveTrending(connect(url), self._keys, settings.trending)
        self._intake = Intake(self._client, url, self._keys, settings, home)
        self._store = BundleStore.of(settings, home)
        self._handles = [handle.options(**_PLAIN_PICKLE) for handle in (retriever, ranker, reranker)]
        retrieval, ranking, reranking = self._handles
        self._calls = {
            "retriever": StageCalls(_sender(retrieval.retrieve)),
            "ranker": StageCalls(_sender(ranking.rank)),
            "reranker": StageCalls(_sender(reranking.rerank)),
        }
        stages = Stages(
            retrieve=self._calls["retriever"],
            rank=self._calls["ranker"],
            rerank=self._calls["reranker"],
            similar=StageCalls(_sender(retrieval.similar)),
        )
        self._profiles = Profiles(self._client, self._bytes_client, self._cache_client, self._keys)
        self._decisions = DecisionLog(self._append_decisions, settings.catalogue)
        seconds = settings.cache.seconds
        self._cache = ResultCache(self._cache_client, self._keys, seconds) if seconds else None
        router = Router(self._client, self._keys)
        self._gateway = Gateway(
            settings,
            read_user=self._read_user,
            assign=router.assign,
            pin=self._pin,
            stages=stages,
            decisions=self._decisions,
            lists=self._cache,
            read_stored=self._read_stored,
        )
        items = PutItems(connect(url), self._keys)
        self._pins = Pins(self._client, self._keys, self._load, self._gateway.warm_up, items)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The routes; background work lives as long as the application."""
        return create_api(self, self._settings.gateway, self._settings.catalogue, self._lifespan)

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for client in (self._client, self._bytes_client, self._cache_client):
                stack.push_async_callback(client.aclose)
            if self._cache is not None:
                stack.push_async_callback(self._cache.settle)
            await asyncio.to_thread(self._intake.start)
            stack.push_async_callback(asyncio.to_thread, self._intake.stop)
            await asyncio.to_thread(self._trending.start)
            stack.push_async_callback(asyncio.to_thread, self._trending.stop)
            self._decisions.start()
            stack.push_async_callback(self._decisions.stop)
            watcher = asyncio.create_task(self._pins.watch(self._count_replicas))
            stack.callback(watcher.cancel)
            yield

    async def recommend(self, request: RecommendationRequest, origin: Origin) -> dict[str, Any]:
        """See `gateway.Gateway`."""
        return await self._gateway.recommend(request, origin)

    async def similar(self, item_id: str, k: int) -> dict[str, Any]:
        """See `gateway.Gateway`."""
        return await self._gateway.similar(item_id, k)

    async def append(self, events: list[Event]) -> Taken:
        """See `intake.Intake`."""
        return await self._intake.append(events)

    async def erase(self, user_id: str) -> str:
        """Left to the process that consumes the streams."""
        return await request_erasure_async(self._client, self._keys, user_id)

    async def receipt(self, name: str) -> dict[str, Any] | None:
        """From the home's files; empty while the erasure is under way."""
        found = await asyncio.to_thread(read_receipt, self._home, self._settings.catalogue, name)
        if found is not None:
            return found.as_dict()
        return {} if await is_pending_async(self._client, self._keys, name) else None

    async def put_users(self, rows: Sequence[ProfileRow]) -> None:
        """See `profiles.Profiles`."""
        await self._profiles.put(rows)

    async def user(self, user_id: str) -> dict[str, Any] | None:
        """See `profiles.Profiles`."""
        return await self._profiles.get(user_id)

    async def merge_users(self, from_user: str, into_user: str) -> dict[str, str]:
        """See `profiles.Profiles`."""
        return await self._profiles.merge(from_user, into_user)

    async def write_items(self, rows: Mapping[str, str | None]) -> Written:
        """Every process follows within a second."""
        return await write_items_async(self._client, self._keys, rows)

    async def why_not_ready(self) -> str | None:
        """What is missing; sends a call through every handle."""
        if self._pins.waiting_for is not None:
            return self._pins.waiting_for
        calls = [asyncio.wait_for(_held(handle), READY_SECONDS) for handle in self._handles]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        failed = [
            str(answer) or type(answer).__name__ for answer in answers if isinstance(answer, BaseException)
        ]
        return f"a stage that does not answer: {failed[0]}" if failed else None

    def _count_replicas(self) -> None:
        for stage, calls in self._calls.items():
            calls.num_replicas = max(1, self._pins.num_replicas.get(stage, 1))

    def _pin(self, alias: str) -> Any:
        return self._pins.get(alias)

    def _load(self, version: LiveVersion) -> BundleFace:
        return BundleFace.of(Bundle.open(self._store, version.ref), self._trending.current)

    async def _read_stored(self, user_id: str) -> StoredList | None:
        return await read_list_async(self._cache_client, self._keys, user_id)

    async def _read_user(self, user_id: str) -> User:
        return await read_user(self._bytes_client, self._keys, user_id)

    async def _append_decisions(self, decisions: Sequence[Decision]) -> int:
        return await append_decisions_async(self._client, self._keys, decisions, self._settings.state)


def _sender(method: Any) -> Send:
    async def send(calls: list[Any]) -> Any:
        return await method.remote(calls)

    return send


async def _held(handle: DeploymentHandle) -> Any:
    return await handle.held.remote()
