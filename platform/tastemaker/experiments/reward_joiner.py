"""Brings rewards to the bandits that learn from them: the `Rewards` of the stream consumer."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import redis

from tastemaker import telemetry
from tastemaker.events.attribution import Ignored, Measure, Outcome, Rule
from tastemaker.events.log import Entry
from tastemaker.experiments.allocation import Adaptive, Fixed
from tastemaker.experiments.decision_log import decision_table
from tastemaker.experiments.definition import Experiment
from tastemaker.experiments.forgetting import Forgetting
from tastemaker.experiments.metrics import metric_of
from tastemaker.experiments.posterior import (
    NEWEST,
    Posterior,
    increments,
    parted,
    posterior_name,
    total_of,
)
from tastemaker.experiments.store import ExperimentStore
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.state.lease import Command

_COUNTS = (":successes", ":failures")
_PLAIN = Fixed(weights=(1.0,))
# KEYS: an experiment's totals. ARGV: their version, then fields and values in turn. Epochs and eras that are over are no more among them.
_WRITE = """
if tonumber(redis.call('HGET', KEYS[1], 'version') or '-1') > tonumber(ARGV[1]) then return 0 end
local given = {}
for i = 2, #ARGV, 2 do given[ARGV[i]] = true end
for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
    if string.find(name, '[@~][^:]*$') and not given[name] then redis.call('HDEL', KEYS[1], name) end
end
redis.call('HSET', KEYS[1], 'version', ARGV[1])
for i = 2, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
return 1
"""


def rule_of(experiment: Experiment) -> Rule:
    """What counts as a reward in an experiment: its metric's events, within its metric's window."""
    metric = metric_of(experiment.reward)
    measures: dict[str, Measure] = {"any": "any", "items": "items", "value": "value"}
    window_ms = metric.window_of(experiment.attribution_window_ms)
    since_ms = experiment.course.reassigned_ms
    return Rule(window_ms, frozenset(metric.events), measures[metric.measure], since_ms)


class RewardJoiner:
    """Counts the rewards of every experiment, running or stopped: the `Rewards` of `events.effects`.

    Sums are kept per partition, where a consumer writes them together with its offset, and summed up. Any consumer may
    do so at any time, without a lease: counts only grow, and so does the version, their sum. Totals of a smaller version
    are not written over those of a larger one, and whoever sums up after the last count has the largest.
    """

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._store = ExperimentStore(client, keys)
        self._experiments: dict[str, Experiment] = {}

    def rules(self) -> dict[tuple[str, str], Rule]:
        """What a reward is, by (experiment, origin)."""
        self._experiments = {e.name: e for e in self._store.list()}
        return {(e.name, e.origin): rule_of(e) for e in self._experiments.values()}

    def commands(self, partition: int, outcomes: Sequence[Outcome]) -> list[Command]:
        """Increments of the partition's sums; those of one field together."""
        totals: dict[tuple[str, str], float] = {}
        newest: dict[str, int] = {}
        for outcome in outcomes:
            part = self._keys.posterior_part(partition, self._posterior_name(outcome.experiment))
            newest[part] = max(newest.get(part, 0), outcome.at_ms)
            for name, value in self._increments(outcome):
                totals[part, name] = totals.get((part, name), 0.0) + value
        return [
            *(_increment(part, name, value) for (part, name), value in totals.items()),
            *(("HSET", part, NEWEST, str(at_ms)) for part, at_ms in newest.items()),
        ]

    def _posterior_name(self, experiment: str) -> str:
        known = self._experiments.get(experiment)
        return experiment if known is None else posterior_name(known)

    def _increments(self, outcome: Outcome) -> Iterable[tuple[str, float]]:
        experiment = self._experiments.get(outcome.experiment)
        if experiment is None:  # deleted since: its counts are kept all the same
            return increments(outcome, _PLAIN, is_real=False)
        is_real = metric_of(experiment.reward).reward == "real"
        return increments(outcome, experiment.allocation, is_real)

    def roll_up(self, experiments: Iterable[str] | None) -> None:
        """Sums the partitions' parts into the experiment's posterior; of all experiments for None."""
        with state_errors("sum up posteriors"):
            wanted = None if experiments is None else set(experiments)
            for experiment in self._store.list():
                if wanted is None or experiment.name in wanted:
                    self._roll_up(experiment)

    def _roll_up(self, experiment: Experiment) -> None:
        pipe: Any = self._client.pipeline(transaction=False)
        for partition in range(self._keys.partitions):
            pipe.hgetall(self._keys.posterior_part(partition, posterior_name(experiment)))
        totals = total_of(pipe.execute())
        allocation = experiment.allocation
        if isinstance(allocation, Adaptive) and (forgetting := allocation.forgetting) is not None:
            totals = self._without_what_is_over(experiment, forgetting, totals)
        self._write(posterior_name(experiment), totals)
        if isinstance(experiment.allocation, Adaptive):
            posterior = Posterior.decode({name: repr(value) for name, value in totals.items()})
            for variant, share in zip(
                experiment.variant_names, posterior.shares(experiment, (0,)), strict=True
            ):
                labels = (self._keys.catalogue, experiment.name, variant)
                telemetry.PROPENSITY.labels(*labels).set(share)
                telemetry.POSTERIOR_MEAN.labels(*labels).set(posterior.mean(variant))

    def _without_what_is_over(
        self, experiment: Experiment, forgetting: Forgetting, totals: Mapping[str, float]
    ) -> dict[str, float]:
        """Totals without the epochs and eras that will never count again; those leave the parts too. A part that is behind may write them once more."""
        newest_ms = int(totals.get(NEWEST, 0))
        over = [name for name in totals if forgetting.is_over(parted(name.rpartition(":")[2])[1], newest_ms)]
        if over:
            pipe: Any = self._client.pipeline(transaction=False)
            for partition in range(self._keys.partitions):
                pipe.hdel(self._keys.posterior_part(partition, posterior_name(experiment)), *over)
            pipe.execute()
        gone = {*over}
        return {name: value for name, value in totals.items() if name not in gone}

    def _write(self, name_of_posterior: str, totals: Mapping[str, float]) -> None:
        version = sum(int(value) for name, value in totals.items() if name.endswith(_COUNTS))
        fields = [word for name, value in totals.items() for word in (name, _text(value))]
        self._client.eval(_WRITE, 1, self._keys.posterior(name_of_posterior), str(version), *fields)

    def count(self, outcomes: Iterable[Outcome], ignored: Mapping[Ignored, int]) -> None:
        """Counts rewards in the metrics, and events that were none."""
        for outcome in outcomes:
            telemetry.REWARDS.labels(self._keys.catalogue, outcome.experiment, outcome.variant).inc(
                max(0.0, outcome.reward)
            )
        for reason, count in ignored.items():
            telemetry.REWARDS_IGNORED.labels(self._keys.catalogue, reason).inc(count)

    def decision_table(self, decisions: Sequence[Entry]) -> pa.Table:
        """Decisions as the table to archive."""
        return decision_table(decisions)


def _increment(key: str, name: str, value: float) -> Command:
    if name.endswith(_COUNTS):
        return "HINCRBY", key, name, str(int(value))
    return "HINCRBYFLOAT", key, name, repr(value)


def _text(value: float) -> str:
    """Whole numbers as the previous release wrote and reads them."""
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
