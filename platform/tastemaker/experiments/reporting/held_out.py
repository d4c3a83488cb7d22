"""All experiments together: users outside of the holdout against those in it, on all metrics, by the same statistics.

Who is in the holdout is told by its hash, whatever a request got: an answer that was given while experiments could not be read counts as its
user's all the same. What was promoted meanwhile both have; the difference is what runs as experiments.
"""

import time
from typing import Final

from tastemaker.errors import ExperimentError
from tastemaker.experiments.definition import Course, Experiment, Fixed, Variant
from tastemaker.experiments.holdout import Holdout
from tastemaker.experiments.reporting.advice import Advice
from tastemaker.experiments.reporting.days import of_everyone
from tastemaker.experiments.reporting.report import ExperimentReport, build_report
from tastemaker.home import Home
from tastemaker.registry.live import CHAMPION
from tastemaker.types import Origin

HELD_OUT, OUTSIDE = "holdout", "everyone-else"
DEFAULT_METRIC: Final = "clicks_per_request"


def build_holdout_report(
    home: Home,
    catalogue: str,
    holdout: Holdout,
    since_ms: int,
    metric: str = DEFAULT_METRIC,
    *,
    origin: Origin = "live",
    level: float = 0.95,
    now_ms: int | None = None,
) -> ExperimentReport:
    """What all experiments together do, from the Parquet days. The holdout stands as the control.

    Args:
        home: Holds the days.
        catalogue: Whose.
        holdout: As it is.
        since_ms: Since when it is so: what was before is not looked at.
        metric: One of `METRICS`, to be judged by.
        origin: Of the traffic.
        level: Of the intervals.
        now_ms: Answers whose window is open then are left out and counted; unset is now.

    Raises:
        ConfigError: An unknown metric.
        ExperimentError: Nobody is held out, or no answer yet.
        DataError: A day cannot be read.
    """
    if holdout.share == 0:
        raise ExperimentError(
            "share of the holdout",
            value=0,
            limit="above 0",
            mend="set it by `tastemaker experiment holdout --share`",
        )
    shares = {HELD_OUT: holdout.share, OUTSIDE: 1 - holdout.share}
    wanted = of_everyone(lambda user: HELD_OUT if holdout.holds(user) else OUTSIDE, shares, origin, since_ms)
    now_ms = round(time.time() * 1000) if now_ms is None else now_ms
    together = _as_experiment(holdout, since_ms, origin)
    report = build_report(home, catalogue, together, metric, level=level, now_ms=now_ms, wanted=wanted)
    return report.model_copy(update={"advice": _in_words(report)})


def _as_experiment(holdout: Holdout, since_ms: int, origin: Origin) -> Experiment:
    return Experiment(
        name=HELD_OUT,
        hypothesis="all experiments together do users good",
        salt=holdout.salt,
        origin=origin,
        variants=(Variant(name=HELD_OUT, alias=CHAMPION), Variant(name=OUTSIDE, alias=CHAMPION)),
        allocation=Fixed(weights=(holdout.share, 1 - holdout.share)),
        course=Course(started_ms=since_ms, reassigned_ms=since_ms),
    )


def _in_words(report: ExperimentReport) -> Advice:
    """The advice of an experiment, as there is nothing to ship here."""
    advice = report.advice
    told = advice.reason.replace("the control", "the holdout")
    if advice.verdict == "ship":
        return Advice(
            verdict="keep running", reason=f"experiments together help: {told}", cautions=advice.cautions
        )
    if advice.harms:
        return Advice(verdict="stop", reason=f"experiments together harm, see which do: {told}", harms=True)
    return advice.model_copy(update={"reason": told})
