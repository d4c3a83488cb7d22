"""Steps a stream consumer until it is stopped, and does the chores and looks at guardrails beside it. One process, without Ray."""

import logging
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Protocol

from tastemaker.config import Settings
from tastemaker.errors import StateError, TastemakerError
from tastemaker.events.consumer import Step, StreamConsumer
from tastemaker.experiments.reward_joiner import RewardJoiner
from tastemaker.features.stream import StreamFeatures
from tastemaker.home import Home
from tastemaker.state.connection import connect, state_errors, url_of
from tastemaker.state.keys import Keys
from tastemaker_services.gauges import forget_dead_gauges
from tastemaker_services.stream.chores import Chores
from tastemaker_services.stream.guarding import Guard

EVERY_SECONDS = 0.05
"""Between steps while none is behind: an event is seen that much later, and an idle step of 64 partitions takes 2 ms."""
BUSY_SECONDS = 0.01
"""The same after a step that had events: the next ones are most likely there already."""
TROUBLED_SECONDS = 1.0
STUCK_SECONDS = 120.0
"""A step that takes longer hangs: the longest wait for a server that does not answer is a few times five seconds."""
NICENESS = 5
SWITCH_SECONDS = 0.001
"""How long the writing of Parquet keeps the interpreter from a step, which takes it back after each of its round trips."""
log = logging.getLogger(__name__)


class Stepped(Protocol):
    """What a loop steps: a `StreamConsumer`."""

    def step(self) -> Step:
        """One round over what has come.

        Raises:
            TastemakerError: It cannot go on for now.
        """
        ...

    def close(self) -> None:
        """Gives up what it holds."""
        ...


class ConsumerLoop:
    """Steps a consumer in a thread until stopped. Any number of processes may do so.

    Args:
        consumer: What is stepped.
    """

    def __init__(self, consumer: Stepped) -> None:
        self._consumer = consumer
        self._stopped, self._stepped = threading.Event(), time.monotonic()
        self._thread = threading.Thread(target=self._run, daemon=True, name="consumer")

    def start(self) -> bool:
        """Starts stepping."""
        forget_dead_gauges()
        sys.setswitchinterval(SWITCH_SECONDS)
        with suppress(OSError):
            os.nice(NICENESS)  # answers go before what is counted a moment later
        self._thread.start()
        return True

    def stop(self) -> bool:
        """Finishes the step under way and gives up the leases."""
        self._stopped.set()
        self._thread.join(timeout=10.0)
        with suppress(TastemakerError):
            self._consumer.close()
        return not self._thread.is_alive()

    def why_not_alive(self) -> str | None:
        """What is wrong with its thread; None while it steps."""
        if not self._thread.is_alive():
            return "the thread of the consumer has ended"
        silent = time.monotonic() - self._stepped
        return f"the consumer's step takes {silent:.0f} s" if silent > STUCK_SECONDS else None

    def _run(self) -> None:
        try:
            while not self._stopped.wait(self.step()):
                pass
        except Exception:
            log.exception("the consumer has failed: its process ends, so that it is started anew")
            os._exit(1)  # without its thread it would only seem to be alive

    def step(self) -> float:
        """One step of the consumer; gives how many seconds to wait until the next."""
        self._stepped = time.monotonic()
        try:
            step = self._consumer.step()
        except TastemakerError as error:
            log.warning("the consumer cannot go on for now: %s", error)
            return TROUBLED_SECONDS
        if step.behind:
            return 0.0
        return BUSY_SECONDS if step.events else EVERY_SECONDS


class StreamWorker(ConsumerLoop):
    """Steps, does the chores and looks at guardrails from `start` to `stop`.

    Args:
        settings: Of the deployment.
    """

    def __init__(self, settings: Settings) -> None:
        home = Home.make(settings.home)
        self._client = connect(url_of(settings, home))
        keys = Keys(settings.catalogue, settings.state.partitions)
        rewards = RewardJoiner(self._client, keys)
        effects = StreamFeatures(self._client, keys, home, settings.state.trend_window)
        self._writer = ThreadPoolExecutor(1, "archive")
        super().__init__(
            StreamConsumer(self._client, keys, home, settings, rewards, effects, writer=self._writer)
        )
        self._chores, self._guard = Chores(settings, home), Guard(settings, home)

    def start(self) -> bool:
        """Starts all three."""
        self._chores.start()
        self._guard.start()
        return super().start()

    def stop(self) -> bool:
        """Stops all three; see `ConsumerLoop.stop`."""
        self._guard.stop()
        self._chores.stop()
        is_over = super().stop()
        self._writer.shutdown()
        return is_over

    def why_not_ready(self) -> str | None:
        """Whether Redis/Valkey answers; None where it does."""
        try:
            with state_errors("reach Redis/Valkey"):
                self._client.ping()
        except StateError as error:
            return str(error)
        return None
