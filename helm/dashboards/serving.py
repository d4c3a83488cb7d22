"""Serving: is it up, is it quick, and what did it fall back to."""

from typing import Final

from helm.dashboards.dashboard import Dashboard
from helm.dashboards.looks import OUTCOMES, Column, colored, dashed
from helm.dashboards.panels import Panel, Row
from helm.dashboards.queries import Query, largest, of, quantile, rate, total

_LATENCY: Final = "tastemaker_stage_latency_seconds"
_WORK: Final = "tastemaker_stage_work_seconds"
_REQUESTS: Final = "tastemaker_gateway_requests_total"
_NOT_OK: Final = total("outcome", _REQUESTS, 'outcome!="ok"')


def _recorded(record: str) -> str:
    """A share over the last 5 minutes, of the chart's recording rules."""
    return f'max by (catalogue) ({record}:ratio_rate5m{{namespace=~"$namespace",catalogue=~"$catalogue"}})'


def _of_stage(name: str) -> str:
    return f'stage="{name}"'


def _p99(stage: str) -> str:
    return quantile(0.99, "stage", _LATENCY, _of_stage(stage))


def _by_stage(share: float, name: str) -> Panel:
    return Panel(
        f"{name} by stage",
        [
            Query(quantile(share, "stage", _LATENCY), "{{stage}}"),
            Query(quantile(share, "stage", _WORK), "{{stage}}: its process"),
        ],
        "Seen from the gateway; `total` is the whole answer. What a stage's own process takes of it (in a spread graph) tells a slow stage from a slow"
        " way to it.",
        unit="s",
        lowest=0,
        width=12,
    )


