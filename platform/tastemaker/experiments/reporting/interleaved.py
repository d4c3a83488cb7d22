"""An interleaving's outcome as numbers to print, plot and keep as JSON: which of the two variants people prefer, and for certain or not."""

import time
from typing import Final

import numpy as np
from scipy import special

from tastemaker.experiments.definition import Experiment
from tastemaker.experiments.metrics import metric_of
from tastemaker.experiments.reporting.advice import WEEK_MS, Advice
from tastemaker.experiments.reporting.comparisons import Interval
from tastemaker.experiments.reporting.duels import Duels, read_duels
from tastemaker.experiments.reporting.head import ReportHead, head_of
from tastemaker.experiments.reporting.weighing import NUM_LOOKS
from tastemaker.experiments.starting import check_credit
from tastemaker.experiments.statistics.influence import critical_value
from tastemaker.experiments.statistics.preference import PLANNED_EFFECT, Verdict, verdicts
from tastemaker.home import Home
from tastemaker.strict import Strict

_POWER: Final = 0.8


class TeamReport(Strict):
    """One variant: places of lists that were its picks, what they earned in the metric, and lists in which they earned more."""

    name: str
    alias: str
    picks: int
    earned: float
    wins: int


class PreferenceLook(Strict):
    """The preference by all lists before `end_ms`. `fixed` would hold if this look were the only one."""

    end_ms: int
    units: int
    fixed: Interval
    always_valid: Interval
    always_valid_p_value: float


class InterleavingReport(ReportHead):
    """All of it. The first team is the control's.

    `preference` is the share of lists that the second team won less that of the first, from -1 to 1; a list whose teams earned the same, mostly
    nothing, is a tie and counts 0. Intervals are at `level`, clustered by unit.
    """

    teams: tuple[TeamReport, ...]
    ties: int
    preference: Interval
    always_valid: Interval
    p_value: float
    always_valid_p_value: float
    looks: tuple[PreferenceLook, ...]
    advice: Advice


def build_interleaving_report(
    home: Home,
    catalogue: str,
    experiment: Experiment,
    metric: str | None = None,
    *,
    level: float = 0.95,
    now_ms: int | None = None,
) -> InterleavingReport:
    """The outcome of an interleaving, from the Parquet days.

    Args:
        home: Holds the days.
        catalogue: The experiment's.
        experiment: As it ran. Its `minimum_detectable_effect` is the preference that is worth finding.
        metric: What a list is won by, one of those that bandits can learn from; unset is the experiment's own.
        level: Of the intervals.
        now_ms: Lists whose window is open then are left out and counted; unset is now.

    Raises:
        NothingYetError: Fewer than two units.
        ConfigError: A metric that is unknown or not of single items.
        DataError: A day cannot be read.
    """
    wanted = metric_of(metric or experiment.metric)
    check_credit(wanted.name)
    now_ms = round(time.time() * 1000) if now_ms is None else now_ms
    duels = read_duels(home, catalogue, experiment, wanted, now_ms)
    effect = experiment.minimum_detectable_effect or PLANNED_EFFECT
    looks = _looks(duels, level, effect)
    last = looks[-1][1]
    head = head_of(
        experiment, wanted.name, level, last.num_units, duels.shown_ms_R, duels.num_open, duels.unknown_events
    )
    ran_ms = head["last_ms"] - head["first_ms"]
    return InterleavingReport(
        **head,
        teams=tuple(
            TeamReport(
                name=variant.name,
                alias=variant.alias,
                picks=int(duels.picks_RT[:, team].sum()),
                earned=float(duels.earned_RT[:, team].sum()),
                wins=last.wins[team],
            )
            for team, variant in enumerate(experiment.variants)
        ),
        ties=last.ties,
        preference=Interval(value=last.preference, low=last.low, high=last.high),
        always_valid=_valid(last),
        p_value=last.p_value,
        always_valid_p_value=last.always_valid_p_value,
        looks=tuple(_look(end_ms, one) for end_ms, one in looks),
        advice=advise_on(last, experiment, level, effect, ran_ms),
    )


def advise_on(last: Verdict, experiment: Experiment, level: float, effect: float, ran_ms: int) -> Advice:
    """What to do, by the interval that holds at every look.

    Args:
        last: The newest look.
        experiment: As it ran.
        level: Of certainty.
        effect: Preference that is worth finding.
        ran_ms: From the first list to the last.
    """
    control, other = experiment.variant_names
    cautions = ["it says which is preferred, not how far a metric moves: a split tells that"]
    if ran_ms < WEEK_MS:
        cautions.append("it ran for less than a week: days of the week may differ")
    if last.preferred == 1:
        reason = f"people prefer {other}: {_told(last, 1)}"
        return Advice(verdict="ship", variant=other, reason=reason, cautions=tuple(cautions))
    if last.preferred == 0:
        return Advice(verdict="stop", reason=f"people prefer the control, {control}: {_told(last, 0)}")
    if -effect < last.valid_low and last.valid_high < effect:
        reason = f"neither is preferred by {effect:g} or more: {_bounds(last)}"
        return Advice(verdict="stop", reason=reason)
    return Advice(
        verdict="keep running",
        reason=f"nothing is certain yet ({_bounds(last)}){_missing(last, level, effect)}",
        cautions=tuple(cautions) if experiment.state == "running" else (*cautions, "it does not run"),
    )


def _looks(duels: Duels, level: float, effect: float) -> list[tuple[int, Verdict]]:
    """After equal parts of the lists."""
    parts = np.linspace(0, 1, NUM_LOOKS + 1)[1:]
    ends = np.unique(np.quantile(duels.shown_ms_R, parts).astype(np.int64) + 1).tolist()
    found = verdicts(duels.unit_R, duels.scores(), duels.shown_ms_R, ends, level, effect)
    return list(zip(ends[len(ends) - len(found) :], found, strict=True))


def _look(end_ms: int, one: Verdict) -> PreferenceLook:
    return PreferenceLook(
        end_ms=end_ms,
        units=one.num_units,
        fixed=Interval(value=one.preference, low=one.low, high=one.high),
        always_valid=_valid(one),
        always_valid_p_value=one.always_valid_p_value,
    )


def _valid(one: Verdict) -> Interval:
    return Interval(value=one.preference, low=one.valid_low, high=one.valid_high)


def _told(last: Verdict, team: int) -> str:
    decided = sum(last.wins)
    return f"it won {last.wins[team]:,} of {decided:,} decided lists ({last.wins[team] / decided:.0%}); {_bounds(last)}"


def _bounds(last: Verdict) -> str:
    return f"preference {last.preference:+.3f}, always-valid interval {last.valid_low:+.3f} to {last.valid_high:+.3f}"


def _missing(last: Verdict, level: float, effect: float) -> str:
    """How many more units a fixed test needs to find the effect with 80% power: variances fall as 1 / units."""
    error = last.standard_error
    if error == 0:
        return "; all units say the same so far, which is not enough to say how sure that is"
    planned = effect / (critical_value(level) + float(special.ndtri(_POWER)))
    units = int(np.ceil(last.num_units * ((error / planned) ** 2 - 1)))
    if units <= 0:
        return f", though a preference of {effect:g} would have been found by now four times out of five"
    return f"; about {units:,} more units would find a preference of {effect:g} four times out of five"
