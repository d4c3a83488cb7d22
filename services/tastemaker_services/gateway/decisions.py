"""Decision records on their way to the log, off the requests' path: bounded; a dropped one is counted."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from tastemaker import telemetry
from tastemaker.errors import StateError
from tastemaker.experiments.decision_log import Decision

MAX_WAITING = 5000
MAX_BATCH = 200
EVERY_SECONDS = 0.05
"""How long the first decision of a batch waits for company: an exchange costs more than a record."""
FLUSH_SECONDS = 5.0

Append = Callable[[Sequence[Decision]], Awaitable[int]]
log = logging.getLogger(__name__)


class DecisionLog:
    """A queue with one writer. For one event loop.

    Args:
        append: Puts decisions into the log and gives how many it took.
        catalogue: For the count.
    """

    def __init__(self, append: Append, catalogue: str) -> None:
        self._append = append
        self._logged = telemetry.DECISIONS.labels(catalogue, "logged")
        self._dropped = telemetry.DECISIONS.labels(catalogue, "dropped")
        self._queue: asyncio.Queue[Decision] = asyncio.Queue(MAX_WAITING)
        self._writer: asyncio.Task[None] | None = None
        self._warned = False

    def start(self) -> None:
        """Starts the writer."""
        self._writer = asyncio.create_task(self._write())

    def put(self, decision: Decision) -> None:
        """Takes a decision; drops it where the log cannot keep up."""
        try:
            self._queue.put_nowait(decision)
        except asyncio.QueueFull:
            self.drop(1, "the queue is full")

    def drop(self, number: int, reason: str) -> None:
        """Counts decisions that the log will not have."""
        self._dropped.inc(number)
        if not self._warned:
            log.warning("decision records are dropped: %s (further ones are only counted)", reason)
            self._warned = True

    async def stop(self) -> None:
        """Writes what is left, for `FLUSH_SECONDS` at most, and stops the writer."""
        await asyncio.sleep(0)  # a record is put in the turn of the loop behind its answer's
        with suppress(TimeoutError):
            await asyncio.wait_for(self._queue.join(), FLUSH_SECONDS)
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)

    async def _write(self) -> None:
        while True:
            batch = [await self._queue.get()]
            await asyncio.sleep(EVERY_SECONDS)
            while len(batch) < MAX_BATCH and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            await self._append_counted(batch)
            for _ in batch:
                self._queue.task_done()

    async def _append_counted(self, batch: Sequence[Decision]) -> None:
        try:
            num_logged = await self._append(batch)
        except StateError as error:
            self.drop(len(batch), str(error))
            return
        self._logged.inc(num_logged)
        if num_logged < len(batch):
            self.drop(len(batch) - num_logged, "a partition's decision stream is full")
