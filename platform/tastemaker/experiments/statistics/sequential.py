"""Intervals that hold at every look: an experiment may be watched, and stopped when it has said enough.

Shape letters: R requests, U units, V variants.

A mixture of likelihood ratios over N(0, scale^2) effects, E = (1 + r)^-1/2 exp(z^2 r / 2 / (1 + r)) with z the estimate over
its standard error and r = scale^2 / error^2, exceeds 1 / alpha at any time of a Brownian motion with probability alpha
[Robbins 1970]. That is the mSPRT [Johari, Koomen, Pekelis & Walsh 2022], and solved for the estimate it is the
asymptotic confidence sequence [Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas 2024, Thm. 2.2]:

    margin = error * sqrt((1 + 1/r) log((1 + r) / alpha^2))

**Units that return.** Where each unit brings one value, the estimate at information 1 / error^2 is a Brownian motion in that
time. Where units come again it need not be: heavy users emerge, so that later totals weigh units otherwise than earlier ones
did, fresh luck comes in while the error hardly shrinks, and looks depend on each other less than information says. What the
boundary needs is a clock under which looks depend on each other at least as much as a Brownian motion's: between two looks
with correlation c of the estimates, which the units' influences tell, `Looks` lets r grow by 1 / c^2. A Brownian motion has
c^2 = r_before / r_after, so that nothing changes there. Where far looks depend on each other at least as much as the steps
between them say (a visitor's ways persist), Slepian's inequality bounds the chance of crossing by the Brownian motion's.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import special

from tastemaker.errors import ExperimentError
from tastemaker.experiments.statistics.influence import (
    Difference,
    Influence,
    Lift,
    critical_value,
    difference_influence,
    lift_of,
    log_lift,
)
from tastemaker.experiments.statistics.ratios import Units, UnitTotals, unit_codes
from tastemaker.types import Float64, Int64

_LEAST_CORRELATION = 0.1


@dataclass(frozen=True, slots=True)
class Boundary:
    """How far an estimate may stray by luck at any look.

    Args:
        alpha: Chance of ever excluding the truth.
        scale: Standard deviation of the mixture, in the estimate's own units (log ratio for lifts). It decides when the
            boundary is tight, never whether it is valid; choose it before the data.
    """

    alpha: float
    scale: float

    @classmethod
    def at_error(cls, standard_error: float, level: float = 0.95) -> "Boundary":
        """The boundary that is tightest where the estimate's standard error is `standard_error`.

        (1 + 1/r) log((1 + r) / alpha^2) is least where r = log((1 + r) / alpha^2), so at r = -W(-alpha^2 / e) - 1 with W the
        lower branch of Lambert's function [Waudby-Smith et al. 2024, App. B], and is 1 + r there.

        >>> boundary = Boundary.at_error(0.01)
        >>> round(boundary.scale, 4), round(boundary.margin(0.01) / 0.01, 3)  # r = 8.21: sqrt(9.21) standard errors
        (0.0287, 3.035)

        Raises:
            ExperimentError: A level outside 0 to 1, or an error that is not above 0.
        """
        if not 0 < level < 1:
            raise ExperimentError("level of an interval", value=level, limit="between 0 and 1")
        if not 0 < standard_error < np.inf:
            raise ExperimentError("standard error to plan for", value=standard_error, limit="above 0")
        return cls(1 - level, standard_error * float(np.sqrt(tightest(1 - level))))

    @classmethod
    def for_effect(cls, effect: float, level: float = 0.95, power: float = 0.8) -> "Boundary":
        """The boundary that is tightest where a fixed test would find `effect` with this power.

        There the standard error is |effect| / (z_level + z_power), 2.8 for the usual 95% and 80%.

        Args:
            effect: In the estimate's own units: for a lift of 5% log(1.05).
            level: Of the intervals.
            power: Of the fixed test.

        Raises:
            ExperimentError: As for `at_error`, and for an effect of 0.
        """
        return cls.at_error(abs(effect) / (critical_value(level) + float(special.ndtri(power))), level)

    def margin(self, error: float, clock: float | None = None) -> float:
        """Half the width of the interval around an estimate with this standard error; endless without any.

        Args:
            error: Standard error of the estimate.
            clock: r; unset, that of a Brownian motion, scale^2 / error^2.
        """
        r = self.clock(error) if clock is None else clock
        if r == 0 or error == 0:
            return float("inf")
        return error * float(np.sqrt((1 + 1 / r) * (np.log1p(r) - 2 * np.log(self.alpha))))

    def p_value(self, value: float, error: float, clock: float | None = None) -> float:
        """The least alpha whose interval excludes 0: 1 / E, at most 1; valid at any look.

        By hand: r = 3 and z = 4: E = exp(16/2 * 3/4) / 2 = e^6 / 2.

        >>> round(float(Boundary(0.05, np.sqrt(3)).p_value(4.0, 1.0) * np.exp(6)), 6)
        2.0
        """
        r = self.clock(error) if clock is None else clock
        if error == 0 or not np.isfinite(error):
            return 1.0
        log_e = (value / error) ** 2 * r / (1 + r) / 2 - np.log1p(r) / 2
        return float(np.exp(-max(log_e, 0.0)))

    def clock(self, error: float) -> float:
        """What r is for a Brownian motion: 0 where there is no error to speak of yet."""
        return (self.scale / error) ** 2 if 0 < error < np.inf else 0.0


@dataclass(slots=True)
class Looks:
    """One comparison, looked at again and again; feed it every look in the order of time.

    The units' rows stay the same from look to look (`cumulative_totals`). Estimates are lifts on the log scale, or plain
    differences where `relative` is off. A look before both variants have a value, or without any error, gives an endless
    interval.
    """

    boundary: Boundary
    control: int
    treatment: int
    relative: bool = True
    clock: float = field(default=0.0, init=False)
    _before: Float64 | None = field(default=None, init=False)

    def look(self, influence: Influence) -> Lift | Difference:
        """The comparison now, with an interval and a p-value that hold at all looks together.

        Raises:
            ExperimentError: Fewer than two units met a variant, or, for lifts, its value is not above 0.
        """
        if self.relative:
            value, error, influence_U = log_lift(influence, self.control, self.treatment)
        else:
            value, influence_U = difference_influence(influence, self.control, self.treatment)
            error = float(np.linalg.norm(influence_U))
        self._advance(influence_U)
        margin = self.boundary.margin(error, self.clock)
        p_value = self.boundary.p_value(value, error, self.clock)
        if self.relative:
            return lift_of(value, margin, error, p_value)
        return Difference(value, value - margin, value + margin, error, p_value)

    def _advance(self, influence_U: Float64) -> None:
        error = float(np.linalg.norm(influence_U))
        if error == 0:
            return
        if self._before is None:
            self.clock = self.boundary.clock(error)
        else:
            correlation = float(self._before @ influence_U) / (float(np.linalg.norm(self._before)) * error)
            self.clock /= min(1.0, max(correlation, _LEAST_CORRELATION)) ** 2
        self._before = influence_U


def always_valid_lift(influence: Influence, control: int, treatment: int, boundary: Boundary) -> Lift:
    """One look at a lift, of units that bring one value each; where units return, `Looks` is exact.

    Raises:
        ExperimentError: Fewer than two units met a variant, or its value is not above 0.
    """
    found = Looks(boundary, control, treatment).look(influence)
    assert isinstance(found, Lift)
    return found


def always_valid_difference(
    influence: Influence, control: int, treatment: int, boundary: Boundary
) -> Difference:
    """One look at a difference, as `always_valid_lift` is at a lift.

    Raises:
        ExperimentError: Fewer than two units met a variant.
    """
    found = Looks(boundary, control, treatment, relative=False).look(influence)
    assert isinstance(found, Difference)
    return found


def cumulative_totals(
    unit_R: Units,
    variant_R: Int64,
    numerator_R: Float64,
    denominator_R: Float64,
    num_variants: int,
    time_R: Int64 | Float64,
    ends: Sequence[float],
    *,
    propensity_R: Float64 | None = None,
) -> Iterator[UnitTotals]:
    """Totals of what came before each of `ends`, for `Looks`; every unit has its row from the first look on.

    Args:
        unit_R: Ids, or numbers of units.
        variant_R: Number of the variant, from 0.
        numerator_R: Such as clicks.
        denominator_R: Such as ones.
        num_variants: V.
        time_R: When each request came, on the clock of `ends`.
        ends: Ascending.
        propensity_R: As for `unit_totals`.

    >>> arguments = ["u", "w", "u"], np.array([0, 1, 0]), np.ones(3), np.ones(3), 2, np.array([1, 2, 3])
    >>> [totals.numerator_UV.tolist() for totals in cumulative_totals(*arguments, ends=[2, 4])]
    [[[1.0, 0.0], [0.0, 0.0]], [[2.0, 0.0], [0.0, 1.0]]]
    """
    num_units, code_R = unit_codes(unit_R)
    order_R = np.argsort(time_R, kind="stable")
    stops = np.searchsorted(np.asarray(time_R)[order_R], np.asarray(ends), side="left")
    weight_R = np.ones(len(order_R)) if propensity_R is None else 1 / propensity_R
    shape = (num_units, num_variants)
    numerator_UV, denominator_UV = np.zeros(shape), np.zeros(shape)
    start = 0
    for stop in stops:
        rows = order_R[start:stop]
        cell = (code_R[rows], variant_R[rows])
        np.add.at(numerator_UV, cell, numerator_R[rows] * weight_R[rows])
        np.add.at(denominator_UV, cell, denominator_R[rows] * weight_R[rows])
        yield UnitTotals(numerator_UV.copy(), denominator_UV.copy())
        start = max(start, int(stop))


def tightest(alpha: float) -> float:
    """The r at which the boundary is tightest: the solution of r = log((1 + r) / alpha^2).

    >>> r = tightest(0.05)
    >>> round(r, 3), round(float(np.log((1 + r) / 0.05**2)), 3)
    (8.212, 8.212)
    """
    return float(-special.lambertw(-(alpha**2) / math.e, k=-1).real - 1)
