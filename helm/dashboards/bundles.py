"""Bundles: what is live, how old it is, what was swapped and what was refused."""

from typing import Final

from helm.dashboards.dashboard import Dashboard
from helm.dashboards.panels import Panel, Query, Row, largest, of, quantile, total

_CREATED: Final = largest("alias", "tastemaker_bundle_created_timestamp_seconds")

_ROWS = (
    Row(
        "Live",
        (
            Panel(
                "Versions",
                [Query(f"{largest('alias', 'tastemaker_bundle_live_version')} > 0", "{{alias}}")],
                "Version that each alias answers from.",
                kind="stat",
                height=6,
                decimals=0,
            ),
            Panel(
                "Age",
                [Query(f"time() - ({_CREATED} > 0)", "{{alias}}")],
                "Since each live bundle was made.",
                unit="s", kind="stat", height=6,
                steps=((None, "green"), (604800, "orange"), (1209600, "red")),
            ),
            Panel(
                "Pods that disagree",
                [
                    Query(
                        f"{largest('alias', 'tastemaker_bundle_live_version')}"
                        f" - min by (alias) ({of('tastemaker_bundle_live_version')})",
                        "{{alias}}",
                    )
                ],
                "Distance between the newest and the oldest version that pods answer an alias from; 0 once a swap is done.",
                kind="stat", height=6, decimals=0, steps=((None, "green"), (1, "orange")),
            ),
            Panel(
                "Version by time",
                [Query(largest("alias", "tastemaker_bundle_live_version"), "{{alias}}")],
                "A step is a swap.",
                lowest=0,
                decimals=0,
                width=12,
            ),
            Panel(
                "Swaps",
                [
                    Query(
                        f"sum by (alias) (changes({of('tastemaker_bundle_live_version')}[1h]))", "{{alias}}"
                    )
                ],
                "In the hour before, over all pods.",
                lowest=0,
                decimals=0,
                width=12,
            ),
        ),
    ),
    Row(
        "Loading",
        (
            Panel(
                "Refused",
                [
                    Query(
                        f"sum by (reason) (increase({of('tastemaker_bundle_refused_total')}[1h]))", "{{reason}}"
                    )
                ],
                "In the hour before. What answered goes on; see docs/runbooks/bundle-refused.md. None is good.",
                lowest=0,
            ),
            Panel(
                "Time to load",
                [Query(quantile(0.5, "catalogue", "tastemaker_bundle_load_seconds"), "p50 {{catalogue}}"),
                 Query(quantile(0.99, "catalogue", "tastemaker_bundle_load_seconds"), "p99 {{catalogue}}")],
                "From opening a bundle to its first tried answers, in one process.",
                unit="s",
                lowest=0,
            ),
            Panel(
                "Unknown rows",
                [Query(total("catalogue", "tastemaker_catalogue_unknown_rows_total"), "{{catalogue}}")],
                "Candidates by second that a process dropped, not knowing them yet.",
                lowest=0,
            ),
        ),
    ),
    Row(
        "Shadow",
        (
            Panel(
                "Shadow requests",
                [Query(total("outcome", "tastemaker_shadow_requests_total"), "{{outcome}}")],
                "Without data no shadow is live.",
                unit="reqps",
                lowest=0,
                width=12,
            ),
            Panel(
                "Shadow latency",
                [
                    Query(quantile(0.5, "catalogue", "tastemaker_shadow_latency_seconds"), "p50"),
                    Query(quantile(0.99, "catalogue", "tastemaker_shadow_latency_seconds"), "p99"),
                ],
                "Time of the shadow's stages.",
                unit="s",
                lowest=0,
                width=12,
            ),
        ),
    ),
)  # fmt: skip
BUNDLES: Final = Dashboard(
    "bundles", "Bundles", "What is live, how old it is, what was swapped and what was refused.", _ROWS
)
