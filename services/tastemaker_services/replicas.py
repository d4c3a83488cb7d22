"""What a replica of a stage does: holds bundle versions, and answers messages of calls to one of them.

Thin: the work is `stages.pipeline`'s. It runs in a pool of one thread with torch and FAISS at one thread
each, so that the replica's event loop stays free; more throughput takes more replicas.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from tastemaker import telemetry
from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.config import Settings
from tastemaker.errors import StateError, TastemakerError
from tastemaker.features.trending import TRENDING
from tastemaker.features.well_known import WellKnown
from tastemaker.home import Home
from tastemaker.registry.live import LiveVersion, read_live
from tastemaker.state.connection import connect, state_errors, url_of
from tastemaker.state.item_vectors import read_vectors
from tastemaker.state.items import ItemChanges, PutItems
from tastemaker.state.keys import Keys
from tastemaker.types import Candidates, Float32, Int32, Query
from tastemaker_services.calls import Failed
from tastemaker_services.fresh_items import FreshItems
from tastemaker_services.live_trending import LiveTrending
from tastemaker_services.versions import POLL_SECONDS, Report, Versions

if TYPE_CHECKING:
    from tastemaker.stages.live import LiveStages
    from tastemaker.stages.pipeline import Part, Pipeline

WELL_KNOWN_SECONDS = 5.0
"""Between looks at how often put items were shown."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Loaded:
    """One bundle version in a replica."""

    bundle: Bundle
    live: "LiveStages"
    catalogue: str

    @property
    def pipeline(self) -> "Pipeline":
        """As of the newest change of the catalogue."""
        return self.live.pipeline

    def count_unknown(self, candidates: Candidates) -> None:
        """Counts candidates of a process that is ahead of this one; the pipeline drops them."""
        num_items = self.live.pipeline.overlay.num_items if self.live.pipeline.overlay else 0
        if unknown := int((candidates.item_index >= num_items).sum()):
            telemetry.UNKNOWN_ROWS.labels(self.catalogue).inc(unknown)


