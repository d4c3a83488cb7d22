"""What the replica of each stage does with a call. Thin: the work is `stages.pipeline`'s."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tastemaker import telemetry
from tastemaker.bundle.reader import Bundle
from tastemaker.config import Settings
from tastemaker.features.trending import TRENDING
from tastemaker.features.well_known import WellKnown
from tastemaker.stages.asking import Asking, Outcome, SideBySide
from tastemaker.stages.editorial import EditorialLists
from tastemaker.types import Candidates, Float32, Int32, Query
from tastemaker_services.replicas.answering import one_thread
from tastemaker_services.replicas.calls import Failed
from tastemaker_services.replicas.fresh_items import FreshItems
from tastemaker_services.replicas.live_trending import LiveTrending
from tastemaker_services.replicas.process import Loaded, StageReplica

if TYPE_CHECKING:
    from tastemaker.models.contributions import Contributions
    from tastemaker.stages.explain import Reordered, SourceSays
    from tastemaker.stages.live import LiveStages
    from tastemaker.stages.pipeline_config import Part

WELL_KNOWN_SECONDS = 5.0
"""Between looks at how often put items were shown."""


class Mirrored(StageReplica):
    """A stage that is also called by the shadow."""

    async def aside(self, part: "Part", calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """What it answers to `calls` of a part of the pipeline, in a thread that requests do not wait for."""
        return await self._do(WORK[part], calls, aside=True)


class Searching(Mirrored):
    """What retrievers have in common: what sources need beside the bundle, and lists by one search.

    Args:
        settings: Of the deployment.
        stage: Its name, as the gateway waits for it.
    """

    _known_again = 0.0

    def __init__(self, settings: Settings, stage: str) -> None:
        super().__init__(settings, stage, "retrieve")

    def _attend(self) -> None:
        super()._attend()
        if time.monotonic() >= self._known_again:
            self._known_again = time.monotonic() + WELL_KNOWN_SECONDS
            self._well_known.refresh(self._items.order)
            self._editorial.refresh()

    def _stages(self, bundle: Bundle) -> "LiveStages":
        live = super()._stages(bundle)
        if TRENDING in live.pipeline.source_names:
            self._trending.start()
        return live

    def _given(self) -> dict[str, Any]:
        return super()._given() | {
            "trending": self._trending.current,
            "tried": self._well_known.current,
            "asking": self._asking,
            "editorial": self._editorial.current,
        }

    @property
    def _asking(self) -> Asking:
        """A version's own: one that is tried or mirrored keeps no thread from those that answer."""
        callers = self._settings.serving.threads + 1  # one of them is the thread for what may wait
        return SideBySide(self._settings.serving.source_ms / 1000, self._count, callers, one_thread)

    @cached_property
    def _editorial(self) -> EditorialLists:
        return EditorialLists(self._client, self._keys)

    def _count(self, source: str, outcome: Outcome) -> None:
        telemetry.SOURCES.labels(self._settings.catalogue, source, outcome).inc()

    @cached_property
    def _encoder(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, thread_name_prefix="texts", initializer=one_thread)

    @cached_property
    def _well_known(self) -> WellKnown:
        return WellKnown(self._client, self._keys)

    @cached_property
    def _trending(self) -> LiveTrending:
        return LiveTrending(self._client, self._keys, self._settings.trending)

    async def similar(self, calls: Sequence[tuple[str, Query, int]]) -> list[tuple[Int32, Float32] | Failed]:
        """The k nearest others that the query allows, with their similarity, of each (manifest hash, query, item_index)."""
        return await self._do(_similar, calls)

    async def search(
        self, calls: Sequence[tuple[str, Query, str, float]]
    ) -> list[tuple[Int32, Float32] | Failed]:
        """The k items that fit a text best, with how well, of each (manifest hash, query, text, share of the user).

        Texts are encoded in a thread of their own: a sentence encoder takes seconds to load, when it is first asked.
        """
        texts = [(sha256, text) for sha256, _, text, _ in calls]
        loop = asyncio.get_running_loop()
        vectors = await loop.run_in_executor(self._encoder, self._answering.each, _encode, texts)
        asked = [
            (sha256, query, vector, share)
            for (sha256, query, _, share), vector in zip(calls, vectors, strict=True)
        ]
        return await self._do(_search, asked)


