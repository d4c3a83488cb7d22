"""Which variant a unit gets in one experiment: a pure function of a hash and probabilities, the same in every process.

The hash is `hashing`'s, which units take part at all is `layers`'; who keeps what a bandit drew is `router`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tastemaker.experiments.definition import INTERLEAVED, Experiment, Fixed
from tastemaker.experiments.hashing import bucket, pick

FIXED_POLICY = "fixed"
"""Policy version of a fixed split."""
INTERLEAVING_POLICY = "interleaving"
"""Policy version of a list that holds both variants' picks."""
FORCED_POLICY = "forced"
"""Policy version of what a tester asked for."""
_LOGGED = (
    "layer", "experiment", "variant", "unit", "epoch", "propensity", "propensities", "policy_version", "policy_hash",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Assignment:
    """A unit's variant in one experiment, and how likely it was.

    `propensity` is the probability with which `variant` was drawn, `propensities` that of every variant in
    order: as they were at the draw, which for a bandit is the unit's first exposure in the epoch. `unit` is the id that was
    assigned, `generation` the experiment's, `arm_context` the places of the request at the draw that a policy on context saw.
    Of an interleaving `teams` are both variants, in order; what stands outside of them is `INTERLEAVED` for certain.
    """

    experiment: str
    variant: str
    alias: str
    propensity: float
    propensities: tuple[float, ...]
    policy_version: str
    policy_hash: str
    epoch: int = 0
    policy: Mapping[str, Any] | None = field(default=None, compare=False)
    layer: str = "default"
    unit: str = ""
    generation: int = 0
    arm_context: tuple[int, ...] = ()
    teams: tuple["Assignment", ...] = ()

    def logged(self) -> str:
        """JSON as the decision log keeps it: what a reader needs who has no definition."""
        content = {name: getattr(self, name) for name in _LOGGED}
        if self.arm_context:
            content["arm_context"] = self.arm_context
        if self.teams:
            content |= {"teams": [team.variant for team in self.teams], "generation": self.generation}
        return json.dumps(content, separators=(",", ":"), ensure_ascii=False)

    def kept(self) -> dict[str, Any]:
        """Its fields without policies, which its experiment's definition says."""
        fields = asdict(self)
        del fields["policy"], fields["teams"]
        return fields | ({"teams": [team.kept() for team in self.teams]} if self.teams else {})

    @classmethod
    def of_kept(cls, fields: Mapping[str, Any], policy: Mapping[str, Any] | None = None) -> "Assignment":
        """The assignment whose fields `kept` gave, read from JSON or MessagePack; an earlier release kept fewer."""
        listed = {name: tuple(fields.get(name, ())) for name in ("propensities", "arm_context")}
        teams = tuple(cls.of_kept(team) for team in fields.get("teams", ()))
        return cls(**{**fields, **listed, "teams": teams}, policy=policy)


def assign_fixed(experiment: Experiment, unit: str) -> Assignment:
    """The variant of a unit under a fixed split; needs no state.

    Raises:
        AssertionError: The experiment has no fixed split.
    """
    assert isinstance(experiment.allocation, Fixed)
    weights = experiment.allocation.weights
    place = pick(weights, bucket(experiment.salt, experiment.name, unit))
    return assignment_of(experiment, unit, place, weights, FIXED_POLICY)


def assign_forced(experiment: Experiment, unit: str, variant: str) -> Assignment:
    """The variant that a tester asked for; drawn by nobody, so its propensity is 1.

    Raises:
        ExperimentError: The experiment has no such variant.
    """
    place = experiment.variant_names.index(experiment.variant(variant).name)
    certain = [float(place == other) for other in range(len(experiment.variants))]
    return assignment_of(experiment, unit, place, certain, FORCED_POLICY)


def assign_interleaved(experiment: Experiment, unit: str) -> Assignment:
    """Both variants of an interleaving, for certain; needs no state."""
    assert experiment.interleaves
    teams = tuple(
        assignment_of(experiment, unit, place, (1.0, 1.0), INTERLEAVING_POLICY)
        for place in range(len(experiment.variants))
    )
    both = hashlib.sha256(" ".join(team.policy_hash for team in teams).encode()).hexdigest()[:16]
    return replace(
        teams[0], variant=INTERLEAVED, propensities=(1.0,), policy_hash=both, policy=None, teams=teams
    )


def assignment_of(
    experiment: Experiment,
    unit: str,
    place: int,
    propensities: Sequence[float],
    policy_version: str,
    epoch: int = 0,
    arm_context: tuple[int, ...] = (),
) -> Assignment:
    """The assignment that gives variant number `place`."""
    variant = experiment.variants[place]
    return Assignment(
        experiment=experiment.name,
        variant=variant.name,
        alias=variant.alias,
        propensity=propensities[place],
        propensities=tuple(propensities),
        policy_version=policy_version,
        policy_hash=experiment.policy_hash(variant.name),
        epoch=epoch,
        policy=variant.policy,
        layer=experiment.layer,
        unit=unit,
        generation=experiment.course.generation,
        arm_context=arm_context,
    )
