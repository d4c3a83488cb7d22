"""What experiments are measured by: names, what is counted, of which events, how long after, and which way is better.

Not how numbers are computed of observations (`measures`), nor what they say (`statistics`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from tastemaker.errors import ConfigError
from tastemaker.types import EventKind

DAY_MS: Final = 86_400_000
PURCHASE_WINDOW_MS: Final = 7 * DAY_MS
"""How long a purchase counts for the list that showed the item."""
RETURN_AFTER_MS: Final = DAY_MS
RETURN_WINDOW_MS: Final = 7 * DAY_MS

Kind = Literal["ratio", "unit mean", "variant"]
Measure = Literal[
    "any",
    "items",
    "value",
    "mean value",
    "session",
    "return",
    "tail items",
    "shown share",
    "rungs",
    "latency",
]
Per = Literal["request", "impression", "unit", "event", "session", "catalogue"]
Better = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric: `measure` of `events`, divided by `per`.

    Kinds: a "ratio" divides two sums, a "unit mean" has 1 for each unit (under a bandit: each unit and epoch) as its
    denominator, a "variant" metric is of all that a variant did together and has no value for one unit. Measures: "any" is 1
    where there is an event at all, "items" the number of distinct items with one, "value" the sum of the events' values, "mean
    value" the same over the number of rated items. `window_ms` is how long after its decision an event counts; None is the experiment's attribution
    window. `unit` is what the number is a number of.
    """

    name: str
    text: str
    kind: Kind
    measure: Measure
    per: Per
    unit: str
    events: tuple[EventKind, ...] = ()
    window_ms: int | None = None
    better: Better = "higher"

    @property
    def reward(self) -> Literal["binary", "real"] | None:
        """What kind of reward of one decision it gives a bandit; None where it gives none.

        >>> METRICS["rewarded_requests"].reward, METRICS["revenue"].reward, METRICS["coverage"].reward
        ('binary', 'real', None)
        """
        if self.measure == "any":
            return "binary"
        return "real" if self.measure in ("items", "value") else None

    def window_of(self, attribution_window_ms: int) -> int:
        """How long after its decision an event counts, in ms, in an experiment of that attribution window."""
        return attribution_window_ms if self.window_ms is None else self.window_ms


_ALL = (
    Metric(name="clicks_per_request", text="clicked items of a list", kind="ratio", measure="items", per="request", unit="clicks / request", events=("click",)),
    Metric(name="clicks_per_impression", text="click-through rate: clicked items by seen items", kind="ratio", measure="items", per="impression", unit="clicks / impression", events=("click",)),
    Metric(name="rewarded_requests", text="share of lists with a click, which bandits learn from unless told otherwise", kind="ratio", measure="any", per="request", unit="share of requests", events=("click",)),
    Metric(name="conversion", text="share of units that bought a shown item within 7 days", kind="unit mean", measure="any", per="unit", unit="share of units", events=("purchase",), window_ms=PURCHASE_WINDOW_MS),
    Metric(name="revenue", text="value of the purchases of shown items within 7 days, by unit", kind="unit mean", measure="value", per="unit", unit="value / unit", events=("purchase",), window_ms=PURCHASE_WINDOW_MS),
    Metric(name="watch_time", text="time that shown items were watched, by unit", kind="unit mean", measure="value", per="unit", unit="s / unit", events=("watch",)),
    Metric(name="session_length", text="from a visit's first to its last sign of life; a visit ends by 30 minutes of silence", kind="ratio", measure="session", per="session", unit="s / session"),
    Metric(name="return_rate", text="share of units that came back a day to 7 days after their first list", kind="unit mean", measure="return", per="unit", unit="share of units", window_ms=RETURN_WINDOW_MS),
    Metric(name="satisfaction", text="mean of the ratings and survey scores that shown items got within 7 days", kind="ratio", measure="mean value", per="event", unit="mean rating", events=("rating",), window_ms=PURCHASE_WINDOW_MS),
    Metric(name="serendipity", text="clicked items that most people would not have been shown by popularity", kind="ratio", measure="tail items", per="request", unit="clicks / request", events=("click",)),
    Metric(name="coverage", text="share of the catalogue that was shown, at the same number of places for every variant", kind="variant", measure="shown share", per="catalogue", unit="share of items"),
    Metric(name="refusals_per_request", text="shown items that were skipped, disliked or hidden", kind="ratio", measure="items", per="request", unit="refusals / request", events=("skip", "dislike", "hide"), better="lower"),
    Metric(name="degraded_requests", text="share of answers that were given by a fallback", kind="ratio", measure="rungs", per="request", unit="share of requests", better="lower"),
    Metric(name="latency_ms", text="mean time of an answer", kind="ratio", measure="latency", per="request", unit="ms / request", better="lower"),
)  # fmt: skip
METRICS: Final[Mapping[str, Metric]] = {metric.name: metric for metric in _ALL}
"""All metrics by name."""


def metric_of(name: str, what: str = "metric") -> Metric:
    """The metric of that name; `what` is what errors call it.

    Raises:
        ConfigError: There is none.
    """
    if name not in METRICS:
        raise ConfigError(what, value=name, limit=f"one of: {', '.join(METRICS)}", mend="correct the name")
    return METRICS[name]


def unit_metric_of(name: str, what: str = "metric") -> Metric:
    """The metric of that name, of which each unit has a value.

    Raises:
        ConfigError: There is none, or it is of a variant as a whole.
    """
    metric = metric_of(name, what)
    if metric.kind == "variant":
        able = ", ".join(one.name for one in METRICS.values() if one.kind != "variant")
        raise ConfigError(
            what, value=name, limit=f"a metric that each unit has a value of: {able}", mend="choose another"
        )
    return metric