class Retriever(Searching):
    """Proposes candidates."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, "retriever")

    async def retrieve(self, calls: Sequence[tuple[str, Query]]) -> list[Candidates | Failed]:
        """Candidates of each (manifest hash, query), best first."""
        return await self._timed("retrieve", _retrieve, calls)

    async def say(self, calls: Sequence[tuple[str, Query, int]]) -> "list[tuple[SourceSays, ...] | Failed]":
        """What each source says of one item, of each (manifest hash, query, item_index)."""
        return await self._do(_say, calls)


class Ranker(Mirrored):
    """Gives candidates their probability, best first."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, "ranker", "rank")

    def _given(self) -> dict[str, Any]:
        return super()._given() | {"store_of": self._fresh_items.store}

    @cached_property
    def _fresh_items(self) -> FreshItems:
        return FreshItems(self._client, self._keys)

    async def rank(self, calls: Sequence[tuple[str, Query, Candidates]]) -> list[Candidates | Failed]:
        """The candidates of each (manifest hash, query, candidates); with their features where the query asks for them."""
        return await self._timed("rank", _rank, calls)

    async def contributions(
        self, calls: Sequence[tuple[str, Query, Candidates, int]]
    ) -> "list[Contributions | Failed]":
        """What each feature adds to one item's score, of each (manifest hash, query, ranked candidates, item_index).

        A network is asked for thousands of rows: no request waits for that.
        """
        return await self._do(_contributions, calls, aside=True)


class Reranker(Mirrored):
    """Orders the slate by soft rules."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, "reranker", "rerank")

    async def rerank(self, calls: Sequence[tuple[str, Query, Candidates]]) -> list[Candidates | Failed]:
        """The slate of each (manifest hash, query, candidates): filtered and cut to k."""
        return await self._timed("rerank", _rerank, calls)

    async def reorder(
        self, calls: Sequence[tuple[str, Query, Candidates, int]]
    ) -> "list[Reordered | Failed]":
        """What reranking does to one item, of each (manifest hash, query, candidates, item_index)."""
        return await self._do(_reorder, calls)


def _retrieve(version: Loaded, rest: list[Any]) -> Candidates:
    return version.pipeline.retrieve(rest)[0]


def _rank(version: Loaded, rest: list[Any]) -> Candidates:
    query, candidates = rest
    version.count_unknown(candidates)
    ranked = version.pipeline.rank([query], [candidates])[0]
    if query.keep_features:
        return ranked
    return replace(ranked, features_KF=None)  # the heaviest part, and nobody behind us reads it


def _contributions(version: Loaded, rest: list[Any]) -> "Contributions":
    query, candidates, item_index = rest
    return version.pipeline.contributions(query, candidates, item_index)


def _rerank(version: Loaded, rest: list[Any]) -> Candidates:
    query, candidates = rest
    version.count_unknown(candidates)
    pipeline = version.pipeline
    (slate,) = pipeline.finish([query], pipeline.rerank([query], [candidates]))
    return pipeline.because(query, slate)


def _similar(version: Loaded, rest: list[Any]) -> tuple[Int32, Float32]:
    query, item_index = rest
    return version.live.similar(query, item_index)


def _encode(version: Loaded, rest: list[Any]) -> Float32:
    (text,) = rest
    return version.live.encode_text(text)


def _search(version: Loaded, rest: list[Any]) -> tuple[Int32, Float32] | Failed:
    query, vector_D, share = rest
    return vector_D if isinstance(vector_D, Failed) else version.live.search(query, vector_D, share)


def _say(version: Loaded, rest: list[Any]) -> "tuple[SourceSays, ...]":
    query, item_index = rest
    return version.pipeline.say(query, item_index)


def _reorder(version: Loaded, rest: list[Any]) -> "Reordered":
    query, candidates, item_index = rest
    return version.pipeline.reorder(query, candidates, item_index)


WORK: "dict[Part, Callable[[Loaded, Any], Any]]" = {"retrieve": _retrieve, "rank": _rank, "rerank": _rerank}
"""What each part of a pipeline does with a call."""
