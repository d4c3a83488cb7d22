"""Gives each request its variant: fixed splits by hash, bandits by a draw that a unit keeps for an epoch.

The router reads definitions and posteriors as a snapshot at most one second old; it never writes posteriors
(the reward joiner alone does).
"""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from redis.asyncio import Redis as AsyncRedis

from tastemaker.experiments.assignment import Assignment, assign_fixed, assignment_of, bucket, pick
from tastemaker.experiments.definition import Experiment, Fixed, Thompson, decode_experiments
from tastemaker.experiments.posterior import Posterior
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.types import Origin

SNAPSHOT_SECONDS = 1.0
_KEPT_EPOCHS = 2


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What assignment depends on beside the unit and the time."""

    experiments: tuple[Experiment, ...] = ()
    posteriors: Mapping[str, Posterior] = field(default_factory=dict)

    def running(self, origin: Origin, layer: str = "default") -> Experiment | None:
        """The experiment that takes requests of `origin`, if any."""
        return next(
            (e for e in self.experiments if (e.state, e.origin, e.layer) == ("running", origin, layer)), None
        )


def draw(experiment: Experiment, posterior: Posterior, unit: str, now_ms: int) -> Assignment:
    """A bandit's draw for a unit's first exposure in the epoch of `now_ms`; a function of its arguments."""
    allocation = experiment.allocation
    assert isinstance(allocation, Thompson)
    epoch = now_ms // (1000 * allocation.epoch_seconds)
    probabilities = posterior.shares(experiment)
    place = pick(probabilities, bucket(experiment.salt, f"{experiment.name}:{epoch}", unit))
    return assignment_of(experiment, place, probabilities, f"thompson-{posterior.version}", epoch)


class Router:
    """Assigns units. One per process; safe for concurrent tasks of one event loop."""

    def __init__(self, client: AsyncRedis, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._snapshot = Snapshot()
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    async def snapshot(self) -> Snapshot:
        """Definitions and posteriors, at most `SNAPSHOT_SECONDS` old.

        Raises:
            StateError: They cannot be read.
        """
        if time.monotonic() - self._read_at >= SNAPSHOT_SECONDS:
            async with self._reading:
                if time.monotonic() - self._read_at >= SNAPSHOT_SECONDS:
                    started = time.monotonic()
                    self._snapshot = await read_snapshot(self._client, self._keys)
                    self._read_at = started
        return self._snapshot

    async def assign(self, unit: str, now_ms: int, origin: Origin) -> Assignment | None:
        """The variant of `unit` in the experiment that runs for `origin`; None where none runs.

        Raises:
            StateError: Redis/Valkey cannot be reached: answer without an experiment then.
        """
        snapshot = await self.snapshot()
        experiment = snapshot.running(origin)
        if experiment is None:
            return None
        if isinstance(experiment.allocation, Fixed):
            return assign_fixed(experiment, unit)
        drawn = draw(experiment, snapshot.posteriors.get(experiment.name, Posterior()), unit, now_ms)
        return await self._keep(experiment, drawn, unit)

    async def _keep(self, experiment: Experiment, drawn: Assignment, unit: str) -> Assignment:
        assert isinstance(experiment.allocation, Thompson)
        key = self._keys.assignment(experiment.name, drawn.epoch, unit)
        with state_errors("keep an assignment"):
            kept = await self._client.set(
                key, encode(drawn), nx=True, get=True, ex=_KEPT_EPOCHS * experiment.allocation.epoch_seconds
            )
        return drawn if kept is None else decode(str(kept), experiment)


def encode(assignment: Assignment) -> str:
    """JSON of an assignment without what its experiment's definition says already."""
    fields = asdict(assignment)
    del fields["policy"]
    return json.dumps(fields, separators=(",", ":"))


def decode(text: str, experiment: Experiment) -> Assignment:
    """The assignment that `encode` gave."""
    fields: dict[str, Any] = json.loads(text)
    policy = next((v.policy for v in experiment.variants if v.name == fields["variant"]), None)
    return Assignment(**fields | {"propensities": tuple(fields["propensities"])}, policy=policy)


async def read_snapshot(client: AsyncRedis, keys: Keys) -> Snapshot:
    """Running experiments, and the posteriors of the bandits among them.

    Raises:
        StateError: Redis/Valkey cannot be reached.
    """
    with state_errors("read experiments"):
        fields = await client.hgetall(keys.experiments)  # type: ignore[misc]
        running = tuple(e for e in decode_experiments(fields) if e.state == "running")
        bandits = [e.name for e in running if isinstance(e.allocation, Thompson)]
        if not bandits:
            return Snapshot(running)
        pipe = client.pipeline(transaction=False)
        for name in bandits:
            pipe.hgetall(keys.posterior(name))
        replies = await pipe.execute()
    return Snapshot(
        running, {name: Posterior.decode(reply) for name, reply in zip(bandits, replies, strict=True)}
    )