class StageReplica:
    """Base of the stages' replicas.

    Args:
        settings: Where state and bundles are.
        stage: Its name, as the gateway waits for it.
        part: What it runs of a pipeline.
    """

    def __init__(self, settings: Settings, stage: str, part: "Part") -> None:
        self._settings, self._home = settings, Home.open(settings.home)
        self._keys = Keys(settings.catalogue, settings.state.partitions)
        self._client = connect(url_of(settings, self._home))
        self._name = f"{stage}/{uuid4().hex[:12]}"
        self._parts: frozenset[Part] = frozenset({part})
        self._store = BundleStore.of(settings, self._home)
        self._items = PutItems(self._client, self._keys)
        self._versions = Versions(self._load, settings.catalogue)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=stage, initializer=_one_thread)
        self._poll()
        threading.Thread(target=self._watch, daemon=True, name=f"{stage}-versions").start()

    def held(self) -> list[str]:
        """Manifest hashes of the versions that it answers from."""
        return self._versions.held

    async def _do(self, work: Callable[[Loaded, Any], Any], calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """`work` on each call, whose first part is the manifest hash; a call that fails concerns no other."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._each, work, calls)

    def _each(self, work: Callable[[Loaded, Any], Any], calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        answers = []
        for sha256, *rest in calls:
            version = self._versions.get(sha256)
            if version is None:
                answers.append(Failed(f"bundle {sha256[:12]} is not loaded here"))
                continue
            try:
                answers.append(work(version, rest))
            except Exception as error:  # one call's fault is that call's
                log.exception("a call failed")
                answers.append(Failed(f"{type(error).__name__}: {error}"))
        return answers

    def _load(self, version: LiveVersion) -> Loaded:
        bundle = Bundle.open(self._store, version.ref)
        live = self._stages(bundle)
        live.take(self._items.everything())  # before it counts as ready: a swap loses no new item
        return Loaded(bundle, live, self._settings.catalogue)

    def _stages(self, bundle: Bundle) -> "LiveStages":
        from tastemaker.stages.live import LiveStages  # torch: only processes that load bundles need it

        return LiveStages(bundle, self._parts, content_of=self._content_of)

    def _content_of(self, space: str, dim: int, item_ids: Sequence[str]) -> Float32:
        """Made by `content_vectors`, in another process."""
        return read_vectors(self._client, self._keys, space, dim, item_ids)

    def _watch(self) -> None:
        while True:
            time.sleep(POLL_SECONDS)
            self._poll()

    def _poll(self) -> None:
        try:
            live = read_live(self._client, self._keys)
            self._take(self._items.poll())
            self._versions.refresh(live)
            report = Report(
                live.generation if live else 0, tuple(self._versions.held), time.time_ns() // 1_000_000
            )
            with state_errors("tell which bundles are ready"):
                self._client.hset(self._keys.ready, self._name, report.encode())
        except StateError as error:
            log.warning("cannot read what is live: %s", error)
        except TastemakerError:
            log.exception("cannot refresh the bundle versions")

    def _take(self, changes: ItemChanges) -> None:
        """Brings all versions up to the catalogue's changes; one that cannot follow is loaded anew."""
        for sha256 in self._versions.held if changes else ():
            version = self._versions.get(sha256)
            assert version is not None, "this thread alone drops versions"
            try:
                version.live.take(changes)
            except Exception:  # whatever an encoder raises: the version says so when it is loaded anew
                log.exception("bundle %s cannot follow the catalogue", sha256[:12])
                self._versions.drop(sha256)


class Retriever(StageReplica):
    """Proposes candidates."""

    _known_again = 0.0

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, "retriever", "retrieve")

    def _take(self, changes: ItemChanges) -> None:
        super()._take(changes)
        if time.monotonic() >= self._known_again:
            self._known_again = time.monotonic() + WELL_KNOWN_SECONDS
            self._well_known.refresh(self._items.order)

    def _stages(self, bundle: Bundle) -> "LiveStages":
        from tastemaker.stages.live import LiveStages

        live = LiveStages(
            bundle, self._parts, trending=self._trending.current, well_known=self._well_known.current,
            content_of=self._content_of,
        )  # fmt: skip
        if TRENDING in live.pipeline.source_names:
            self._trending.start()
        return live

    @cached_property
    def _well_known(self) -> WellKnown:
        return WellKnown(self._client, self._keys)

    @cached_property
    def _trending(self) -> LiveTrending:
        return LiveTrending(self._client, self._keys, self._settings.trending)

    async def retrieve(self, calls: Sequence[tuple[str, Query]]) -> list[Candidates | Failed]:
        """Candidates of each (manifest hash, query), best first."""
        return await self._do(_retrieve, calls)

    async def similar(self, calls: Sequence[tuple[str, int, int]]) -> list[tuple[Int32, Float32] | Failed]:
        """The k nearest others, with their similarity, of each (manifest hash, item_index, k)."""
        return await self._do(_similar, calls)


class Ranker(StageReplica):
    """Gives candidates their probability, best first."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, "ranker", "rank")

    def _stages(self, bundle: Bundle) -> "LiveStages":
        from tastemaker.stages.live import LiveStages

        return LiveStages(bundle, self._parts, store_of=self._fresh_items.store, content_of=self._content_of)

    @cached_property
    def _fresh_items(self) -> FreshItems:
        return FreshItems(self._client, self._keys)

    async def rank(self, calls: Sequence[tuple[str, Query, Candidates]]) -> list[Candidates | Failed]:
        """The candidates of each (manifest hash, query, candidates); with their features where the query asks for them."""
        return await self._do(_rank, calls)


class Reranker(StageReplica):
    """Orders the slate by soft rules."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, "reranker", "rerank")

    async def rerank(self, calls: Sequence[tuple[str, Query, Candidates]]) -> list[Candidates | Failed]:
        """The slate of each (manifest hash, query, candidates): filtered and cut to k."""
        return await self._do(_rerank, calls)


def _retrieve(version: Loaded, rest: list[Any]) -> Candidates:
    return version.pipeline.retrieve(rest)[0]


def _rank(version: Loaded, rest: list[Any]) -> Candidates:
    query, candidates = rest
    version.count_unknown(candidates)
    ranked = version.pipeline.rank([query], [candidates])[0]
    if query.keep_features:
        return ranked
    return replace(ranked, features_KF=None)  # the heaviest part, and nobody behind us reads it


def _rerank(version: Loaded, rest: list[Any]) -> Candidates:
    query, candidates = rest
    version.count_unknown(candidates)
    pipeline = version.pipeline
    return pipeline.finish([query], pipeline.rerank([query], [candidates]))[0]


def _similar(version: Loaded, rest: list[Any]) -> tuple[Int32, Float32]:
    item_index, k = rest
    return version.live.similar(item_index, k)


def _one_thread() -> None:
    import faiss
    import torch

    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
