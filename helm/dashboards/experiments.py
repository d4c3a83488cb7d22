"""Experiments: what to do about each, and of the chosen one who was shown what, what it was worth, and whether to believe it.

One experiment is chosen at a time: lines of several would only cross one another. The table at the top has all.
"""

from typing import Final

from helm.dashboards.dashboard import Dashboard, Variable
from helm.dashboards.looks import Column, Look, band, colored, dashed, thresholds
from helm.dashboards.panels import Panel, Row
from helm.dashboards.queries import Query, grown, largest, of, total

_EXPERIMENT: Final = 'experiment=~"$experiment"'
_SERVED: Final = "tastemaker_experiment_served_total"
_LIFT: Final = "tastemaker_experiment_lift_ratio"
_ADVICE: Final = "tastemaker_experiment_advice"
_SRM: Final = "tastemaker_experiment_srm_ratio"
_GUARDRAILS: Final = "tastemaker_experiment_guardrails"
_BOUNDS: Final = ("value", "low", "high")
_SPLIT_STEPS: Final = ((None, "red"), (0.001, "green"))
_SOME_IS_BAD: Final = ((None, "green"), (1, "red"))
_CERTAIN_GAIN: Final = ((None, "text"), (0, "green"))
_CERTAIN_LOSS: Final = ((None, "red"), (0, "text"))
_VERDICTS: Final = {
    "ship": ("ship", "green"), "keep running": ("keep running", "blue"), "stop": ("stop", "orange"),
    "look at SRM first": ("look at SRM first", "red"),
}  # fmt: skip
_CHOOSE: Final = (
    "/d/tastemaker-experiments?var-experiment=${__value.raw}"
    "&${datasource:queryparam}&${namespace:queryparam}&${catalogue:queryparam}&${__url_time_range}"
)


def _guardrails(outcome: str) -> Query:
    return Query(largest("experiment", _GUARDRAILS, f'outcome="{outcome}"'))


