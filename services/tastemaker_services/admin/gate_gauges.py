"""What gates said of the versions that aliases name, as metrics: told by the process that watches the registry."""

import logging
from typing import TYPE_CHECKING, Final, get_args

from tastemaker import telemetry
from tastemaker.errors import RegistryError
from tastemaker.promotion.gate import Outcome
from tastemaker.promotion.record import read_gates

if TYPE_CHECKING:
    from tastemaker.registry.client import Registry
    from tastemaker.registry.live import LiveAliases, Watcher

_OUTCOMES: Final[tuple[str, ...]] = get_args(Outcome)
log = logging.getLogger(__name__)


class GatesTold:
    """A watcher that also tells of gates whenever an alias has moved.

    Args:
        watcher: Copies the live aliases.
        registry: Keeps what gates said.
        catalogue: For the labels.
    """

    def __init__(self, watcher: "Watcher", registry: "Registry", catalogue: str) -> None:
        self._watcher, self._registry, self._catalogue = watcher, registry, catalogue
        self._told: dict[str, int] = {}

    def poll(self) -> "LiveAliases":
        """See `registry.live.Watcher.poll`; that gates cannot be read is no reason to stop watching."""
        live = self._watcher.poll()
        named = {alias: version.version for alias, version in live.aliases.items()}
        for alias, number in named.items():
            if self._told.get(alias) != number:
                try:
                    self._tell(alias, number)
                except RegistryError as error:
                    log.warning("cannot read what gates said of version %d: %s", number, error)
        self._told = named
        return live

    def _tell(self, alias: str, number: int) -> None:
        gates = read_gates(self._registry, self._catalogue, number)
        for outcome in _OUTCOMES:
            count = sum(gate.outcome == outcome for gate in gates.values())
            telemetry.GATES.labels(self._catalogue, alias, outcome).set(count)
        for name, gate in gates.items():
            for bound, figure in (("value", gate.value), ("limit", gate.limit)):
                told = telemetry.GATE_VALUE.labels(self._catalogue, alias, name, bound)
                told.set(float("nan") if figure is None else figure)
