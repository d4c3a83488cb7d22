"""What bandits know: decisions with and without a reward, per variant, and sums over them. The reward joiner alone writes it.

Every number is a sum over decisions whose window has closed, so that those of partitions add up to those of the whole. What is to be
forgotten is kept apart by time, see `forgetting`, and weighed when it is read, as of the newest decision: time stands still where none
comes, and propensities follow from the statistics alone.

Fields are `variant:kind` of these kinds, those that are forgotten with `~h.era` or `@seconds.epoch` behind: `successes` and `failures` (decisions
with and without a reward, never forgotten), `count`, `sum`, `squares` of rewards, and of policies on context `xx.i.j` (sum of x_i x_j, i <= j)
and `x.i` (sum of x_i times reward).
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import redis

from tastemaker.events.attribution import Outcome
from tastemaker.experiments.allocation import Adaptive, AnyAllocation, Contextual, Interleaving, shares
from tastemaker.experiments.definition import Experiment
from tastemaker.experiments.forgetting import Forgetting
from tastemaker.experiments.policies.arms import Arm
from tastemaker.experiments.policies.linear import LinearArm, LinearPosterior
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys

MOST_REWARD = 1e12
"""Rewards beyond count as this, as an event's value may not be larger."""
NEWEST, VERSION = "newest_ms", "version"
_MOST_KEPT = 4096
_DEFAULT_REWARD = Experiment.model_fields["reward"].default


@dataclass(frozen=True, slots=True)
class Posterior:
    """Sums per variant of decisions whose window has closed; `version` grows with every change.

    Args:
        successes: Decisions with a reward.
        failures: Decisions without one.
        version: Of all decisions how many.
        sums: All other sums by variant and kind.
        newest_ms: When the newest decision's window closed, by the log's clock.
    """

    successes: Mapping[str, float] = field(default_factory=dict)
    failures: Mapping[str, float] = field(default_factory=dict)
    version: int = 0
    sums: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    newest_ms: int = 0
    _known: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def decode(cls, fields: Mapping[str, str]) -> "Posterior":
        """The posterior in the reply to HGETALL; absent counts are 0."""
        kinds: dict[str, dict[str, float]] = {}
        for key, value in fields.items():
            variant, colon, kind = key.rpartition(":")
            if colon:
                kinds.setdefault(variant, {})[kind] = float(value)
        return cls(
            {name: sums.pop("successes") for name, sums in kinds.items() if "successes" in sums},
            {name: sums.pop("failures") for name, sums in kinds.items() if "failures" in sums},
            int(fields.get(VERSION, 0)),
            {name: sums for name, sums in kinds.items() if sums},
            int(float(fields.get(NEWEST, 0))),
        )

    def mean(self, variant: str) -> float:
        """How often a variant's decisions are rewarded: the mean of Beta(1 + successes, 1 + failures).

        >>> Posterior({"a": 3.0}, {"a": 5.0}).mean("a")  # 4 / 10
        0.4
        """
        successes, failures = self.successes.get(variant, 0.0), self.failures.get(variant, 0.0)
        return (1 + successes) / (2 + successes + failures)

    def shares(self, experiment: Experiment, context: tuple[int, ...] = ()) -> tuple[float, ...]:
        """Probability with which a unit that is new in the epoch draws each variant, in order.

        Args:
            experiment: Whose posterior this is.
            context: What `allocation.arm_context` gave for the request.
        """
        names = experiment.variant_names
        assert not isinstance(experiment.allocation, Interleaving)
        return self._once(  # type: ignore[no-any-return]
            (experiment.allocation, names, context),
            lambda: shares(experiment.allocation, self, names, context),
        )

    def arms(self, names: Sequence[str], forgetting: Forgetting | None) -> tuple[Arm, ...]:
        """Counts and sums of each variant, of what is not forgotten."""
        return tuple(self._arm(name, forgetting) for name in names)

    def regression(
        self, names: Sequence[str], forgetting: Forgetting | None, dimension: int, ridge: float
    ) -> LinearPosterior:
        """Ridge regressions of all variants, of what is not forgotten."""
        return self._once(  # type: ignore[no-any-return]
            (names, forgetting, dimension, ridge),
            lambda: LinearPosterior.of(
                [self._linear_arm(name, forgetting, dimension) for name in names], ridge
            ),
        )

    def _once(self, key: Any, make: Any) -> Any:
        if key not in self._known:
            if len(self._known) >= _MOST_KEPT:
                self._known.clear()
            self._known[key] = make()
        return self._known[key]

    def _arm(self, name: str, forgetting: Forgetting | None) -> Arm:
        sums = dict(self._sums(name, forgetting))
        if forgetting is not None:
            return Arm(sums.get("count", 0.0), sums.get("sum", 0.0), sums.get("squares", 0.0))
        successes = self.successes.get(name, 0.0)
        return Arm(
            successes + self.failures.get(name, 0.0),
            sums.get("sum", successes),
            sums.get("squares", successes),
        )

    def _linear_arm(self, name: str, forgetting: Forgetting | None, dimension: int) -> LinearArm:
        gram_DD, moment_D = np.zeros((dimension, dimension)), np.zeros(dimension)
        for kind, value in self._sums(name, forgetting):
            head, *places = kind.split(".")
            at = tuple(int(place) for place in places)
            if head in ("x", "xx") and max(at) < dimension:
                if head == "x":
                    moment_D[at] = value
                else:
                    gram_DD[at] = gram_DD[at[::-1]] = value
        return LinearArm(gram_DD, moment_D)

    def _sums(self, name: str, forgetting: Forgetting | None) -> Iterator[tuple[str, float]]:
        """Kinds and sums of a variant; those of all times together, as they count at `newest_ms`."""
        totals: dict[str, float] = {}
        for kind, value in self.sums.get(name, {}).items():
            plain, suffix = parted(kind)
            if forgetting is None:
                weight = float(not suffix)
            else:
                weight = forgetting.weight(suffix, self.newest_ms) if suffix else 0.0
            if weight:
                totals[plain] = totals.get(plain, 0.0) + value * weight
        return iter(totals.items())


