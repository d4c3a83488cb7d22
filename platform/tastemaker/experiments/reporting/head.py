"""What every report begins with: which experiment, and what of the log it is made of."""

from typing import Any

from tastemaker.experiments.definition import Experiment
from tastemaker.strict import Strict
from tastemaker.types import Int64


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
