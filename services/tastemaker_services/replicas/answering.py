"""Answers messages of calls, each from the bundle version that it names, in the threads of a stage's process.

Calls run in a pool of few threads with torch and FAISS at one thread each, so that the process's event loop stays free; more
throughput takes more replicas.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, Protocol, TypeVar

from tastemaker_services.replicas.calls import Failed
from tastemaker_services.tracing import Tracer
from tastemaker_services.versions.giving_way import UNDER_WAY

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
log = logging.getLogger(__name__)


class Held(Protocol[T_co]):
    """Bundle versions by manifest hash."""

    def get(self, sha256: str, /) -> T_co | None:
        """The version of this manifest hash; None where it is not held."""
        ...


class Answering(Generic[T]):
    """What a stage does with the calls that are sent to it, whichever stage it is.

    Args:
        stage: Its name, for threads and spans.
        versions: What calls are answered from.
        threads: Calls that are at work at once.
        tracer: Of this process; None where tracing is off.
    """

    def __init__(self, stage: str, versions: Held[T], threads: int = 1, tracer: Tracer | None = None) -> None:
        self._stage, self._versions, self._tracer = stage, versions, tracer
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix=stage, initializer=one_thread)
        """The threads that requests wait for."""
        self._aside = ThreadPoolExecutor(1, thread_name_prefix=f"{stage}-aside", initializer=one_thread)

    async def do(
        self, work: Callable[[T, Any], Any], calls: Sequence[tuple[Any, ...]], *, aside: bool = False
    ) -> list[Any]:
        """What `each` gives, by a thread of the pool; with `aside` by one that requests do not wait for."""
        loop = asyncio.get_running_loop()
        if aside:
            return await loop.run_in_executor(self._aside, self.each, work, calls)
        with UNDER_WAY:
            return await loop.run_in_executor(self.pool, self.each, work, calls)

    def each(self, work: Callable[[T, Any], Any], calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """`work` on the version and the rest of each call, whose first part is the manifest hash.

        A call that fails, or whose version is not held, is `Failed` and concerns no other.
        """
        answers = []
        for sha256, *rest in calls:
            version = self._versions.get(sha256)
            if version is None:
                answers.append(Failed(f"bundle {sha256[:12]} is not loaded here"))
                continue
            began_ns = time.time_ns() if self._tracer else 0
            try:
                answers.append(work(version, rest))
            except Exception as error:  # one call's fault is that call's
                log.exception("a call failed", extra={"request_id": _request_of(rest)})
                answers.append(Failed(f"{type(error).__name__}: {error}"))
            if self._tracer and (parent := getattr(rest[0], "traceparent", "")):
                self._tracer.worked(f"{self._stage} works", parent, began_ns)
        return answers


def one_thread() -> None:
    """What each thread that runs stages does first."""
    import faiss
    import torch

    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)


def _request_of(call: Sequence[Any]) -> str:
    """How the id of a call's request begins, where it is told: by its luck."""
    seed = getattr(call[0], "seed", 0)
    return f"{seed:015x}" if seed else ""