_ALERTS = Panel(
    "Alerts",
    [
        Query(
            'max by (alertname, severity, alertstate, catalogue, runbook) (ALERTS{alertname=~"Tastemaker.*",namespace=~"$namespace"})'
        )
    ],
    "What the chart's rules say now; `pending` has not lasted long enough. The runbook is a page of docs/runbooks; a click leads there "
    "where the chart's `monitoring.runbookUrl` says where they are read.",
    kind="table",
    width=24,
    height=6,
    sorted_by="State",
    empty="No alert fires",
    columns=(
        Column("alertname", "Alert"),
        Column(
            "alertstate", "State", mappings={"firing": ("firing", "red"), "pending": ("pending", "orange")}
        ),
        Column(
            "severity",
            "Severity",
            mappings={"critical": ("critical", "red"), "warning": ("warning", "orange")},
        ),
        Column("catalogue", "Catalogue"),
        Column("runbook", "Runbook", link=""),
    ),
)
_OBJECTIVES = (
    _ALERTS,
    Panel(
        "Failed or refused, 5 minutes",
        [Query(_recorded("tastemaker:gateway_bad"), "{{catalogue}}")],
        "Of answers; the objective is at most 0.1%.",
        unit="percentunit", kind="stat", width=5, height=4, decimals=2,
        steps=((None, "green"), (0.001, "orange"), (0.0144, "red")),
    ),
    Panel(
        "Slower than 100 ms, 5 minutes",
        [Query(_recorded("tastemaker:gateway_slow"), "{{catalogue}}")],
        "Of recommendations; the objective is at most 1%.",
        unit="percentunit", kind="stat", width=5, height=4, decimals=2,
        steps=((None, "green"), (0.01, "orange"), (0.144, "red")),
    ),
    Panel(
        "Fallbacks, 5 minutes",
        [Query(_recorded("tastemaker:gateway_degraded"), "{{catalogue}}")],
        "Share of answers that a lower rung gave: people get a list, of less worth. The alert begins at 10%; `Rungs used` says which.",
        unit="percentunit", kind="stat", width=5, height=4, decimals=2,
        steps=((None, "green"), (0.02, "orange"), (0.1, "red")),
    ),
    Panel(
        "Without any item, 5 minutes",
        [Query(_recorded("tastemaker:gateway_empty"), "{{catalogue}}")],
        "Share of lists: filters that leave nothing over, or a catalogue that is empty.",
        unit="percentunit", kind="stat", width=5, height=4, decimals=2,
        steps=((None, "green"), (0.01, "red")),
    ),
    Panel(
        "Answers, 5 minutes",
        [Query(f"sum (rate({of(_REQUESTS)}[5m]))", "all")],
        "By second, of all routes.",
        unit="reqps", kind="stat", width=4, height=4, decimals=1, steps=((None, "text"),),
    ),
)  # fmt: skip
_TRAFFIC = (
    Panel(
        "Rate by route",
        [Query(total("route", _REQUESTS), "{{route}}")],
        "Answered requests by second.",
        unit="reqps",
        lowest=0,
        stacked=True,
    ),
    Panel(
        "Outcomes",
        [Query(f"{_NOT_OK} / on () group_left () sum ({rate(_REQUESTS)})", "{{outcome}}")],
        "Share of all answers that were not plainly good. `degraded` is a good answer by a fallback, `refused` a 429 under load,"
        " `error` our fault, `invalid` the client's.",
        unit="percentunit",
        lowest=0,
        stacked=True,
        looks=colored(OUTCOMES),
        empty="All answers were good",
    ),
    Panel(
        "Requests under way",
        [
            Query(f"sum by (kind) ({of('tastemaker_gateway_in_flight')})", "{{kind}}"),
            Query(f"sum ({of('tastemaker_gateway_load_limit')})", "limit of those that use stages"),
        ],
        "The queue: at the limit (dashes) new requests go to lower rungs, then are refused.",
        lowest=0,
        decimals=0,
        looks=(dashed("B", "red"),),
    ),
)
_TIME = (
    Panel(
        "p99 by stage, as a share of its budget",
        [
            Query(
                f"{quantile(0.99, 'stage', _LATENCY)} / on (stage) {largest('stage', 'tastemaker_stage_budget_seconds')}",
                "{{stage}}",
            ),
            Query(
                f"({_p99('wait')} + ignoring (stage) {_p99('retrieve')})"
                f" / ignoring (stage) {largest('stage', 'tastemaker_stage_budget_seconds', _of_stage('retrieve'))}",
                "wait + retrieve",
            ),
        ],
        "Above the line a stage takes more than it may (of `total`: than the deadline), and answers fall to a lower rung. A fused graph's `wait`"
        " for a thread uses up what retrieval may take: the sum of both p99s bounds what they take together.",
        unit="percentunit",
        lowest=0,
        width=12,
        steps=((None, "transparent"), (1, "red")),
    ),
    _by_stage(0.99, "p99"),
    _by_stage(0.95, "p95"),
    _by_stage(0.5, "p50"),
)
_FALLBACKS = (
    Panel(
        "Rungs used",
        [Query(total("rung", "tastemaker_gateway_rungs_total"), "{{rung}}")],
        "Fallbacks by second. What each means: docs/serving.md.",
        unit="cps",
        lowest=0,
        stacked=True,
        empty="No answer was a fallback",
    ),
    Panel(
        "Shed by load",
        [Query(total("priority, rung", "tastemaker_gateway_shed_total"), "{{priority}} {{rung}}")],
        "Requests that got less than the whole graph, or nothing, because too many were under way.",
        unit="reqps",
        lowest=0,
        empty="Nothing was shed",
    ),
    Panel(
        "Kill switch",
        [Query(largest("rung", "tastemaker_gateway_forced"), "{{rung}}")],
        "Red while somebody holds all answers to a rung.",
        kind="state-timeline",
        mappings={"0": ("free", "green"), "1": ("forced", "red")},
        empty="Nobody has used it",
    ),
    Panel(
        "Circuit breakers",
        [Query(largest("part", "tastemaker_gateway_breaker_state"), "{{part}}")],
        "Of the worst gateway. An open one leaves a part alone that does not answer.",
        kind="state-timeline",
        mappings={"0": ("closed", "green"), "1": ("half-open", "yellow"), "2": ("open", "red")},
    ),
    Panel(
        "Sources of candidates",
        [
            Query(
                total("source, outcome", "tastemaker_retrieval_sources_total", 'outcome!="ok"'),
                "{{source}} {{outcome}}",
            ),
            Query(total("outcome", "tastemaker_retrieval_sources_total", 'outcome="ok"'), "all ok"),
        ],
        "Calls by second; a late or failed source is left out of its answer.",
        unit="cps",
        lowest=0,
    ),
    Panel(
        "Lists answered lately",
        [Query(total("outcome", "tastemaker_gateway_cached_lists_total"), "{{outcome}}")],
        "Cache of results: hit, outdated, miss, unread, not-kept.",
        unit="cps",
        lowest=0,
        stacked=True,
        empty="The cache is not used",
    ),
)
_PROCESSES = (
    Panel(
        "Replicas",
        [Query(largest("stage", "tastemaker_stage_replicas"), "{{stage}}")],
        "Living replicas of each stage, as gateways know them.",
        lowest=0,
        decimals=0,
        empty="The graph is fused: one process",
    ),
    Panel(
        "Requests in a message",
        [Query(quantile(0.95, "stage", "tastemaker_stage_message_calls"), "{{stage}}")],
        "p95 of batches between processes: they grow under load. A fused graph sends none.",
        lowest=0,
        empty="The graph is fused: one process",
    ),
    Panel(
        "Clients that name what is not known",
        [Query(total("catalogue", "tastemaker_gateway_unknown_items_total"), "items"),
         Query(total("catalogue", "tastemaker_gateway_unknown_context_keys_total"), "keys of context")],
        "By second. Many: a client sends ids of another catalogue.",
        unit="cps",
        lowest=0,
        empty="None",
    ),
)  # fmt: skip
_ROWS = (
    Row("Is it sound", _OBJECTIVES),
    Row("Traffic", _TRAFFIC),
    Row("Latency", _TIME),
    Row("Fallbacks", _FALLBACKS),
    Row("Processes", _PROCESSES),
)
SERVING: Final = Dashboard(
    "serving", "Serving", "Is it up, is it quick, and what did it fall back to.", _ROWS
)
