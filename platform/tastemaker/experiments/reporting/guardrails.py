"""Whether a variant has worsened a metric that must not become worse by more than a margin.

The limit is a multiple f of the control's value: 1 - margin where higher is better, 1 + margin where lower is. What is
estimated is the distance r - f * r_control, whose interval holds at every look, so that looking often does no harm. All guardrails and variants of an
experiment share its level: the chance that any harmless one is stopped, at any time, is at most 5% [Bonferroni].
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final, Literal

import numpy as np

from tastemaker.errors import ExperimentError
from tastemaker.experiments.definition import Guardrail
from tastemaker.experiments.metrics import Better, unit_metric_of
from tastemaker.experiments.reporting.comparisons import Interval
from tastemaker.experiments.reporting.observations import Observations
from tastemaker.experiments.reporting.weighing import EFFECT, Weighing, influences, newest
from tastemaker.experiments.statistics.influence import Difference, Influence, Lift
from tastemaker.experiments.statistics.sequential import Boundary, Looks
from tastemaker.strict import Strict

LEVEL: Final = 0.95
MIN_UNITS: Final = 100
"""Of each variant before a guardrail says anything: intervals are those of many units."""

State = Literal["kept", "open", "breached"]


class GuardrailReport(Strict):
    """One guardrail for one variant. `slack` is how far, in the metric's unit, the variant lies on the right side of the limit."""

    metric: str
    variant: str
    better: Better
    margin: float
    state: State
    value: float | None
    control: float | None
    slack: Interval
    reason: str


def check_guardrails(seen: Observations, weighing: Weighing) -> tuple[GuardrailReport, ...]:
    """Every guardrail of the experiment for every variant but the control.

    Raises:
        ConfigError: A guardrail names an unknown metric, or one that has no values of units.
    """
    guardrails = weighing.experiment.guardrails
    num_checks = max(1, len(guardrails) * (weighing.num_variants - 1))
    level = 1 - (1 - LEVEL) / num_checks
    return tuple(report for one in guardrails for report in _check(seen, one, weighing, level))


def breached(reports: Sequence[GuardrailReport]) -> list[GuardrailReport]:
    """Those that say stop."""
    return [report for report in reports if report.state == "breached"]


def _check(
    seen: Observations, guardrail: Guardrail, weighing: Weighing, level: float
) -> list[GuardrailReport]:
    metric = unit_metric_of(guardrail.metric, "guardrail")
    better = guardrail.direction or metric.better
    factor = 1 - guardrail.margin if better == "higher" else 1 + guardrail.margin
    found, others = weighing.measured(seen, metric), range(1, weighing.num_variants)
    last = newest(seen, found, weighing)
    if last is None:
        slacks = [Interval() for _ in others]
    else:
        slacks = _slacks(influences(seen, found, weighing), last, better, factor, level)
    return [
        _judge(last, slack, guardrail, better, factor, v, weighing)
        for v, slack in zip(others, slacks, strict=True)
    ]


def _judge(
    last: Influence | None,
    slack: Interval,
    guardrail: Guardrail,
    better: Better,
    factor: float,
    variant: int,
    weighing: Weighing,
) -> GuardrailReport:
    name = weighing.experiment.variants[variant].name
    value, control, units = _values(last, variant)
    state: State = "open"
    if units >= MIN_UNITS:
        if slack.high is not None and slack.high < 0:
            state = "breached"
        elif (slack.low is not None and slack.low > 0) or (better == "lower" and value == control == 0):
            state = "kept"
    return GuardrailReport(
        metric=guardrail.metric,
        variant=name,
        better=better,
        margin=guardrail.margin,
        state=state,
        value=value,
        control=control,
        slack=slack,
        reason=_reason(guardrail, better, factor, name, state, value, control, units),
    )


def _values(last: Influence | None, variant: int) -> tuple[float | None, float | None, int]:
    """A variant's value and the control's, and how many units the one with fewer has."""
    if last is None:
        return None, None, 0
    pair = [float(last.value_V[v]) for v in (variant, 0)]
    value, control = (one if np.isfinite(one) else None for one in pair)
    return value, control, int(last.units_V[[0, variant]].min())


def _slacks(
    looks: Iterable[tuple[int, Influence]], last: Influence, better: Better, factor: float, level: float
) -> list[Interval]:
    """Of each variant but the control, with an interval that holds at all looks."""
    watching: dict[int, Looks] = {}
    for variant in range(1, len(last.value_V)):
        scale = abs(float(np.nan_to_num(last.value_V[[0, variant]]).max()))
        if scale > 0:
            boundary = Boundary.for_effect(EFFECT * scale, level=level)
            watching[variant] = Looks(boundary, 0, variant, relative=False)
    found: dict[int, Lift | Difference] = {}
    for _, influence in looks:
        limited = _against_limit(influence, factor)
        for variant, one in watching.items():
            with suppress(ExperimentError):  # too few units so far
                found[variant] = one.look(limited)
    return [_slack(found.get(variant), better) for variant in range(1, len(last.value_V))]


def _slack(found: Lift | Difference | None, better: Better) -> Interval:
    if found is None:
        return Interval()
    if found.standard_error == 0:  # all units of each variant are alike: no luck is left to bound
        found = replace(found, low=found.value, high=found.value)
    if not np.isfinite(found.high - found.low):
        return Interval()
    if better == "higher":
        return Interval(value=found.value, low=found.low, high=found.high)
    return Interval(value=-found.value, low=-found.high, high=-found.low)


def _against_limit(influence: Influence, factor: float) -> Influence:
    """With the limit in place of the control's value."""
    factor_V = np.ones(len(influence.value_V))
    factor_V[0] = factor
    return replace(
        influence, value_V=influence.value_V * factor_V, influence_UV=influence.influence_UV * factor_V
    )


def _reason(
    guardrail: Guardrail,
    better: Better,
    factor: float,
    variant: str,
    state: State,
    value: float | None,
    control: float | None,
    units: int,
) -> str:
    if value is None or control is None:
        return f"{guardrail.metric} of {variant} has no value yet"
    bound = "at least" if better == "higher" else "at most"
    told = (
        f"{guardrail.metric} of {variant} is {value:.4g}, must be {bound} {factor * control:.4g} "
        f"({factor:.4g} times the control's {control:.4g})"
    )
    if state == "open":
        few = f"; {units} units, at least {MIN_UNITS} are needed" if units < MIN_UNITS else ""
        return f"{told}: not certain yet{few}"
    return told