_ALL = Panel(
    "All experiments",
    [
        Query(grown("experiment", _SERVED)),
        Query(f"max by (experiment, verdict) ({of(_ADVICE)}) == 1"),
        Query(largest("experiment", _SRM)),
        _guardrails("breached"),
        _guardrails("open"),
        _guardrails("kept"),
    ],
    "A click on one shows it below. The advice is the newest look's, by the written rules of `tastemaker experiment report`;"
    " a person decides. One without answers in the last hour is stopped, or nobody came.",
    kind="table",
    width=24,
    height=6,
    empty="No experiment has answered anybody yet",
    columns=(
        Column("experiment", "Experiment", link=_CHOOSE),
        Column("Value #A", "Answers in the last hour", unit="none", decimals=0),
        Column("verdict", "Advice", mappings=_VERDICTS),
        Column("Value #C", "Split as asked for (p-value)", decimals=4, steps=_SPLIT_STEPS),
        Column("Value #D", "Guardrails breached", decimals=0, steps=_SOME_IS_BAD),
        Column("Value #E", "Guardrails open", decimals=0),
        Column("Value #F", "Guardrails kept", decimals=0),
    ),
)
_VERDICT = Panel(
    "Advice",
    [Query(f"max by (verdict) ({of(_ADVICE, _EXPERIMENT)}) == 1", "{{verdict}}")],
    "The newest look's. `ship` and `stop` are said for certain only; `keep running` is normal for days.",
    kind="stat",
    width=6,
    height=5,
    names=True,
    steps=((None, "text"),),
    looks=colored({verdict: color for verdict, (_, color) in _VERDICTS.items()}),
    empty="Not looked at yet",
)
_SPLIT = Panel(
    "Split as asked for (p-value)",
    [Query(largest("experiment", _SRM, _EXPERIMENT))],
    "Valid at every look. Below 0.001 traffic was not split as it was asked for, and no other figure can be believed.",
    kind="stat", width=6, height=5, decimals=4, steps=_SPLIT_STEPS, empty="Not looked at yet",
)  # fmt: skip
_KEPT = Panel(
    "Guardrails",
    [
        Query(largest("outcome", _GUARDRAILS, _EXPERIMENT, f'outcome="{outcome}"'), "{{outcome}}")
        for outcome in ("kept", "open", "breached")
    ],
    "Guardrails times variants: kept for certain, still open, breached. One that is breached stops its experiment.",
    kind="stat", width=6, height=5, decimals=0, empty="Not looked at yet", steps=((None, "text"),),
    looks=(Look("byName", "breached", {"thresholds": thresholds(_SOME_IS_BAD)}),),
)  # fmt: skip
_LIFT_OF: Final = (_EXPERIMENT, 'variant=~"$variant"', 'metric=~"$metric"')
_LIFT_NOW = Panel(
    "Lift of $variant in $metric now",
    [
        Query(largest("variant", _LIFT, *_LIFT_OF, f'bound="{bound}"'), legend)
        for bound, legend in zip(_BOUNDS, ("lift", "from", "to"), strict=True)
    ],
    "Relative to the control, with the 95% interval that holds at every look. Certain where the interval leaves out 0.",
    unit="percentunit", kind="stat", width=6, height=5, decimals=1, steps=((None, "text"),),
    empty="Not known yet", looks=(
        Look("byName", "from", {"thresholds": thresholds(_CERTAIN_GAIN)}),
        Look("byName", "to", {"thresholds": thresholds(_CERTAIN_LOSS)}),
    ),
)  # fmt: skip
_LIFT_BY_TIME = Panel(
    "Lift of $variant over the control in $metric",
    [
        Query(largest("variant", _LIFT, *_LIFT_OF, f'bound="{bound}"'), legend)
        for bound, legend in zip(_BOUNDS, ("{{variant}}", "low", "high"), strict=True)
    ],
    "The band is the 95% interval that holds at every look. While it touches 0 nothing is certain.",
    unit="percentunit",
    width=12,
    height=9,
    steps=((None, "transparent"), (0, "text")),
    looks=band("low", "high", "blue"),
    empty="Not known yet: a metric needs its window to be over",
)
_LIFTS = Panel(
    "Lifts now",
    [Query(largest("variant, metric", _LIFT, _EXPERIMENT, f'bound="{bound}"')) for bound in _BOUNDS],
    "Of every variant over the control, in every metric that is watched. Green: better for certain; red: worse for certain.",
    unit="percentunit",
    kind="table",
    width=12,
    height=9,
    empty="Not known yet",
    columns=(
        Column("metric", "Metric"),
        Column("variant", "Variant"),
        Column("Value #A", "Lift", decimals=1, width=90),
        Column("Value #B", "From", decimals=1, width=90, steps=_CERTAIN_GAIN),
        Column("Value #C", "To", decimals=1, width=90, steps=_CERTAIN_LOSS),
    ),
)


def _figure(title: str, metric: str, text: str, empty: str) -> Panel:
    found = f'metric="{metric}"'
    queries = [
        Query(
            largest("variant", "tastemaker_experiment_metric", _EXPERIMENT, found, f'bound="{bound}"'), legend
        )
        for bound, legend in zip(_BOUNDS, ("{{variant}}", "{{variant}} low", "{{variant}} high"), strict=True)
    ]
    note = f"{text} Dashes: 95% intervals at that moment."
    return Panel(
        title,
        queries,
        note,
        unit="percentunit",
        width=6,
        lowest=0,
        looks=(dashed("B"), dashed("C")),
        empty=empty,
    )


