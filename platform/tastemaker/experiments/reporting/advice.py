"""What to do about an experiment, in words, by rules that are written down here. A person decides.

In this order: a split that is not what was asked for makes all numbers doubtful; a broken guardrail ends it; a variant that is
better for certain may go out, once guardrails with a margin are certainly kept; one that is certainly worse, or certainly
not different by what was worth finding, ends it. Certain is what the always-valid p-values say, after Holm's correction for several variants, so
that whoever follows the advice of the first day that gives one is wrong no more often than the level says.
"""

from collections.abc import Sequence
from typing import Final, Literal, get_args

import numpy as np
from scipy import special

from tastemaker.experiments.reporting.comparisons import Comparison, MetricReport
from tastemaker.experiments.reporting.guardrails import GuardrailReport, breached
from tastemaker.experiments.reporting.words import percent
from tastemaker.experiments.statistics.multiplicity import holm
from tastemaker.strict import Strict

Verdict = Literal["ship", "keep running", "stop", "look at SRM first"]
VERDICTS: Final[tuple[Verdict, ...]] = get_args(Verdict)
WEEK_MS: Final = 7 * 86_400_000
_POWER: Final = 0.8
_EFFECT: Final = 0.05
"""Relative change that the number of missing units is told for, where the experiment says none."""


class Advice(Strict):
    """What to do, with which variant, why, and what to mind. `harms` says that all variants are certainly worse than the control."""

    verdict: Verdict
    variant: str | None = None
    reason: str
    cautions: tuple[str, ...] = ()
    harms: bool = False


def advise(
    primary: MetricReport,
    guardrails: Sequence[GuardrailReport],
    *,
    srm_alarm: bool,
    split: str = "",
    level: float,
    effect: float | None,
    ran_ms: int,
    units: int,
    fading: Sequence[str] = (),
    runs: bool = True,
) -> Advice:
    """The advice.

    Args:
        primary: The primary metric.
        guardrails: All of them.
        srm_alarm: Whether units were split otherwise than asked for.
        split: How they were, in words.
        level: Of certainty.
        effect: Relative change that is worth finding; None where the experiment does not say.
        ran_ms: From the first decision to the last.
        units: That took part.
        fading: Variants whose lift fades with the days.
        runs: Whether it assigns units.
    """
    cautions = tuple(_cautions(ran_ms, fading, runs))
    if srm_alarm:
        return Advice(
            verdict="look at SRM first",
            reason=f"units came to the variants in other shares than asked for{split and f' ({split})'}, so that they may differ by "
            "more than their variants: find out which units are missing before reading anything else",
        )
    if broken := breached(guardrails):
        return Advice(verdict="stop", variant=broken[0].variant, reason=f"guardrail: {broken[0].reason}")
    certain = _certain(primary.comparisons, level)
    if wins := [one for one in certain if _is_better(primary, one)]:
        return _ship(primary, _best(primary, wins), guardrails, cautions)
    if len(certain) == len(primary.comparisons):
        names = " and ".join(one.variant for one in certain)
        verb = "is" if len(certain) == 1 else "are"
        return Advice(
            verdict="stop",
            reason=f"{names} {verb} worse than the control in {primary.name}: {_told(certain[0])}",
            harms=True,
        )
    if effect is not None and all(_within(one, effect) for one in primary.comparisons):
        return Advice(
            verdict="stop",
            reason=f"no variant changes {primary.name} by {effect:.1%} or more: {_told(primary.comparisons[0])}",
        )
    return Advice(verdict="keep running", reason=_undecided(primary, level, effect, units), cautions=cautions)


def _certain(comparisons: Sequence[Comparison], level: float) -> list[Comparison]:
    p_values = [one.always_valid_p_value for one in comparisons]
    corrected = holm([1.0 if p is None else p for p in p_values])
    return [one for one, p in zip(comparisons, corrected, strict=True) if p <= 1 - level]


def _is_better(primary: MetricReport, one: Comparison) -> bool:
    assert one.lift.value is not None
    return (one.lift.value > 0) == (primary.better == "higher")


def _best(primary: MetricReport, wins: Sequence[Comparison]) -> Comparison:
    def gain(one: Comparison) -> float:
        assert one.lift.value is not None
        return one.lift.value if primary.better == "higher" else -one.lift.value

    return max(wins, key=gain)


def _ship(
    primary: MetricReport, best: Comparison, guardrails: Sequence[GuardrailReport], cautions: Sequence[str]
) -> Advice:
    won = f"{best.variant} is better than the control in {primary.name}: {_told(best)}"
    mine = [one for one in guardrails if one.variant == best.variant and one.state == "open"]
    if waiting := [one for one in mine if one.margin > 0]:
        return Advice(
            verdict="keep running",
            variant=best.variant,
            reason=f"{won}; but a guardrail is not certain yet: {waiting[0].reason}",
            cautions=tuple(cautions),
        )
    unsure = tuple(f"guardrail without a margin: {one.reason}" for one in mine)
    return Advice(verdict="ship", variant=best.variant, reason=won, cautions=(*cautions, *unsure))


def _within(one: Comparison, effect: float) -> bool:
    low, high = one.always_valid.low, one.always_valid.high
    return low is not None and high is not None and -effect < low and high < effect


def _told(one: Comparison) -> str:
    value, low, high = one.lift.value, one.always_valid.low, one.always_valid.high
    if value is None or low is None or high is None:
        return one.reason or "no lift yet"
    return f"lift {percent(value)}, always-valid interval {percent(low)} to {percent(high)}"


def _undecided(primary: MetricReport, level: float, effect: float | None, units: int) -> str:
    told = "; ".join(f"{one.variant}: {_told(one)}" for one in primary.comparisons)
    wanted = effect or _EFFECT
    missing = [_missing_units(one, level, wanted, units) for one in primary.comparisons]
    known = [number for number in missing if number is not None]
    if not known:
        return f"nothing is certain yet ({told})"
    if max(known) <= 0:
        return f"nothing is certain yet ({told}), though a lift of {wanted:.1%} would have been found by now four times out of five"
    return f"nothing is certain yet ({told}); about {max(known):,} more units would find a lift of {wanted:.1%} four times out of five"


def _missing_units(one: Comparison, level: float, effect: float, units: int) -> int | None:
    """How many more units a fixed test needs to find the effect with 80% power: variances fall as 1 / units."""
    low, high = one.lift.low, one.lift.high
    if low is None or high is None or low <= -1:
        return None
    z = float(special.ndtri((1 + level) / 2))
    error = (np.log1p(high) - np.log1p(low)) / (2 * z)
    planned = np.log1p(effect) / (z + float(special.ndtri(_POWER)))
    return int(np.ceil(units * ((error / planned) ** 2 - 1)))


def _cautions(ran_ms: int, fading: Sequence[str], runs: bool) -> list[str]:
    found = [] if runs else ["it does not run: what is missing comes only if it is started again"]
    if ran_ms < WEEK_MS:
        found.append("it ran for less than a week: days of the week may differ")
    found += [f"the lift of {name} fades with the days: it may be novelty" for name in fading]
    return found
