"""Gives each request its variants: fixed splits by hash, bandits by a draw that a unit keeps for an epoch.

The router reads definitions and posteriors as a snapshot at most one second old; it never writes posteriors
(the reward joiner alone does). Moments are by the clock of Redis/Valkey, which all routers share: one whose own clock is off
by more than `TOLERATED_SKEW_MS` corrects it. Within that a unit may join or draw anew so much earlier at one router than at
another; its variant is the same at both.
"""

import asyncio
import json
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from redis.asyncio import Redis as AsyncRedis

from tastemaker.errors import ExperimentError
from tastemaker.experiments.allocation import Adaptive, Fixed, Interleaving, arm_context, needs_context
from tastemaker.experiments.assigned import DEFAULT_LAYER, Assigned
from tastemaker.experiments.assignment import (
    Assignment,
    assign_fixed,
    assign_forced,
    assign_interleaved,
    assignment_of,
)
from tastemaker.experiments.definition import Experiment
from tastemaker.experiments.eligibility import Subject
from tastemaker.experiments.hashing import bucket, pick
from tastemaker.experiments.holdout import Holdout, decode_holdout
from tastemaker.experiments.kept import decode_experiment
from tastemaker.experiments.layers import has, num_slots, slot_of
from tastemaker.experiments.posterior import Posterior, posterior_name
from tastemaker.experiments.store import TIME_SCRIPT, ms_of
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.types import Origin

SNAPSHOT_SECONDS = 1.0
TOLERATED_SKEW_MS = 1000
_KEPT_EPOCHS = 2
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What assignment depends on beside the request and the time: experiments that are not stopped, and what bandits know.

    `skew_ms` is to be added to this machine's clock.
    """

    experiments: tuple[Experiment, ...] = ()
    posteriors: Mapping[str, Posterior] = field(default_factory=dict)
    holdout: Holdout = field(default_factory=Holdout)
    skew_ms: int = 0

    def open(self, origin: Origin, now_ms: int) -> Iterator[Experiment]:
        """The experiments that assign requests of `origin`, the default layer's first, then by layer."""
        found = (e for e in self.experiments if e.origin == origin and e.is_open(now_ms))
        return iter(sorted(found, key=lambda e: (e.layer != DEFAULT_LAYER, e.layer)))

    def forced(self, subject: Subject) -> tuple[Assignment, ...]:
        """What a tester gets: what the request asks for, else what definitions say of the user.

        Raises:
            ExperimentError: There is no such experiment or variant.
        """
        named = {e.name: e for e in self.experiments}
        for name in subject.forced:
            if name not in named:
                known = ", ".join(sorted(named)) or "none"
                raise ExperimentError("forced experiment", value=name, limit=f"one of: {known}")
        wanted = {
            e.name: e.testers[subject.user_id] for e in self.experiments if subject.user_id in e.testers
        }
        return tuple(
            assign_forced(named[name], subject.unit(named[name].unit) or subject.user_id, variant)
            for name, variant in sorted((wanted | dict(subject.forced)).items())
        )


def takes_part(experiment: Experiment, subject: Subject, now_ms: int) -> str | None:
    """The unit of a request that takes part in an open experiment; None of one that does not."""
    unit = subject.unit(experiment.unit)
    if unit is None:
        return None
    wanted = num_slots(experiment.traffic_at(now_ms))
    if not has(experiment.ranges, wanted, slot_of(experiment.layer, unit)):
        return None
    eligibility = experiment.eligibility
    return unit if eligibility is None or eligibility.holds(subject) else None


def draw(
    experiment: Experiment, posterior: Posterior, unit: str, now_ms: int, context: tuple[int, ...] = ()
) -> Assignment:
    """A bandit's draw for a unit's first exposure in the epoch of `now_ms`; a function of its arguments.

    Args:
        experiment: The bandit.
        posterior: What is known of its rewards.
        unit: Who draws.
        now_ms: When.
        context: What `arm_context` gives of the request, for policies on context.
    """
    allocation = experiment.allocation
    assert isinstance(allocation, Adaptive)
    epoch = now_ms // (1000 * allocation.epoch_seconds)
    probabilities = posterior.shares(experiment, context)
    place = pick(probabilities, bucket(experiment.salt, f"{experiment.name}:{epoch}", unit))
    policy_version = f"{allocation.kind}-{posterior.version}"
    return assignment_of(experiment, unit, place, probabilities, policy_version, epoch, context)