_PREFERENCE = Panel(
    "Preference of an interleaving",
    [
        Query(
            largest("variant", "tastemaker_experiment_preference_ratio", _EXPERIMENT, f'bound="{bound}"'),
            legend,
        )
        for bound, legend in zip(_BOUNDS, ("{{variant}}", "low", "high"), strict=True)
    ],
    "Share of lists that the variant won less that of the control: above 0 it is preferred. The band is the 95% interval that"
    " holds at every look.",
    unit="percentunit",
    width=6,
    steps=((None, "transparent"), (0, "text")),
    looks=band("low", "high", "blue"),
    empty="Not an interleaving, or nothing is known yet",
)
_EFFECT = (
    _LIFT_BY_TIME,
    _LIFTS,
    _figure("Click-through rate", "clicks_per_impression", "Clicked items by seen items.", "No list was seen yet"),
    _figure(
        "Conversion", "conversion", "Share of units that bought a shown item within 7 days.",
        "No unit's 7 days are over yet",
    ),
    _figure("Rewarded requests", "rewarded_requests", "Share of lists with a click.", "No list was seen yet"),
    _PREFERENCE,
)  # fmt: skip
_VARIANT: Final = "variant"
_TRAFFIC = (
    Panel(
        "Answers by variant",
        [Query(total(_VARIANT, _SERVED, _EXPERIMENT), "{{variant}}")],
        "Answers by second that count for the experiment.",
        unit="reqps",
        stacked=True,
        lowest=0,
    ),
    Panel(
        "Share of traffic",
        [
            Query(
                f"{total(_VARIANT, _SERVED, _EXPERIMENT)}"
                f" / on () group_left () (sum ({total(_VARIANT, _SERVED, _EXPERIMENT)}) > 0)",
                "{{variant}}",
            )
        ],
        "Of requests, not of units: who comes often counts often.",
        unit="percentunit",
        lowest=0,
        highest=1,
    ),
    Panel(
        "Answers that are not counted",
        [Query(total("kind", "tastemaker_experiment_not_counted_total"), "{{kind}}")],
        "To users of the holdout and to testers, of all experiments.",
        unit="reqps",
        lowest=0,
        empty="None",
    ),
)
_NO_BANDIT: Final = "Its shares are fixed: not a bandit"
_BANDIT = (
    Panel(
        "Propensity",
        [Query(largest(_VARIANT, "tastemaker_experiment_propensity_ratio", _EXPERIMENT), "{{variant}}")],
        "Share of new units that each variant gets.",
        unit="percentunit",
        lowest=0,
        highest=1,
        empty=_NO_BANDIT,
    ),
    Panel(
        "Posterior mean",
        [Query(largest(_VARIANT, "tastemaker_experiment_posterior_ratio", _EXPERIMENT), "{{variant}}")],
        "How often a variant's decisions are rewarded, by the bandit's own counts.",
        unit="percentunit",
        lowest=0,
        empty=_NO_BANDIT,
    ),
    Panel(
        "Rewards",
        [Query(total(_VARIANT, "tastemaker_experiment_rewards_total", _EXPERIMENT), "{{variant}}")],
        "Rewards by second that were joined to their decisions.",
        unit="cps",
        lowest=0,
        empty="No reward yet",
    ),
    Panel(
        "Events that were no reward",
        [Query(total("reason", "tastemaker_experiment_rewards_ignored_total"), "{{reason}}")],
        "By reason, of all experiments. Many `unjoined`: clients do not send the request's id.",
        unit="cps",
        lowest=0,
        width=12,
        empty="None",
    ),
    Panel(
        "Decision records",
        [Query(total("outcome", "tastemaker_gateway_decisions_total"), "{{outcome}}")],
        "Of all experiments. A dropped record is a decision that no report will count.",
        unit="cps",
        lowest=0,
        width=12,
    ),
)
EXPERIMENTS: Final = Dashboard(
    "experiments",
    "Experiments",
    "Which variant is better, by how much, and whether the test can be believed.",
    (
        Row("Which one", (_ALL,)),
        Row("What to do about $experiment", (_VERDICT, _SPLIT, _KEPT, _LIFT_NOW)),
        Row("Effect", _EFFECT),
        Row("Traffic", _TRAFFIC),
        Row("Learning", _BANDIT),
    ),
    variables=(
        Variable("experiment", "Experiment", f"label_values({of(_SERVED)}, experiment)", one=True),
        Variable("variant", "Variant", f"label_values({of(_LIFT, _EXPERIMENT)}, variant)", one=True),
        Variable("metric", "Metric", f"label_values({of(_LIFT, _EXPERIMENT)}, metric)", one=True),
    ),
)
