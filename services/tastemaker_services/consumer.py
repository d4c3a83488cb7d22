"""Runs the stream consumer as a Ray actor: a process of its own, of low priority, restarted where it dies."""

import logging
import os
import threading
from contextlib import suppress

import ray

from tastemaker.config import Settings
from tastemaker.errors import TastemakerError
from tastemaker.events.consumer import StreamConsumer
from tastemaker.experiments.posterior import RewardJoiner
from tastemaker.home import Home
from tastemaker.state.connection import connect, url_of
from tastemaker.state.keys import Keys

ACTOR_NAME = "tastemaker-consumer"
EVERY_SECONDS = 0.25
"""Between steps: a step looks at every partition, so that fewer and larger ones cost less."""
TROUBLED_SECONDS = 1.0
NICENESS = 5
log = logging.getLogger(__name__)


class ConsumerLoop:
    """Steps the consumer in a thread until stopped."""

    def __init__(self, settings: Settings) -> None:
        home = Home.open(settings.home)
        client = connect(url_of(settings, home))
        keys = Keys(settings.catalogue, settings.state.partitions)
        self._consumer = StreamConsumer(client, keys, home, settings, RewardJoiner(client, keys))
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="consumer")

    def start(self) -> bool:
        """Starts stepping."""
        with suppress(OSError):
            os.nice(NICENESS)  # answers go before what is counted a moment later
        self._thread.start()
        return True

    def stop(self) -> bool:
        """Finishes the step under way and gives up the lease."""
        self._stopped.set()
        self._thread.join(timeout=10.0)
        with suppress(TastemakerError):
            self._consumer.close()
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopped.wait(self._step()):
            pass

    def _step(self) -> float:
        try:
            self._consumer.step()
        except TastemakerError as error:
            log.warning("the consumer cannot go on for now: %s", error)
            return TROUBLED_SECONDS
        return EVERY_SECONDS


class ConsumerHandle:
    """The running actor."""

    def __init__(self, settings: Settings) -> None:
        actor = ray.remote(num_cpus=0.1, max_restarts=-1)(_Actor)
        self._actor = actor.options(name=f"{ACTOR_NAME}-{settings.catalogue}").remote(settings)
        ray.get(self._actor.ready.remote(), timeout=60.0)

    def stop(self) -> None:
        """Lets it finish its step, then ends it."""
        with suppress(ray.exceptions.RayError):
            ray.get(self._actor.stop.remote(), timeout=15.0)
        ray.kill(self._actor)


class _Actor(ConsumerLoop):
    """Starts stepping wherever Ray makes it, also again after a crash."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.start()

    def ready(self) -> bool:
        """Returns once the actor is made."""
        return True
