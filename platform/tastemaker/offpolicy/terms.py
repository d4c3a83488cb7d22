"""What an estimate is made of, row by row: the common ground of estimators and intervals.

Shape letters: R rows, J ratios, C clusters.
"""

from dataclasses import dataclass

import numpy as np

from tastemaker.types import Float64, Int64


@dataclass(frozen=True, slots=True)
class Terms:
    """An estimate as the sum over j of (sum of numerators j) / (sum of denominators j).

    A mean has ones as denominators, a self-normalised estimate its weights; a ratio without any denominator counts 0.
    """

    numerator_RJ: Float64
    denominator_RJ: Float64

    @classmethod
    def mean(cls, value_R: Float64) -> "Terms":
        """The mean of values.

        >>> Terms.mean(np.array([1.0, 3.0])).value
        2.0
        """
        return cls(value_R[:, None], np.ones((len(value_R), 1)))

    @classmethod
    def ratio(cls, numerator_R: Float64, denominator_R: Float64) -> "Terms":
        """One sum over another."""
        return cls(numerator_R[:, None], denominator_R[:, None])

    def plus(self, other: "Terms") -> "Terms":
        """The sum of two estimates over the same rows."""
        return Terms(
            np.hstack([self.numerator_RJ, other.numerator_RJ]),
            np.hstack([self.denominator_RJ, other.denominator_RJ]),
        )

    @property
    def value(self) -> float:
        """The estimate."""
        return float(ratios(self.numerator_RJ.sum(axis=0), self.denominator_RJ.sum(axis=0)).sum())

    def by_cluster(self, cluster_R: Int64) -> "Terms":
        """The same estimate from one row per cluster, which are numbered from 0: (C, J)."""
        num = int(cluster_R.max(initial=-1)) + 1
        return Terms(_sums(self.numerator_RJ, cluster_R, num), _sums(self.denominator_RJ, cluster_R, num))


def ratios(numerator: Float64, denominator: Float64) -> Float64:
    """One over the other, element by element; 0 where the denominator is 0."""
    found: Float64 = np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)
    return found


def _sums(value_RJ: Float64, cluster_R: Int64, num: int) -> Float64:
    return np.stack([np.bincount(cluster_R, column, num) for column in value_RJ.T], axis=1)
