"""Stream & features: do events arrive, and is what the ranker reads fresh and right."""

from typing import Final

from helm.dashboards.dashboard import Dashboard
from helm.dashboards.panels import Panel, Query, Row, largest, of, total

_ROWS = (
    Row(
        "Stream",
        (
            Panel(
                "Lag",
                [Query(f"sum by (catalogue) ({of('tastemaker_events_lag_entries')})", "{{catalogue}}")],
                "Entries of the log that are not applied yet.",
                lowest=0,
            ),
            Panel(
                "Age of the oldest unapplied",
                [Query(largest("catalogue", "tastemaker_events_oldest_unapplied_seconds"), "{{catalogue}}")],
                "What a click has to wait to count.",
                unit="s",
                lowest=0,
                steps=((None, "transparent"), (60, "red")),
            ),
            Panel(
                "Partitions that are read",
                [Query(f"sum by (catalogue) ({of('tastemaker_events_held_partitions')})", "{{catalogue}}")],
                "Fewer than `state.partitions`: a consumer is gone and its lease has not been taken over.",
                lowest=0,
            ),
            Panel(
                "Received",
                [Query(total("kind, outcome", "tastemaker_events_received_total"), "{{kind}} {{outcome}}")],
                "Events by second; rejected ones are the client's to mend.",
                lowest=0,
            ),
            Panel(
                "Applied",
                [Query(total("kind", "tastemaker_events_consumed_total"), "{{kind}}")],
                "Events by second.",
                lowest=0,
            ),
            Panel(
                "Trouble",
                [
                    Query(
                        total("stream", "tastemaker_events_dead_letters_total"), "dead letters, {{stream}}"
                    ),
                    Query(total("catalogue", "tastemaker_events_late_total"), "late"),
                    Query(total("catalogue", "tastemaker_events_set_back_total"), "steps set back"),
                ],
                "Entries that could not be applied, events too late to count, steps of partitions that failed. None is good.",
                lowest=0,
            ),
            Panel(
                "Events on gateways' disks",
                [Query(f"sum by (catalogue) ({of('tastemaker_spool_held_bytes')})", "{{catalogue}}")],
                "They wait there while the log is away.",
                unit="bytes",
                lowest=0,
            ),
            Panel(
                "Spool",
                [Query(total("outcome", "tastemaker_spool_events_total"), "{{outcome}}")],
                "Events by second that went to a disk, and from there to the log.",
                lowest=0,
            ),
            Panel(
                "Memory of Redis/Valkey",
                [
                    Query(
                        largest("store, kind", "tastemaker_state_used_bytes"),
                        "{{store}} {{kind}}",
                    )
                ],
                "Over all nodes; a limit of 0 is none.",
                unit="bytes",
                lowest=0,
            ),
        ),
    ),
    Row(
        "Features",
        (
            Panel(
                "Age of what trends",
                [Query(largest("catalogue", "tastemaker_features_trending_age_seconds"), "{{catalogue}}")],
                "Of the process that knows least.",
                unit="s",
                lowest=0,
            ),
            Panel(
                "Age of items' counters",
                [Query(largest("catalogue", "tastemaker_features_items_age_seconds"), "{{catalogue}}")],
                "Since rankers last compared theirs with the totals.",
                unit="s",
                lowest=0,
            ),
            Panel(
                "Totals made anew",
                [Query(total("catalogue", "tastemaker_features_item_totals_total"), "{{catalogue}}")],
                "Items by second.",
                lowest=0,
            ),
            Panel(
                "Skew between serving and log",
                [Query(largest("feature", "tastemaker_features_skew_ratio"), "{{feature}}")],
                "Share of served values that differ from the log's, measured every hour: 0 is right.",
                unit="percentunit",
                lowest=0,
                width=12,
            ),
            Panel(
                "Catalogue and users",
                [
                    Query(total("outcome", "tastemaker_catalogue_items_total"), "items {{outcome}}"),
                    Query(total("outcome", "tastemaker_users_put_total"), "profiles {{outcome}}"),
                ],
                "Rows by second that were put or deleted.",
                lowest=0,
                width=12,
            ),
        ),
    ),
)
STREAM: Final = Dashboard(
    "stream", "Stream & features", "Do events arrive, and is what the ranker reads fresh and right.", _ROWS
)
