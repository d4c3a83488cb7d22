"""What bandits know: decisions with and without a reward, per variant. The reward joiner alone writes it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import redis

from tastemaker import telemetry
from tastemaker.events.attribution import Outcome
from tastemaker.events.log import Entry
from tastemaker.experiments.bandits import thompson_probabilities
from tastemaker.experiments.decision_log import decision_table
from tastemaker.experiments.definition import Experiment, ExperimentStore, Thompson
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.state.lease import Command

_SUCCESSES, _FAILURES = "successes", "failures"
# KEYS: an experiment's totals. ARGV: their version, then fields and values in turn.
_WRITE = """
if tonumber(redis.call('HGET', KEYS[1], 'version') or '-1') > tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'version', unpack(ARGV))
return 1
"""


@dataclass(frozen=True, slots=True)
class Posterior:
    """Counts per variant of decisions whose window has closed; `version` grows with every change."""

    successes: Mapping[str, float] = field(default_factory=dict)
    failures: Mapping[str, float] = field(default_factory=dict)
    version: int = 0

    @classmethod
    def decode(cls, fields: Mapping[str, str]) -> "Posterior":
        """The posterior in the reply to HGETALL; absent counts are 0."""
        counts: dict[str, dict[str, float]] = {_SUCCESSES: {}, _FAILURES: {}}
        for key, value in fields.items():
            variant, _, kind = key.rpartition(":")
            if kind in counts:
                counts[kind][variant] = float(value)
        return cls(counts[_SUCCESSES], counts[_FAILURES], int(fields.get("version", 0)))

    def shares(self, experiment: Experiment) -> tuple[float, ...]:
        """Probability with which a unit that is new in the epoch draws each variant, in order."""
        assert isinstance(experiment.allocation, Thompson)
        return thompson_probabilities(
            tuple(self.successes.get(name, 0.0) for name in experiment.variant_names),
            tuple(self.failures.get(name, 0.0) for name in experiment.variant_names),
            experiment.allocation.floor,
            experiment.allocation.prior,
        )


def read_posterior(client: redis.Redis, keys: Keys, experiment: str) -> Posterior:
    """The totals of an experiment; of one without rewards yet, all 0.

    Raises:
        StateError: Redis/Valkey cannot be reached.
    """
    with state_errors(f"read the posterior of {experiment}"):
        reply: Any = client.hgetall(keys.posterior(experiment))
    return Posterior.decode(reply)


class RewardJoiner:
    """Counts the rewards of every experiment, running or stopped: the `Rewards` of `events.effects`.

    Counts are kept per partition, where a consumer writes them together with its offset, and summed up. Any consumer may
    do so at any time, without a lease: counts only grow, and so does the version, their sum. Totals of a smaller version
    are not written over those of a larger one, and whoever sums up after the last count has the largest.
    """

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._store = ExperimentStore(client, keys)

    def windows_ms(self) -> dict[tuple[str, str], int]:
        """Attribution window by (experiment, origin)."""
        return {(e.name, e.origin): e.attribution_window_ms for e in self._store.list()}

    def commands(self, partition: int, outcomes: Sequence[Outcome]) -> list[Command]:
        """Increments of the partition's counts."""
        return [
            ("HINCRBY", self._keys.posterior_part(partition, experiment), _field(variant, reward), "1")
            for experiment, variant, reward in outcomes
        ]

    def roll_up(self, experiments: Iterable[str] | None) -> None:
        """Sums the partitions' counts into the experiment's posterior; of all experiments for None."""
        with state_errors("sum up posteriors"):
            wanted = None if experiments is None else set(experiments)
            for experiment in self._store.list():
                if wanted is None or experiment.name in wanted:
                    self._roll_up(experiment)

    def _roll_up(self, experiment: Experiment) -> None:
        pipe: Any = self._client.pipeline(transaction=False)
        for partition in range(self._keys.partitions):
            pipe.hgetall(self._keys.posterior_part(partition, experiment.name))
        totals = _sum(pipe.execute())
        self._write(experiment.name, totals)
        if isinstance(experiment.allocation, Thompson):
            posterior = Posterior.decode({name: str(count) for name, count in totals.items()})
            for variant, share in zip(experiment.variant_names, posterior.shares(experiment), strict=True):
                telemetry.PROPENSITY.labels(self._keys.catalogue, experiment.name, variant).set(share)

    def _write(self, experiment: str, totals: Mapping[str, int]) -> None:
        fields = [word for name, count in totals.items() for word in (name, str(count))]
        self._client.eval(_WRITE, 1, self._keys.posterior(experiment), str(sum(totals.values())), *fields)

    def count(self, outcomes: Iterable[Outcome]) -> None:
        """Counts rewards in the metrics."""
        for experiment, variant, reward in outcomes:
            telemetry.REWARDS.labels(self._keys.catalogue, experiment, variant).inc(reward)

    def decision_table(self, decisions: Sequence[Entry]) -> pa.Table:
        """Decisions as the table to archive."""
        return decision_table(decisions)


def _field(variant: str, reward: int) -> str:
    return f"{variant}:{_SUCCESSES if reward else _FAILURES}"


def _sum(parts: Iterable[Mapping[str, str]]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for part in parts:
        for name, count in part.items():
            totals[name] = totals.get(name, 0) + int(count)
    return totals
