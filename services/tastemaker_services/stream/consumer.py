"""Runs stream consumers as Ray actors: processes of their own, of low priority, restarted where they die."""

from contextlib import suppress

import ray

from tastemaker.config import Settings
from tastemaker_services.stream.loop import StreamWorker

ACTOR_NAME = "tastemaker-consumer"


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


class _Actor(StreamWorker):
    """Starts wherever Ray makes it, also again after a crash."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.start()

    def ready(self) -> bool:
        """Returns once the actor is made."""
        return True
