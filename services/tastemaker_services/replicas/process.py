"""What the process of a stage is: it holds bundle versions, tells of them, and answers messages of calls to one of them."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

from tastemaker import telemetry
from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.config import Settings
from tastemaker.errors import StateError, TastemakerError
from tastemaker.home import Home
from tastemaker.logs import write_logs
from tastemaker.registry.live import LiveAliases, LiveVersion, read_live
from tastemaker.registry.reports import Report
from tastemaker.stages.recorded import read_recorded
from tastemaker.state.connection import connect, state_errors, url_of
from tastemaker.state.item_vectors import read_vectors
from tastemaker.state.items import ItemChanges, PutItems
from tastemaker.state.keys import Keys
from tastemaker.types import Candidates, Float32
from tastemaker_services.replicas.answering import Answering, one_thread
from tastemaker_services.replicas.calls import Failed
from tastemaker_services.tracing import tracer_of
from tastemaker_services.versions.held import POLL_SECONDS
from tastemaker_services.versions.keeping import Keeper, Turn
from tastemaker_services.versions.opened import open_bundle
from tastemaker_services.versions.quiet import at_low_priority, prepare_process
from tastemaker_services.versions.rehearsal import made_queries, rehearse

if TYPE_CHECKING:
    from tastemaker.stages.live import LiveStages
    from tastemaker.stages.pipeline import Pipeline
    from tastemaker.stages.pipeline_config import Part

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

    def take(self, changes: ItemChanges) -> None:
        """Brings it up to what was put into the catalogue."""
        self.live.take(changes)

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
        parts: What it runs of a pipeline.
        threads: Calls that are at work at once.
    """

    is_part: ClassVar[bool] = False
    """Whether it answers for a part of the catalogue, of which a request may want nothing."""

    def __init__(self, settings: Settings, stage: str, *parts: "Part", threads: int = 1) -> None:
        write_logs(settings.logging)
        self._settings, self._home = settings, Home.make(settings.home)
        self._keys = Keys(settings.catalogue, settings.state.partitions)
        self._client = connect(url_of(settings, self._home))
        self._name = f"{stage}/{uuid4().hex[:12]}"
        self._parts: frozenset[Part] = frozenset(parts)
        self._worked = {part: telemetry.STAGE_WORK_SECONDS.labels(settings.catalogue, part) for part in parts}
        self._store = BundleStore.of(settings, self._home)
        self._items = PutItems(self._client, self._keys)
        turn = Turn(self._client, self._keys)
        self._keeper = Keeper(
            self._load, self._items, turn, settings.catalogue, settings.serving.keep_champion_seconds
        )
        self._versions = self._keeper.versions
        self._answering = Answering(stage, self._versions, threads, tracer_of(settings.tracing, stage))
        _import_stages()
        prepare_process()
        self._poll(self._keeper.settle)
        threading.Thread(target=self._watch, daemon=True, name=f"{stage}-versions").start()

    def held(self) -> list[str]:
        """Manifest hashes of the versions that it answers from."""
        return self._versions.held

    def has_settled(self, sha256: str) -> bool:
        """Whether it holds a version, or refused it."""
        return self._versions.get(sha256) is not None or sha256 in self._versions.refused

    async def _do(
        self, work: Callable[[Loaded, Any], Any], calls: Sequence[tuple[Any, ...]], *, aside: bool = False
    ) -> list[Any]:
        """See `Answering.do`."""
        return await self._answering.do(work, calls, aside=aside)

    async def _timed(
        self, part: "Part", work: Callable[[Loaded, Any], Any], calls: Sequence[tuple[Any, ...]]
    ) -> list[Any]:
        """`_do` for a part of an answer: each tells how long this process had it, from the message's coming to its going."""
        began = time.perf_counter()
        answers = await self._do(work, calls)
        seconds = time.perf_counter() - began
        for _ in calls:
            self._worked[part].observe(seconds)
        return [
            answer if isinstance(answer, Failed) else replace(answer, worked_seconds=seconds)
            for answer in answers
        ]

    def _load(self, version: LiveVersion, everything: ItemChanges) -> Loaded:
        one_thread()
        bundle = at_low_priority(lambda: self._open(version))
        if "retrieve" in self._parts and self._settings.serving.index_device == "cuda":
            bundle.search_on_gpu()
        live = self._stages(bundle)
        live.take(everything)  # before it counts as ready: a swap loses no new item
        num_items = len(bundle.item_ids)
        recorded = [one.query(bundle.index_of) for one in read_recorded(self._client, self._keys)]
        made = made_queries(num_items)  # twice: the first time everything is cold, and sources may be late
        queries = [*made, *made, *recorded]
        rehearse(live.pipeline, self._parts, num_items, queries, may_be_empty=self.is_part)
        return Loaded(bundle, live, self._settings.catalogue)

    def _open(self, version: LiveVersion) -> Bundle:
        """All of a version, verified."""
        return open_bundle(self._store, version.ref, whole=True)

    def _stages(self, bundle: Bundle) -> "LiveStages":
        from tastemaker.stages.live import LiveStages  # torch: only processes that load bundles need it

        return LiveStages(bundle, self._parts, **self._given())

    def _given(self) -> dict[str, Any]:
        """What the stages have of this process, as `LiveStages` names it."""
        return {"content_of": self._content_of}

    def _content_of(self, space: str, dim: int, item_ids: Sequence[str]) -> Float32:
        """Made by `content_vectors`, in another process."""
        return read_vectors(self._client, self._keys, space, dim, item_ids)

    def _watch(self) -> None:
        while True:
            time.sleep(POLL_SECONDS)
            self._poll()

    def _poll(self, keep: Callable[[LiveAliases | None], None] | None = None) -> None:
        try:
            live = read_live(self._client, self._keys)
            (keep or self._keeper.poll)(live)
            self._attend()
            generation, now_ms = live.generation if live else 0, time.time_ns() // 1_000_000
            report = Report(generation, tuple(self._versions.held), now_ms, self._versions.refused)
            with state_errors("tell which bundles are ready"):
                self._client.hset(self._keys.ready, self._name, report.encode())
        except StateError as error:
            log.warning("cannot read what is live: %s", error)
        except TastemakerError:
            log.exception("cannot refresh the bundle versions")

    def _attend(self) -> None:
        """What a stage looks after besides, with every poll."""


def _import_stages() -> None:
    """Which takes seconds: before the first version, and not where nothing but a gateway runs."""
    import tastemaker.stages.live  # noqa: F401