class Router:
    """Assigns units. One per process; safe for concurrent tasks of one event loop."""

    def __init__(self, client: AsyncRedis, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._snapshot = Snapshot()
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()
        self._warned = False

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
                    self._warn_of_skew()
        return self._snapshot

    async def assign(self, subject: Subject, now_ms: int, origin: Origin) -> Assigned:
        """What a request gets of all experiments that run for `origin`.

        Args:
            subject: Whom it is from.
            now_ms: When it came, by this machine's clock.
            origin: Where it came from.

        Raises:
            StateError: Redis/Valkey cannot be reached: answer without an experiment then.
            ExperimentError: A tester asks for what is not there.
        """
        snapshot = await self.snapshot()
        if forced := snapshot.forced(subject):
            return Assigned(forced=forced)
        if snapshot.holdout.holds(subject.user_id):
            return Assigned(held_out=True)
        now_ms += snapshot.skew_ms
        found = []
        for experiment in snapshot.open(origin, now_ms):
            unit = takes_part(experiment, subject, now_ms)
            if unit is not None:
                found.append(await self._one(snapshot, experiment, subject, unit, now_ms))
        return Assigned(tuple(found))

    async def _one(
        self, snapshot: Snapshot, experiment: Experiment, subject: Subject, unit: str, now_ms: int
    ) -> Assignment:
        allocation = experiment.allocation
        if isinstance(allocation, Fixed):
            return assign_fixed(experiment, unit)
        if isinstance(allocation, Interleaving):
            return assign_interleaved(experiment, unit)
        posterior = snapshot.posteriors.get(experiment.name, Posterior())
        context = arm_context(allocation, subject.features()) if needs_context(allocation) else ()
        drawn = draw(experiment, posterior, unit, now_ms, context)
        return await self._keep(experiment, drawn, unit)

    async def _keep(self, experiment: Experiment, drawn: Assignment, unit: str) -> Assignment:
        assert isinstance(experiment.allocation, Adaptive)
        key = self._keys.assignment(experiment.name, drawn.epoch, unit)
        seconds = _KEPT_EPOCHS * experiment.allocation.epoch_seconds
        with state_errors("keep an assignment"):
            kept = await self._client.set(key, encode(drawn), nx=True, get=True, ex=seconds)
            if kept is None:
                return drawn
            before = decode(str(kept), experiment, unit)
            if before is not None:
                return before
            await self._client.set(key, encode(drawn), ex=seconds)
        return drawn

    def _warn_of_skew(self) -> None:
        if self._snapshot.skew_ms and not self._warned:
            log.warning(
                "this machine's clock is %d ms from that of Redis/Valkey, which experiments go by: set it",
                -self._snapshot.skew_ms,
            )
            self._warned = True


def encode(assignment: Assignment) -> str:
    """JSON of an assignment without what its experiment's definition says already."""
    return json.dumps(assignment.kept(), separators=(",", ":"))


def decode(text: str, experiment: Experiment, unit: str) -> Assignment | None:
    """The assignment that `encode` gave; None of one that was kept before units were assigned anew."""
    fields: dict[str, Any] = {"unit": unit, "layer": experiment.layer} | json.loads(text)
    if fields.get("generation", 0) != experiment.course.generation:
        return None
    return Assignment.of_kept(fields, experiment.variant(fields["variant"]).policy)


def _readable(fields: Mapping[str, str]) -> Iterator[Experiment]:
    """The experiments in the reply to HGETALL; what a newer release wrote takes no requests here."""
    for name, text in sorted(fields.items()):
        try:
            yield decode_experiment(name, text)
        except ExperimentError as error:
            _warn(str(error))


@lru_cache(64)
def _warn(text: str) -> None:
    log.warning("an experiment assigns nobody here: %s", text)


async def read_snapshot(client: AsyncRedis, keys: Keys) -> Snapshot:
    """Experiments that are not stopped, the posteriors of the bandits among those that run, the holdout and the clock.

    Raises:
        StateError: Redis/Valkey cannot be reached.
    """
    with state_errors("read experiments"):
        pipe = client.pipeline(transaction=False)
        pipe.hgetall(keys.experiments)
        pipe.get(keys.holdout)
        pipe.eval(TIME_SCRIPT, 1, keys.experiments)
        fields, holdout, server_time = await pipe.execute()
        skew_ms = ms_of(server_time) - time.time_ns() // 1_000_000
        there = tuple(e for e in _readable(fields) if e.state != "stopped")
        bandits = [e for e in there if e.state == "running" and isinstance(e.allocation, Adaptive)]
        replies = []
        if bandits:
            pipe = client.pipeline(transaction=False)
            for bandit in bandits:
                pipe.hgetall(keys.posterior(posterior_name(bandit)))
            replies = await pipe.execute()
    posteriors = {e.name: Posterior.decode(reply) for e, reply in zip(bandits, replies, strict=True)}
    tolerated = abs(skew_ms) <= TOLERATED_SKEW_MS
    return Snapshot(there, posteriors, decode_holdout(holdout), 0 if tolerated else skew_ms)
