"""When a call is tried again, and how long it waits before: pure decisions, no waiting and no network.

Every call of `questions` may be sent twice without harm: lists are read, items and users are put whole, and events carry
an id by which the gateway knows them again.
"""

import random
import time
from collections.abc import Callable
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from tastemaker.client.errors import AnswerError, ClientError, LateError, UnreachableError

_RETRIED_STATUS: Final = frozenset({429, 502, 503, 504})


class Retries(BaseModel):
    """How long a call may take in all, and how it is tried again."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    timeout_seconds: float = Field(2.0, gt=0, description="of a whole call, waits and further tries included")
    attempt_seconds: float = Field(
        1.0, gt=0, description="of one try: a gateway that hangs leaves time to ask another"
    )
    max_attempts: int = Field(4, ge=1, le=100, description="tries in all; 1 never tries again")
    first_wait_seconds: float = Field(
        0.05, gt=0, description="longest wait before the second try; it doubles from there"
    )
    longest_wait_seconds: float = Field(2.0, gt=0, description="longest wait between two tries")


class Attempts:
    """The tries of one call, from now on.

    Args:
        retries: The rules.
        timeout_seconds: Of this call; None takes the rules'.
        clock: Seconds, for tests.
        luck: Lowest and highest -> a number between, for tests.
    """

    def __init__(
        self,
        retries: Retries,
        timeout_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        luck: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._retries, self._clock, self._luck = retries, clock, luck
        self._end = clock() + (retries.timeout_seconds if timeout_seconds is None else timeout_seconds)
        self._num_begun = 0

    def begin(self) -> float:
        """Begins a try; gives the seconds that it has.

        Raises:
            LateError: No time is left.
        """
        left = self._end - self._clock()
        if left <= 0:
            raise self._noted(LateError("the call has no time left", mend="give it a longer timeout_seconds"))
        self._num_begun += 1
        return min(left, self._retries.attempt_seconds)

    def wait_seconds(self, error: ClientError) -> float:
        """How long to wait after a try that failed.

        A wait is drawn between nothing and its bound, so that clients which failed together do not come back together;
        where the gateway says how long to wait, it is that and the draw. Raises the error itself where it is final: of a kind
        that another try does not mend, the last try, or no time for the wait.
        """
        if not _may_pass(error) or self._num_begun >= self._retries.max_attempts:
            raise self._noted(error)
        bound = self._retries.first_wait_seconds * 2.0 ** (self._num_begun - 1)
        wait = self._luck(0.0, min(bound, self._retries.longest_wait_seconds))
        if isinstance(error, AnswerError) and error.retry_after_seconds is not None:
            wait += error.retry_after_seconds
        if self._clock() + wait >= self._end:
            raise self._noted(error)
        return wait

    def _noted(self, error: ClientError) -> ClientError:
        error.num_attempts = max(1, self._num_begun)
        return error


def _may_pass(error: ClientError) -> bool:
    if isinstance(error, AnswerError):
        return error.status in _RETRIED_STATUS
    return isinstance(error, UnreachableError)
