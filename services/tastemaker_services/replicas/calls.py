"""Calls to one stage: what waits while others are under way travels together in the next message.

A hop costs more than most stages' work, so under load one message carries several requests; a lone request
never waits for company. Each call keeps its own deadline: one not yet sent is dropped when it passes, one
under way is answered into nothing.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tastemaker.errors import ServingError

MAX_BATCH = 16
LOST_AFTER_SECONDS = 2.0
"""How long beyond its calls' deadlines a message may take before its slot is given up: its replica hangs."""


class StageError(ServingError):
    """A stage did not answer a call: it failed, or was late."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A stage's answer to one call of a message that it could not do; the other calls are not concerned."""

    reason: str


Send = Callable[[list[Any]], Awaitable[Sequence[Any]]]


@dataclass(slots=True)
class _Waiting:
    call: Any
    answer: asyncio.Future[Any]
    deadline: float


class StageCalls:
    """One process's calls to one stage. For one event loop.

    Args:
        send: Carries a message of calls to a replica and gives an answer for each, in order.
        most: Calls of one message.
        sent: Is told how many calls went with each message.
    """

    def __init__(
        self, send: Send, most: int = MAX_BATCH, sent: Callable[[int], None] = lambda _: None
    ) -> None:
        self.num_replicas = 1
        """Living replicas of the stage: as many messages are under way at once, since each works on one."""
        self._send, self._most, self._sent = send, most, sent
        self._waiting: deque[_Waiting] = deque()
        self._in_flight: set[asyncio.Task[None]] = set()

    async def __call__(self, call: Any, timeout_seconds: float) -> Any:
        """The stage's answer to `call`.

        Raises:
            StageError: It failed or did not come in time.
        """
        if timeout_seconds <= 0:
            raise StageError("no time is left for the stage")
        loop = asyncio.get_running_loop()
        waiting = _Waiting(call, loop.create_future(), loop.time() + timeout_seconds)
        self._waiting.append(waiting)
        # Not at once: requests that one message brought back go on together in the next stage's.
        loop.call_soon(self._dispatch)
        try:
            answer = await asyncio.wait_for(waiting.answer, timeout_seconds)
        except TimeoutError as error:
            raise StageError(f"the stage is late: over {timeout_seconds * 1000:.0f} ms") from error
        if isinstance(answer, Failed):
            raise StageError("the stage failed", mend=answer.reason)
        return answer

    def _dispatch(self) -> None:
        while self._waiting and len(self._in_flight) < self.num_replicas:
            batch = self._next_batch()
            if batch:
                self._sent(len(batch))
                task = asyncio.get_running_loop().create_task(self._carry(batch))
                self._in_flight.add(task)

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        while self._waiting and len(batch) < self._most:
            waiting = self._waiting.popleft()
            if not waiting.answer.done():
                batch.append(waiting)
        return batch

    async def _carry(self, batch: list[_Waiting]) -> None:
        try:
            loop = asyncio.get_running_loop()
            patience = max(waiting.deadline for waiting in batch) - loop.time() + LOST_AFTER_SECONDS
            answers = await asyncio.wait_for(self._send([w.call for w in batch]), patience)
            for waiting, answer in zip(batch, answers, strict=True):
                if not waiting.answer.done():
                    waiting.answer.set_result(answer)
        except Exception as error:  # noqa: BLE001 (whatever a replica or its transport raises is that stage's failure)
            _fail(batch, error)
        finally:
            task = asyncio.current_task()
            assert task is not None
            self._in_flight.discard(task)
            self._dispatch()


def _fail(batch: list[_Waiting], error: Exception) -> None:
    for waiting in batch:
        if not waiting.answer.done():
            waiting.answer.set_result(Failed(f"{type(error).__name__}: {error}"))
