"""The gateway's world over a real bundle's pipeline, whose stages run in the test's own process."""

from collections.abc import Awaitable, Callable
from typing import Any

from gateway_world import World
from tagged import NUM_ITEMS

from tastemaker.bundle.reader import Bundle
from tastemaker.stages.live import LiveStages
from tastemaker_services.gateway.face import BundleFace
from tastemaker_services.gateway.ladder import Stages
from tastemaker_services.gateway.pins import Pin
from tastemaker_services.replicas.calls import StageError
from tastemaker_services.replicas.stages import (
    Loaded,
    _contributions,
    _rank,
    _reorder,
    _rerank,
    _retrieve,
    _say,
    _similar,
)

ITEMS = [f"i{i}" for i in range(NUM_ITEMS)]


class PipedWorld(World):
    """Items are those of the champion's bundle; a stage that `faults` names does not answer."""

    def __init__(self, bundle: Bundle, live: LiveStages | None = None, **gateway: Any) -> None:
        super().__init__(**gateway)
        self.live = live or LiveStages(bundle)
        self.pins: dict[str, Pin] = {}
        self.versions: dict[str, Loaded] = {}
        self.add("champion", bundle, self.live)

    def add(self, alias: str, bundle: Bundle, live: LiveStages | None = None) -> None:
        """Serves a bundle under an alias beside the others."""
        self.pins[alias] = Pin(len(self.pins) + 1, BundleFace.of(bundle))
        self.versions[bundle.ref.sha256] = Loaded(bundle, live or LiveStages(bundle), "default")

    def stages(self) -> Stages:
        return Stages(
            retrieve=self._call("retrieve", _retrieve),
            rank=self._call("rank", _rank),
            rerank=self._call("rerank", _rerank),
            similar=self._call("similar", _similar),
            say=self._call("say", _say),
            contributions=self._call("contributions", _contributions),
            reorder=self._call("reorder", _reorder),
        )

    def _call(self, name: str, work: Callable[[Loaded, list[Any]], Any]) -> Callable[..., Awaitable[Any]]:
        async def answer(call: Any, timeout_seconds: float) -> Any:
            del timeout_seconds
            if name in self.graph.faults:
                raise StageError("the stage failed")
            return work(self.versions[call[0]], list(call[1:]))

        return answer