def parted(kind: str) -> tuple[str, str]:
    """A kind of sums, and what is behind it where that is of one time.

    >>> parted("xx.0.3@86400.20612"), parted("sum~60.0.7"), parted("successes")
    (('xx.0.3', '@86400.20612'), ('sum', '~60.0.7'), ('successes', ''))
    """
    for mark in ("~", "@"):
        plain, found, suffix = kind.partition(mark)
        if found:
            return plain, mark + suffix
    return kind, ""


def increments(outcome: Outcome, allocation: AnyAllocation, is_real: bool) -> Iterator[tuple[str, float]]:
    """What one outcome adds to which fields.

    Args:
        outcome: A decision's reward.
        allocation: Of its experiment.
        is_real: Whether rewards are any numbers; else they are 0 and 1.

    >>> from tastemaker.experiments.allocation import Fixed
    >>> list(increments(Outcome("e", "a", 3.0), Fixed(weights=(0.5, 0.5)), True))
    [('a:successes', 1.0), ('a:sum', 3.0), ('a:squares', 9.0)]
    """
    reward = max(-MOST_REWARD, min(MOST_REWARD, outcome.reward))
    forgetting = allocation.forgetting if isinstance(allocation, Adaptive) else None
    yield f"{outcome.variant}:{'successes' if reward else 'failures'}", 1.0
    weight, suffix = 1.0, ""
    if forgetting is not None:
        suffix, weight = forgetting.stored(outcome.at_ms)
        yield f"{outcome.variant}:count{suffix}", weight
    if forgetting is not None or is_real:
        yield f"{outcome.variant}:sum{suffix}", weight * reward
        yield f"{outcome.variant}:squares{suffix}", weight * reward * reward
    if isinstance(allocation, Contextual):
        places = sorted(outcome.context)
        for n, i in enumerate(places):
            yield f"{outcome.variant}:x.{i}{suffix}", weight * reward
            for j in places[n:]:
                yield f"{outcome.variant}:xx.{i}.{j}{suffix}", weight


def posterior_name(experiment: Experiment) -> str:
    """What the sums of an experiment are kept under: another name wherever they would mean something else.

    That is, where its units were assigned anew, and by what a reward is and what of the request is looked at; of an
    experiment that has all of these as they are by default it is the experiment's name, as in the previous release.
    """
    allocation = experiment.allocation
    looked_at: tuple[object, ...] = ()
    if isinstance(allocation, Contextual):
        encoded = () if allocation.encoding == 1 else (allocation.encoding,)
        looked_at = (*allocation.features, allocation.dimension, *encoded)
    meaning = (experiment.course.generation, experiment.reward, *looked_at)
    if meaning == (0, _DEFAULT_REWARD):
        return experiment.name
    digest = hashlib.sha256(json.dumps(meaning).encode()).hexdigest()[:12]
    return f"{experiment.name}.{digest}"


def read_posterior(client: redis.Redis, keys: Keys, name: str) -> Posterior:
    """The totals of that `posterior_name`; of an experiment without rewards yet, all 0.

    Raises:
        StateError: Redis/Valkey cannot be reached.
    """
    with state_errors(f"read the posterior of {name}"):
        reply: Any = client.hgetall(keys.posterior(name))
    return Posterior.decode(reply)


def total_of(parts: Iterable[Mapping[str, str]]) -> dict[str, float]:
    """Fields of the whole of those of its parts, each field summed in the order of parts; of times the newest."""
    totals: dict[str, float] = {}
    for part in parts:
        for name, text in part.items():
            before = totals.get(name, 0.0)
            totals[name] = max(before, float(text)) if name == NEWEST else before + float(text)
    return totals
