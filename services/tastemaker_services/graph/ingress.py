"""The gateway's replica: puts the gateway together with the graph's handles and the state, and serves its routes.

In a spread graph this process imports neither torch nor FAISS: it answers from memory and by calls.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import redis
from fastapi import FastAPI
from ray.serve.handle import DeploymentHandle

from tastemaker.bundle.store import BundleStore
from tastemaker.config import Settings
from tastemaker.events.erasure import is_pending_async, request_erasure_async
from tastemaker.events.receipts import read_receipt
from tastemaker.events.schema import Event
from tastemaker.experiments.decision_log import Decision, append_decisions_async
from tastemaker.experiments.router import Router
from tastemaker.home import Home
from tastemaker.logs import write_logs
from tastemaker.registry.live import LiveVersion
from tastemaker.stages.merging import Merging
from tastemaker.state.connection import cache_url_of, connect, connect_async, url_of
from tastemaker.state.items import ItemChanges, PutItems, Written, write_items_async
from tastemaker.state.keys import Keys
from tastemaker.state.lists import StoredList, read_list_async
from tastemaker.types import Origin
from tastemaker.users.profile import ProfileRow
from tastemaker_services.gateway.cache import ResultCache
from tastemaker_services.gateway.decisions import DecisionLog
from tastemaker_services.gateway.explaining import Explainer
from tastemaker_services.gateway.face import BundleFace, LiveFace
from tastemaker_services.gateway.forcing import KillSwitch
from tastemaker_services.gateway.gateway import Gateway
from tastemaker_services.gateway.intake import Intake, Taken
from tastemaker_services.gateway.listing import Listing
from tastemaker_services.gateway.pages import PageStore
from tastemaker_services.gateway.pins import Pins
from tastemaker_services.gateway.profiles import Profiles
from tastemaker_services.gateway.recorded import Recorder
from tastemaker_services.gateway.shadow import Answered, Shadow
from tastemaker_services.gateway.standing import StandingRules
from tastemaker_services.gateway.users import User, read_user
from tastemaker_services.graph.draining import is_draining
from tastemaker_services.graph.shards import MergingOf, shards_of
from tastemaker_services.graph.spread import Graph, SpreadGraph, one_retriever
from tastemaker_services.graph.warm_up import WarmUp
from tastemaker_services.replicas.live_trending import LiveTrending
from tastemaker_services.routes.api import create_api
from tastemaker_services.tracing import TraceParent, tracer_of
from tastemaker_services.versions.giving_way import UNDER_WAY
from tastemaker_services.versions.keeping import Keeper, Turn
from tastemaker_services.versions.opened import open_bundle
from tastemaker_services.versions.quiet import prepare_process
from tastemaker_services.web.question_schema import ExplainRequest, SearchRequest, SimilarRequest
from tastemaker_services.web.schema import RecommendationRequest

PINNED_SECONDS = 30.0


class GatewayReplica:
    """What Serve runs as the ingress."""

    def __init__(self, settings: Settings, *stages: DeploymentHandle) -> None:
        write_logs(settings.logging)
        self._home = home = Home.make(settings.home)
        self._settings = settings
        self._keys = Keys(settings.catalogue, settings.state.partitions)
        url = url_of(settings, home)
        self._client, self._bytes_client = connect_async(url), connect_async(url, text=False)
        self._cache_client = connect_async(cache_url_of(settings, home), text=False)
        self._trending = LiveTrending(connect(url), self._keys, settings.trending)
        self._intake = Intake(self._client, url, self._keys, settings, home)
        self._store = BundleStore.of(settings, home)
        self._graph = _graph(settings, stages, self._merging_of)
        self._profiles = Profiles(self._client, self._bytes_client, self._cache_client, self._keys)
        self._decisions = DecisionLog(self._append_decisions, settings.catalogue)
        seconds = settings.cache.seconds
        self._cache = ResultCache(self._cache_client, self._keys, seconds) if seconds else None
        self._recorder = Recorder(self._client, self._keys)
        self._tracer = tracer_of(settings.tracing, "gateway")
        self._switch = KillSwitch(self._client, self._keys)
        self._standing = StandingRules(self._client, self._keys)
        self._gateway = self._make_gateway()
        self._listing = Listing(self._gateway)
        self._explainer = Explainer(self._gateway, self._graph.stages)
        self._shadow = Shadow(
            settings.serving, settings.catalogue, settings.gateway.deadline_ms, pin=self._pin,
            stages=self._graph.aside, is_busy=self._is_busy, keep=self._decisions.put,
        )  # fmt: skip
        self._num_requests = 0
        self._pins = self._make_pins(connect(url))
        prepare_process()

    def _make_gateway(self) -> Gateway:
        return Gateway(
            self._settings,
            read_user=self._read_user,
            assign=Router(self._client, self._keys).assign,
            pin=self._pin,
            stages=self._graph.stages,
            decisions=self._decisions,
            answered=self._note,
            lists=self._cache,
            read_stored=self._read_stored,
            forced=self._switch.rung,
            standing=self._standing.policy,
            pages=self._pages(),
            tracer=self._tracer,
        )

    def _make_pins(self, client: redis.Redis) -> Pins:
        """The versions that this gateway answers from; `client` is for the thread that polls them."""
        settings = self._settings
        faces = Keeper(
            self._load, PutItems(client, self._keys), Turn(client, self._keys), settings.catalogue,
            settings.serving.keep_champion_seconds, self._graph.has_settled,
        )  # fmt: skip
        warm_up = WarmUp(self._graph.stages, self._recorder.read, settings.gateway.deadline_ms, self._is_busy)
        return Pins(self._client, self._keys, faces, warm_up, self._graph.names)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The routes; background work lives as long as the application."""
        api = create_api(self, self._settings.gateway, self._settings.catalogue, self._lifespan)
        if self._tracer is not None:
            api.add_middleware(TraceParent)
        return api

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for client in (self._client, self._bytes_client, self._cache_client):
                stack.push_async_callback(client.aclose)
            if self._tracer is not None:
                stack.push_async_callback(asyncio.to_thread, self._tracer.stop)
            if self._cache is not None:
                stack.push_async_callback(self._cache.settle)
            await asyncio.to_thread(self._intake.start)
            stack.push_async_callback(asyncio.to_thread, self._intake.stop)
            await asyncio.to_thread(self._trending.start)
            stack.push_async_callback(asyncio.to_thread, self._trending.stop)
            self._decisions.start()
            stack.push_async_callback(self._decisions.stop)
            await self._switch.start()
            stack.push_async_callback(self._switch.stop)
            await self._standing.start()
            stack.push_async_callback(self._standing.stop)
            watcher = asyncio.create_task(self._pins.watch(self._follow))
            stack.push_async_callback(self._pins.leave)
            stack.push_async_callback(self._shadow.settle)
            stack.callback(watcher.cancel)
            await self._until_pinned()
            yield

    async def _until_pinned(self) -> None:
        """Serve sends requests once the application has started: one that takes another's place answers from the first on.

        Without anything to answer from it starts after a while as well, and says so to whoever asks.
        """
        give_up = time.monotonic() + PINNED_SECONDS
        while self._pins.waiting_for is not None and time.monotonic() < give_up:
            await asyncio.sleep(0.05)

    async def recommend(
        self, request: RecommendationRequest, origin: Origin, variants: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """See `gateway.Gateway`."""
        self._num_requests += 1
        try:
            with UNDER_WAY:
                return await self._gateway.recommend(request, origin, variants)
        finally:
            self._num_requests -= 1

    def _is_busy(self) -> bool:
        return self._num_requests > 0

    async def similar(self, request: SimilarRequest) -> dict[str, Any]:
        """See `listing.Listing`."""
        return await self._listing.similar(request)

    async def search(self, request: SearchRequest) -> dict[str, Any]:
        """See `listing.Listing`."""
        return await self._listing.search(request)

    async def explain(self, request: ExplainRequest, origin: Origin) -> dict[str, Any]:
        """See `explaining.Explainer`."""
        return await self._explainer.explain(request, origin)

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

    def serves_item(self, item_id: str) -> bool:
        """By what any alias answers from."""
        return self._pins.serves_item(item_id)

    async def why_not_ready(self) -> str | None:
        """What is missing; sends a call through every handle."""
        if is_draining(self._home):
            return "the end: it takes no more requests"
        if self._pins.waiting_for is not None:
            return self._pins.waiting_for
        return await self._graph.why_not_ready()

    async def _follow(self) -> None:
        self._graph.follow(self._pins.num_replicas)
        await self._recorder.share()

    def _pages(self) -> PageStore | None:
        seconds = self._settings.cache.page_seconds
        return PageStore(self._cache_client, self._keys, seconds) if seconds else None

    def _note(self, answered: Answered) -> None:
        self._recorder.note(answered.query, answered.face.item_ids)
        self._shadow.offer(answered)

    def _pin(self, alias: str) -> Any:
        return self._pins.get(alias)

    def _merging_of(self, sha256: str) -> Merging | None:
        return self._pins.merging_of(sha256)

    def _load(self, version: LiveVersion, everything: ItemChanges) -> LiveFace:
        bundle = open_bundle(self._store, version.ref, whole=False)
        live = LiveFace(BundleFace.of(bundle, self._trending.current))
        live.take(everything)
        return live

    async def _read_stored(self, user_id: str) -> StoredList | None:
        return await read_list_async(self._cache_client, self._keys, user_id)

    async def _read_user(self, user_id: str) -> User:
        return await read_user(self._bytes_client, self._keys, user_id)

    async def _append_decisions(self, decisions: Sequence[Decision]) -> int:
        return await append_decisions_async(self._client, self._keys, decisions, self._settings.state)


def _graph(settings: Settings, stages: Sequence[DeploymentHandle], merging_of: MergingOf) -> Graph:
    """What the settings ask for: the stages behind handles, or here."""
    if settings.serving.graph == "spread":
        *retrievers, ranker, reranker = stages
        most, catalogue = settings.serving.batch, settings.catalogue
        if len(retrievers) == 1:
            retrieving = one_retriever(retrievers[0], most, catalogue)
        else:
            retrieving = shards_of(retrievers, settings, merging_of)
        return SpreadGraph(retrieving, ranker, reranker, most, catalogue)
    # Torch and FAISS come with it, which a spread graph's gateway does not need.
    from tastemaker_services.graph.fused import FusedGraph

    return FusedGraph(settings)
