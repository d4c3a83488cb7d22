"""Bundles: what is live, how old it is, what was swapped and what was refused."""

from typing import Final

from helm.dashboards.dashboard import Dashboard
from helm.dashboards.panels import Panel, Row
from helm.dashboards.queries import Query, grown, largest, of, quantile, total

_CREATED: Final = largest("alias", "tastemaker_bundle_created_timestamp_seconds")

_ROWS = (
    Row(
        "Live",
        (
            Panel(
                "Live version",
                [Query(f"{largest('alias', 'tastemaker_bundle_live_version')} > 0", "{{alias}}")],
                "Version that each alias answers from.",
                kind="stat",
                height=6,
                decimals=0,
                steps=((None, "text"),),
            ),
            Panel(
                "Age of the live bundle",
                [Query(f"time() - ({_CREATED} > 0)", "{{alias}}")],
                "Since each live bundle was made.",
                unit="s", kind="stat", height=6,
                steps=((None, "green"), (604800, "orange"), (1209600, "red")),
            ),
            Panel(
                "Versions between pods",
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
                stepped=True,
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
                stepped=True,
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
                    Query(grown("reason", "tastemaker_bundle_refused_total"), "{{reason}}"),
                ],
                "In the hour before, by reason. What answered goes on; see docs/runbooks/bundle-refused.md.",
                lowest=0,
                decimals=0,
                empty="None",
            ),
            Panel(
                "Time to load",
                [
                    Query(
                        f"histogram_quantile({share}, {grown('le, catalogue', 'tastemaker_bundle_load_seconds_bucket')}) >= 0",
                        f"{name} {{{{catalogue}}}}",
                    )
                    for share, name in ((0.5, "p50"), (0.99, "p99"))
                ],
                "In the hour before. From opening a bundle to its first tried answers, in one process.",
                empty="Nothing was loaded in the hour before",
                unit="s",
                lowest=0,
            ),
            Panel(
                "Unknown rows",
                [Query(total("catalogue", "tastemaker_catalogue_unknown_rows_total"), "{{catalogue}}")],
                "Candidates by second that a process dropped, not knowing them yet.",
                unit="cps",
                lowest=0,
                empty="None",
            ),
        ),
    ),
    Row(
        "Shadow",
        (
            Panel(
                "Shadow requests",
                [Query(total("outcome", "tastemaker_shadow_requests_total"), "{{outcome}}")],
                "What became of the requests that the shadow version got too.",
                empty="No shadow is live",
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
                empty="No shadow is live",
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
