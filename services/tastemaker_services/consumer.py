"""Runs stream consumers as Ray actors: processes of their own, of low priority, restarted where they die."""

import logging
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import ray

from tastemaker.config import Settings
from tastemaker.errors import TastemakerError
from tastemaker.events.consumer import StreamConsumer
from tastemaker.experiments.reward_joiner import RewardJoiner
from tastemaker.features.stream import StreamFeatures
from tastemaker.home import Home
from tastemaker.state.connection import connect, url_of
from tastemaker.state.keys import Keys
from tastemaker_services.chores import Chores
from tastemaker_services.gauges import forget_dead_gauges
from tastemaker_services.guarding import Guard

ACTOR_NAME = "tastemaker-consumer"
EVERY_SECONDS = 0.05
"""Between steps while none is behind: an event is seen that much later, and an idle step of 64 partitions takes 2 ms."""
BUSY_SECONDS = 0.01
"""The same after a step that had events: the next ones are most likely there already."""
TROUBLED_SECONDS = 1.0
NICENESS = 5
SWITCH_SECONDS = 0.001
"""How long the writing of Parquet keeps the interpreter from a step, which takes it back after each of its round trips."""
log = logging.getLogger(__name__)


class ConsumerLoop:
    """Steps the consumer in a thread until stopped. Any number of processes may do so."""

    def __init__(self, settings: Settings) -> None:
        home = Home.open(settings.home)
        client = connect(url_of(settings, home))
        keys = Keys(settings.catalogue, settings.state.partitions)
        rewards = RewardJoiner(client, keys)
        effects = StreamFeatures(client, keys, home, settings.state.trend_window)
        self._writer = ThreadPoolExecutor(1, "archive")
        self._consumer = StreamConsumer(client, keys, home, settings, rewards, effects, writer=self._writer)
        self._stopped = threading.Event()
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
        self._writer.shutdown()
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._stopped.wait(self._step()):
                pass
        except Exception:
            log.exception("the consumer has failed: its process ends, so that it is started anew")
            os._exit(1)  # without its thread it would only seem to be alive

    def _step(self) -> float:
        """Gives how long to wait."""
        try:
            step = self._consumer.step()
        except TastemakerError as error:
            log.warning("the consumer cannot go on for now: %s", error)
            return TROUBLED_SECONDS
        if step.behind:
            return 0.0
        return BUSY_SECONDS if step.events else EVERY_SECONDS


class ConsumerHandle:
    """The running actors, `state.consumers` of them."""

    def __init__(self, settings: Settings) -> None:
        actor = ray.remote(num_cpus=0.1, max_restarts=-1)(_Actor)
        names = [f"{ACTOR_NAME}-{settings.catalogue}-{n}" for n in range(settings.state.consumers)]
        self._actors = [actor.options(name=name).remote(settings) for name in names]
        ray.get([one.ready.remote() for one in self._actors], timeout=60.0)

    def stop(self) -> None:
        """Lets them finish their steps, then ends them."""
        with suppress(ray.exceptions.RayError):
            ray.get([one.stop.remote() for one in self._actors], timeout=15.0)
        for one in self._actors:
            ray.kill(one)


class _Actor(ConsumerLoop):
    """Starts stepping, the chores and the guard, wherever Ray makes it, also again after a crash."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._chores = Chores(settings, Home.open(settings.home))
        self._guard = Guard(settings, Home.open(settings.home))
        self.start()

    def start(self) -> bool:
        """Starts all three."""
        self._chores.start()
        self._guard.start()
        return super().start()

    def stop(self) -> bool:
        """Stops all three; see `ConsumerLoop.stop`."""
        self._guard.stop()
        self._chores.stop()
        return super().stop()

    def ready(self) -> bool:
        """Returns once the actor is made."""
        return True
