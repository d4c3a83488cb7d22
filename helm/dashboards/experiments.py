"""Experiments: who was shown what, what it was worth, and whether the test can be believed."""

from typing import Final

from helm.dashboards.dashboard import Dashboard
from helm.dashboards.panels import Panel, Query, Row, largest, of, total

CHOSEN: Final = ('experiment=~"$experiment"', 'variant=~"$variant"')
EXPERIMENT: Final = CHOSEN[0]
_ARM: Final = "experiment, variant"
_ARM_NAMES: Final = "{{experiment}} {{variant}}"


def _with_bounds(metric: str, by: str, names: str, *matchers: str) -> list[Query]:
    """A value and its interval, as three series."""
    return [
        Query(largest(by, metric, *matchers, f'bound="{bound}"'), f"{names} {bound}")
        for bound in ("value", "low", "high")
    ]


def _figure(title: str, metric: str, text: str, unit: str = "percentunit") -> Panel:
    queries = _with_bounds("tastemaker_experiment_metric", _ARM, _ARM_NAMES, *CHOSEN, f'metric="{metric}"')
    return Panel(title, queries, text, unit=unit, lowest=0)


_VERDICTS = Panel(
    "What to do",
    [
        Query(
            f"max by (experiment, verdict) ({of('tastemaker_experiment_advice', EXPERIMENT)}) == 1",
            "{{experiment}}: {{verdict}}",
        )
    ],
    "The newest look's advice, by the written rules of `tastemaker experiment report`. A person decides.",
    kind="table",
    width=9,
    height=6,
)
_SRM = Panel(
    "Split as asked for (p)",
    [Query(largest("experiment", "tastemaker_experiment_srm_ratio", EXPERIMENT), "{{experiment}}")],
    "P-value, valid at every look, of traffic being split as it was asked for. Below 0.001 no other figure can be believed.",
    kind="bargauge", width=7, height=6, lowest=0, highest=1, decimals=4,
    steps=((None, "red"), (0.001, "green")),
)  # fmt: skip
_GUARDRAILS = Panel(
    "Guardrails",
    [
        Query(
            largest("experiment, outcome", "tastemaker_experiment_guardrails", EXPERIMENT),
            "{{experiment}} {{outcome}}",
        )
    ],
    "Guardrails times variants: kept for certain, open, breached. One that is breached stops its experiment.",
    kind="bargauge", width=8, height=6, lowest=0, decimals=0,
)  # fmt: skip
_ROWS = (
    Row("The test", (_VERDICTS, _SRM, _GUARDRAILS)),
    Row(
        "Effect",
        (
            Panel(
                "Lift over the control",
                _with_bounds(
                    "tastemaker_experiment_lift_ratio",
                    "experiment, variant, metric",
                    "{{experiment}} {{variant}} {{metric}}",
                    *CHOSEN,
                ),
                "Relative to the control, with the 95% interval that holds at every look. An interval without 0 is an effect.",
                unit="percentunit",
                width=12,
                height=9,
                steps=((None, "transparent"), (0, "text")),
            ),
            Panel(
                "Lift now",
                [
                    Query(
                        largest(
                            "experiment, variant, metric, bound", "tastemaker_experiment_lift_ratio", *CHOSEN
                        )
                    )
                ],
                "The same as figures: value, low, high.",
                unit="percentunit",
                kind="table",
                width=12,
                height=9,
            ),
            _figure(
                "Click-through rate",
                "clicks_per_impression",
                "Clicked items by seen items, with 95% intervals.",
            ),
            _figure("Conversion", "conversion", "Share of units that bought a shown item within 7 days."),
            _figure("Rewarded requests", "rewarded_requests", "Share of lists with a click."),
        ),
    ),
    Row(
        "Traffic",
        (
            Panel(
                "Answers by variant",
                [Query(total(_ARM, "tastemaker_experiment_served_total", *CHOSEN), _ARM_NAMES)],
                "Answers by second that count for an experiment.",
                unit="reqps",
                stacked=True,
                lowest=0,
            ),
            Panel(
                "Share of traffic",
                [
                    Query(
                        f"{total(_ARM, 'tastemaker_experiment_served_total', *CHOSEN)}"
                        f" / on (experiment) group_left () {total('experiment', 'tastemaker_experiment_served_total', EXPERIMENT)}",
                        _ARM_NAMES,
                    )
                ],
                "Of requests, not of units: who comes often counts often.",
                unit="percentunit",
                lowest=0,
                highest=1,
            ),
            Panel(
                "Not counted",
                [Query(total("kind", "tastemaker_experiment_not_counted_total"), "{{kind}}")],
                "Answers to users of the holdout and to testers.",
                unit="reqps",
                lowest=0,
            ),
        ),
    ),
    Row(
        "Bandits",
        (
            Panel(
                "Propensity",
                [Query(largest(_ARM, "tastemaker_experiment_propensity_ratio", *CHOSEN), _ARM_NAMES)],
                "Share of new units that a variant of a bandit gets.",
                unit="percentunit",
                lowest=0,
                highest=1,
            ),
            Panel(
                "Posterior mean",
                [Query(largest(_ARM, "tastemaker_experiment_posterior_ratio", *CHOSEN), _ARM_NAMES)],
                "How often a variant's decisions are rewarded, by the bandit's own counts.",
                unit="percentunit",
                lowest=0,
            ),
            Panel(
                "Rewards",
                [Query(total(_ARM, "tastemaker_experiment_rewards_total", *CHOSEN), _ARM_NAMES)],
                "Rewards by second that were joined to their decisions.",
                lowest=0,
            ),
            Panel(
                "Events that were no reward",
                [Query(total("reason", "tastemaker_experiment_rewards_ignored_total"), "{{reason}}")],
                "By reason. Many `unjoined`: clients do not send the request's id.",
                lowest=0,
                width=12,
            ),
            Panel(
                "Decision records",
                [Query(total("outcome", "tastemaker_gateway_decisions_total"), "{{outcome}}")],
                "A dropped record is a decision that no report will count.",
                lowest=0,
                width=12,
            ),
        ),
    ),
)
EXPERIMENTS: Final = Dashboard(
    "experiments",
    "Experiments",
    "Which variant is better, by how much, and whether the test can be believed.",
    _ROWS,
    by_experiment=True,
)
