"""Policies on context: a ridge regression of rewards on the request's features, one per arm (disjoint models).

A context is the tuple of the places that are on in its vector x of zeros and ones, see `policies.context`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from tastemaker.experiments.policies.greedy import shared_by_best
from tastemaker.experiments.policies.quadrature import largest_of_normals
from tastemaker.types import Float64

# Shapes: N arms, D places.


@dataclass(frozen=True, slots=True)
class LinearArm:
    """Sufficient statistics of one arm: the sum of x xᵀ, and of x times reward. Those of parts add up."""

    gram_DD: Float64
    moment_D: Float64

    @classmethod
    def empty(cls, dimension: int) -> Self:
        """Of no rewards."""
        return cls(np.zeros((dimension, dimension)), np.zeros(dimension))

    def __add__(self, other: "LinearArm") -> "LinearArm":
        return LinearArm(self.gram_DD + other.gram_DD, self.moment_D + other.moment_D)

    def with_reward(self, context: Sequence[int], reward: float, weight: float = 1.0) -> "LinearArm":
        """With one more reward, that counts `weight`."""
        gram_DD, moment_D = self.gram_DD.copy(), self.moment_D.copy()
        places = list(context)
        gram_DD[np.ix_(places, places)] += weight
        moment_D[places] += weight * reward
        return LinearArm(gram_DD, moment_D)


@dataclass(frozen=True, slots=True)
class LinearPosterior:
    """What the regressions say: weights, and how sure they are."""

    weight_ND: Float64
    covariance_NDD: Float64

    @classmethod
    def of(cls, arms: Sequence[LinearArm], ridge: float) -> Self:
        """Weights A⁻¹ b and A⁻¹ of every arm, with A = ridge I + sum of x xᵀ and b = sum of x reward."""
        gram_NDD = np.stack([arm.gram_DD for arm in arms])
        covariance_NDD: Float64 = np.asarray(
            np.linalg.inv(gram_NDD + ridge * np.eye(gram_NDD.shape[-1])), dtype=np.float64
        )
        moment_ND = np.stack([arm.moment_D for arm in arms])
        return cls(np.einsum("nij,nj->ni", covariance_NDD, moment_ND), covariance_NDD)

    def expected(self, context: Sequence[int]) -> tuple[Float64, Float64]:
        """Expected reward xᵀ A⁻¹ b of each arm (N,), and its variance xᵀ A⁻¹ x (N,) in units of one reward's."""
        x_D = np.zeros(self.weight_ND.shape[1])
        x_D[list(context)] = 1.0
        return self.weight_ND @ x_D, np.maximum(self.covariance_NDD @ x_D @ x_D, 1e-300)

    def ucb_weights(self, context: Sequence[int], exploration: float) -> tuple[float, ...]:
        """1 for the arm of the highest `xᵀ A⁻¹ b + c sqrt(xᵀ A⁻¹ x)`, ties shared [Li et al. 2010, algorithm 1].

        >>> seen = LinearArm.empty(2).with_reward([0, 1], 1.0)
        >>> LinearPosterior.of([seen, LinearArm.empty(2)], 1.0).ucb_weights([0, 1], 0.0)
        (1.0, 0.0)
        """
        mean_N, variance_N = self.expected(context)
        return shared_by_best([float(bound) for bound in mean_N + exploration * np.sqrt(variance_N)])

    def thompson_weights(self, context: Sequence[int], deviation: float) -> tuple[float, ...]:
        """P(the arm's expected reward is the highest in this context), exact: [Agrawal & Goyal 2013, algorithm 1], a model per arm.

        Weights are Normal(A⁻¹ b, v² A⁻¹) with v the `deviation`: so expected rewards are normal too, and independent, as no two
        arms share a model.

        By hand: with ridge 1 and one reward 1 at x = (1, 1), A = [[2, 1], [1, 2]] and A⁻¹ b = (1/3, 1/3): mean 2/3, variance 2/3.
        The arm without rewards has mean 0 and variance 2. So w = Phi((2/3) / sqrt(8/3)) = Phi(.4082) = .6585.

        >>> seen = LinearArm.empty(2).with_reward([0, 1], 1.0)
        >>> [round(w, 4) for w in LinearPosterior.of([seen, LinearArm.empty(2)], 1.0).thompson_weights([0, 1], 1.0)]
        [0.6585, 0.3415]
        """
        mean_N, variance_N = self.expected(context)
        best = largest_of_normals(mean_N.tolist(), (deviation * np.sqrt(variance_N)).tolist())
        return tuple(float(weight) for weight in best)
