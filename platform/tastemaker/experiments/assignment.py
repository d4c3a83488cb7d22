r"""Which variant a unit gets: a pure function of a hash and probabilities, the same in every process.

A unit's bucket is the first 8 bytes of SHA-256 over the UTF-8 texts salt, scope and unit joined by NUL bytes,
read as a big-endian number, its top 53 bits divided by 2^53: a number in [0, 1) that a double holds exactly.
Variants lie on [0, 1) in their order, each as wide as its probability. A fixed split's scope is the
experiment's name; a bandit's is the name, a colon and the number of the epoch, so that each epoch draws anew.

| salt | scope | unit | bucket |
|---|---|---|---|
| s1 | checkout | user-1 | 0.4937115679076297 |
| s1 | checkout | user-2 | 0.2672596927420634 |
| s2 | checkout | user-1 | 0.7662987400795563 |
| s1 | checkout:3 | user-1 | 0.823100510462958 |
| s1 | checkout | ü | 0.6962507595302515 |

The first by hand: `printf 's1\0checkout\0user-1' | sha256sum` begins 7e63e19dd1f58ff0, and
(0x7e63e19dd1f58ff0 >> 11) / 2^53 = 0.49371…
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tastemaker.experiments.definition import Experiment, Fixed

FIXED_POLICY = "fixed"
"""Policy version of a fixed split."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """A unit's variant in one experiment, and how likely it was.

    `propensity` is the probability with which `variant` was drawn, `propensities` that of every variant in
    order: as they were at the draw, which for a bandit is the unit's first exposure in the epoch.
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


def bucket(salt: str, scope: str, unit: str) -> float:
    """A number in [0, 1), uniform over units. See the module's text for the rule and test vectors.

    >>> bucket("s1", "checkout", "user-1")
    0.4937115679076297
    """
    digest = hashlib.sha256(f"{salt}\0{scope}\0{unit}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def pick(probabilities: Sequence[float], point: float) -> int:
    """The place in `probabilities` (which add up to 1) that holds `point` of [0, 1).

    >>> [pick([0.5, 0.25, 0.25], x) for x in (0.0, 0.49, 0.5, 0.75, 0.999)]
    [0, 0, 1, 2, 2]
    """
    edge = 0.0
    for place, probability in enumerate(probabilities):
        edge += probability
        if point < edge:
            return place
    return len(probabilities) - 1  # the sum fell short of 1 by rounding


def assign_fixed(experiment: Experiment, unit: str) -> Assignment:
    """The variant of a unit under a fixed split; needs no state.

    Raises:
        AssertionError: The experiment has no fixed split.
    """
    assert isinstance(experiment.allocation, Fixed)
    weights = experiment.allocation.weights
    place = pick(weights, bucket(experiment.salt, experiment.name, unit))
    return assignment_of(experiment, place, weights, FIXED_POLICY)


def assignment_of(
    experiment: Experiment, place: int, propensities: Sequence[float], policy_version: str, epoch: int = 0
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
    )
