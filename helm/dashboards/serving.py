"""Serving: is it up, is it quick, and what did it fall back to."""

from typing import Final

from helm.dashboards.dashboard import Dashboard
from helm.dashboards.panels import Panel, Query, Row, largest, of, quantile, total

_LATENCY: Final = "tastemaker_stage_latency_seconds"
_BAD: Final = 'max by (catalogue) (tastemaker:gateway_bad:ratio_rate5m{namespace=~"$namespace",catalogue=~"$catalogue"})'
_SLOW: Final = 'max by (catalogue) (tastemaker:gateway_slow:ratio_rate5m{namespace=~"$namespace",catalogue=~"$catalogue"})'


def _percentile(share: float, name: str) -> Panel:
    return Panel(
        f"{name} by stage",
        [
            Query(quantile(share, "stage", _LATENCY), "{{stage}}"),
            Query(largest("stage", "tastemaker_stage_budget_seconds"), "budget of {{stage}}"),
        ],
        "Seen from the gateway, beside what each stage may take at p99 (`total`: the deadline).",
        unit="s",
        lowest=0,
    )


_ROWS = (
    Row(
        "Objectives",
        (
            Panel(
                "Failed or refused, 5 minutes",
                [Query(_BAD, "{{catalogue}}")],
                "Of answers; the objective is at most 0.1%.",
                unit="percentunit", kind="stat", width=6, height=5, decimals=3,
                steps=((None, "green"), (0.001, "orange"), (0.0144, "red")),
            ),
            Panel(
                "Slower than 100 ms, 5 minutes",
                [Query(_SLOW, "{{catalogue}}")],
                "Of recommendations; the objective is at most 1%.",
                unit="percentunit", kind="stat", width=6, height=5, decimals=2,
                steps=((None, "green"), (0.01, "orange"), (0.144, "red")),
            ),
            Panel(
                "Answers",
                [Query(f"sum ({total('catalogue', 'tastemaker_gateway_requests_total')})", "all")],
                "By second, of all routes.",
                unit="reqps", kind="stat", width=6, height=5,
            ),
            Panel(
                "Without any item",
                [
                    Query(
                        'max by (catalogue) (tastemaker:gateway_empty:ratio_rate5m{namespace=~"$namespace",catalogue=~"$catalogue"})',
                        "{{catalogue}}",
                    )
                ],
                "Share of lists: filters that leave nothing over, or a catalogue that is empty.",
                unit="percentunit", kind="stat", width=6, height=5, decimals=2,
                steps=((None, "green"), (0.01, "red")),
            ),
        ),
    ),
    Row(
        "Traffic",
        (
            Panel(
                "Rate by route",
                [Query(total("route", "tastemaker_gateway_requests_total"), "{{route}}")],
                "Answered requests by second.",
                unit="reqps",
                lowest=0,
                stacked=True,
            ),
            Panel(
                "Outcomes",
                [Query(total("outcome", "tastemaker_gateway_requests_total"), "{{outcome}}")],
                "`degraded` is a good answer by a fallback, `refused` a 429 under load, `error` our fault, `invalid` the client's.",
                unit="reqps",
                lowest=0,
            ),
            Panel(
                "Requests under way",
                [
                    Query(f"sum by (kind) ({of('tastemaker_gateway_in_flight')})", "{{kind}}"),
                    Query(f"sum ({of('tastemaker_gateway_load_limit')})", "limit of those that use stages"),
                ],
                "The queue: at the limit new requests go to lower rungs, then are refused.",
                lowest=0,
            ),
        ),
    ),
    Row("Latency", (_percentile(0.5, "p50"), _percentile(0.95, "p95"), _percentile(0.99, "p99"))),
    Row(
        "Fallbacks",
        (
            Panel(
                "Rungs used",
                [Query(total("rung", "tastemaker_gateway_rungs_total"), "{{rung}}")],
                "By second. What each means: docs/serving.md.",
                lowest=0,
            ),
            Panel(
                "Shed by load",
                [Query(total("priority, rung", "tastemaker_gateway_shed_total"), "{{priority}} {{rung}}")],
                "Requests that got less than the whole graph, or nothing, because too many were under way. None is good.",
                lowest=0,
            ),
            Panel(
                "Circuit breakers",
                [Query(largest("part", "tastemaker_gateway_breaker_state"), "{{part}}")],
                "Of the worst gateway. An open one leaves a part alone that does not answer.",
                kind="state-timeline",
                mappings={"0": ("closed", "green"), "1": ("half-open", "yellow"), "2": ("open", "red")},
            ),
            Panel(
                "Kill switch",
                [Query(largest("rung", "tastemaker_gateway_forced"), "{{rung}}")],
                "1 where somebody holds all answers to a rung. Without data nobody has used it.",
                lowest=0,
                highest=1,
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
                lowest=0,
            ),
            Panel(
                "Lists answered lately",
                [Query(total("outcome", "tastemaker_gateway_cached_lists_total"), "{{outcome}}")],
                "Cache of results: hit, outdated, miss, unread, not-kept.",
                lowest=0,
            ),
        ),
    ),
    Row(
        "Processes",
        (
            Panel(
                "Replicas",
                [Query(largest("stage", "tastemaker_stage_replicas"), "{{stage}}")],
                "Living replicas of each stage, as gateways know them.",
                lowest=0,
                decimals=0,
            ),
            Panel(
                "Requests in a message",
                [Query(quantile(0.5, "stage", "tastemaker_stage_message_calls"), "{{stage}} p50"),
                 Query(quantile(0.95, "stage", "tastemaker_stage_message_calls"), "{{stage}} p95")],
                "Batches between processes: they grow under load. A fused graph sends none.",
                lowest=0,
            ),
            Panel(
                "Clients that name what is not known",
                [
                    Query(total("catalogue", "tastemaker_gateway_unknown_items_total"), "items"),
                    Query(total("catalogue", "tastemaker_gateway_unknown_context_keys_total"), "keys of context"),
                ],
                "By second. Many: a client sends ids of another catalogue.",
                lowest=0,
            ),
        ),
    ),
)  # fmt: skip
SERVING: Final = Dashboard(
    "serving", "Serving", "Is it up, is it quick, and what did it fall back to.", _ROWS
)
