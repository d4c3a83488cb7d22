"""What every report begins with: which experiment, and what of the log it is made of."""

from collections.abc import Sequence
from typing import Any, TypeVar

from tastemaker.experiments.definition import Experiment
from tastemaker.experiments.history import Change
from tastemaker.experiments.reporting.words import moment
from tastemaker.strict import Strict
from tastemaker.types import Int64


class Stop(Strict):
    """When an experiment was stopped, by whom and why."""

    at_ms: int
    actor: str
    reason: str


class ReportHead(Strict):
    """The experiment, the metric that it is judged by, the level of intervals, and how much was read. Times in ms."""

    experiment: str
    hypothesis: str
    origin: str
    state: str
    allocation: str
    metric: str
    level: float
    units: int
    requests: int
    open_requests: int
    unknown_events: int
    first_ms: int
    last_ms: int
    stop: Stop | None = None


R = TypeVar("R", bound=ReportHead)


def with_stop(report: R, history: Sequence[Change]) -> R:
    """The report with what its experiment's history says of the end; as it is where that is not stopped, or no history was kept."""
    stops = [change for change in history if change.action == "stop"]
    if report.state != "stopped" or not stops:
        return report
    stop = Stop(at_ms=stops[-1].at_ms, actor=stops[-1].actor, reason=stops[-1].reason)
    return report.model_copy(update={"stop": stop})


def circumstances(head: ReportHead, lists: str = "answers") -> str:
    """How it stands and what the report is made of, in a sentence; `lists` is what a request gets."""
    return (
        f"{head.state} · {head.allocation} · traffic {head.origin} · {moment(head.first_ms)} to {moment(head.last_ms)} UTC · "
        f"{head.units:,} units, {head.requests:,} {lists}; {head.open_requests:,} left out whose window is open; "
        f"{head.unknown_events:,} events that named {lists} outside of the experiment or items that they did not show"
    )


def told_stop(stop: Stop) -> str:
    """Who stopped it, when and why, in a sentence."""
    why = f": {stop.reason}" if stop.reason else ""
    return f"stopped by {stop.actor}, {moment(stop.at_ms)} UTC{why}"


def head_of(
    experiment: Experiment,
    metric: str,
    level: float,
    units: int,
    shown_ms_R: Int64,
    num_open: int,
    unknown_events: int,
) -> dict[str, Any]:
    """The fields of `ReportHead`, of requests answered at these moments (R,), one at least; in ms."""
    return {
        "experiment": experiment.name,
        "hypothesis": experiment.hypothesis,
        "origin": experiment.origin,
        "state": experiment.state,
        "allocation": experiment.allocation.kind,
        "metric": metric,
        "level": level,
        "units": units,
        "requests": len(shown_ms_R),
        "open_requests": num_open,
        "unknown_events": unknown_events,
        "first_ms": int(shown_ms_R.min()),
        "last_ms": int(shown_ms_R.max()),
    }
