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
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.config import Settings
from tastemaker.errors import StateError, TastemakerError
from tastemaker.home import Home
from tastemaker.registry.live import LiveVersion, read_live
from tastemaker.state.connection import connect, state_errors, url_of
from tastemaker.state.keys import Keys
from tastemaker.types import Candidates, Float32, Int32, Query
from tastemaker_services.calls import Failed
from tastemaker_services.versions import POLL_SECONDS, Report, Versions

if TYPE_CHECKING:
    from tastemaker.stages.pipeline import Part, Pipeline

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Loaded:
    """One bundle version in a replica."""

    bundle: Bundle
    pipeline: "Pipeline"


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
        from tastemaker.stages.pipeline import Pipeline  # torch: only processes that load bundles need it

        bundle = Bundle.open(self._store, version.ref)
        return Loaded(bundle, Pipeline.from_bundle(bundle, parts=self._parts))

    def _watch(self) -> None:
        while True:
            time.sleep(POLL_SECONDS)
            self._poll()

    def _poll(self) -> None:
        try:
            live = read_live(self._client, self._keys)
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


class Retriever(StageReplica):
    """Proposes candidates."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, "retriever", "retrieve")

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

    async def rank(self, calls: Sequence[tuple[str, Query, Candidates]]) -> list[Candidates | Failed]:
        """The candidates of each (manifest hash, query, candidates), without their features."""
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
    ranked = version.pipeline.rank([query], [candidates])[0]
    return replace(ranked, features_KF=None)  # the heaviest part, and nobody behind us reads it


def _rerank(version: Loaded, rest: list[Any]) -> Candidates:
    query, candidates = rest
    pipeline = version.pipeline
    return pipeline.finish([query], pipeline.rerank([query], [candidates]))[0]


def _similar(version: Loaded, rest: list[Any]) -> tuple[Int32, Float32]:
    item_index, k = rest
    index = version.bundle.index()
    vector_1D = index.vectors()[item_index : item_index + 1]
    rows_BK, score_BK = index.search(vector_1D, k, exclude=[np.array([item_index], np.int32)])
    return rows_BK[0], score_BK[0]


def _one_thread() -> None:
    import faiss
    import torch

    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
