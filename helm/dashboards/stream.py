"""Stream & features: do events arrive, and is what the ranker reads fresh and right."""

from typing import Final

from helm.dashboards.dashboard import Dashboard
from helm.dashboards.looks import colored, dashed
from helm.dashboards.panels import Panel, Row
from helm.dashboards.queries import Query, grown, largest, of, total

_RECEIVED: Final = "tastemaker_events_received_total"
_IS_REJECTED: Final = 'outcome="rejected"'
_REJECTED: Final = f"sum (rate({of(_RECEIVED, _IS_REJECTED)}[5m]))"
_MEMORY: Final = "tastemaker_state_used_bytes"
_USED: Final = largest("store", _MEMORY, 'kind="used"')
_LIMIT: Final = largest("store", _MEMORY, 'kind="limit"')
_SOUND = (
    Panel(
        "What a click waits to count",
        [Query(largest("catalogue", "tastemaker_events_oldest_unapplied_seconds"), "{{catalogue}}")],
        "Age of the oldest event of the log that is not applied yet.",
        unit="s",
        kind="stat",
        width=6,
        height=4,
        decimals=1,
        steps=((None, "green"), (10, "orange"), (60, "red")),
    ),
    Panel(
        "Rejected events, 5 minutes",
        [Query(f"{_REJECTED} / sum (rate({of(_RECEIVED)}[5m]))", "rejected")],
        "Share of what clients sent. Theirs to mend: the answer names each.",
        unit="percentunit",
        kind="stat",
        width=6,
        height=4,
        decimals=2,
        steps=((None, "green"), (0.01, "orange")),
        empty="None",
    ),
    Panel(
        "Dead letters in the last hour",
        [Query(grown("catalogue", "tastemaker_events_dead_letters_total"), "{{catalogue}}")],
        "Entries of the log that could not be applied, and were put aside.",
        kind="stat",
        width=6,
        height=4,
        decimals=0,
        steps=((None, "green"), (1, "red")),
        empty="None",
    ),
    Panel(
        "Memory of Redis/Valkey used",
        [
            Query(f"{_USED} / on (store) ({_LIMIT} > 0)", "{{store}}"),
        ],
        "Share of its limit.",
        unit="percentunit",
        kind="stat",
        width=6,
        height=4,
        decimals=1,
        steps=((None, "green"), (0.7, "orange"), (0.85, "red")),
        empty="It has no limit",
    ),
)
_ROWS = (
    Row("Is it sound", _SOUND),
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
                "What a click has to wait to count; the line is where the alert is.",
                unit="s",
                lowest=0,
                steps=((None, "transparent"), (60, "red")),
            ),
            Panel(
                "Partitions that are read",
                [Query(f"sum by (catalogue) ({of('tastemaker_events_held_partitions')})", "{{catalogue}}")],
                "Fewer than `state.partitions`: a consumer is gone and its lease has not been taken over.",
                lowest=0,
                decimals=0,
            ),
            Panel(
                "Received",
                [
                    Query(total("kind", _RECEIVED, 'outcome="received"'), "{{kind}}"),
                    Query(total("outcome", _RECEIVED, 'outcome!="received"'), "{{outcome}}"),
                ],
                "Events by second; rejected ones are the client's to mend.",
                unit="eps",
                lowest=0,
                looks=colored({"rejected": "red"}),
            ),
            Panel(
                "Applied",
                [Query(total("kind", "tastemaker_events_consumed_total"), "{{kind}}")],
                "Events by second.",
                unit="eps",
                lowest=0,
            ),
            Panel(
                "Dead letters, late events, failed steps",
                [
                    Query(
                        total("stream", "tastemaker_events_dead_letters_total"), "dead letters, {{stream}}"
                    ),
                    Query(total("catalogue", "tastemaker_events_late_total"), "late"),
                    Query(total("catalogue", "tastemaker_events_set_back_total"), "steps set back"),
                ],
                "Entries that could not be applied, events too late to count, steps of partitions that failed.",
                unit="eps",
                lowest=0,
                empty="None",
            ),
            Panel(
                "Events on gateways' disks",
                [Query(f"sum by (catalogue) ({of('tastemaker_spool_held_bytes')})", "{{catalogue}}")],
                "They wait there while the log is away.",
                unit="bytes",
                lowest=0,
                empty="None",
            ),
            Panel(
                "Spool",
                [Query(total("outcome", "tastemaker_spool_events_total"), "{{outcome}}")],
                "Events by second that went to a disk, and from there to the log.",
                unit="eps",
                lowest=0,
                empty="Never used",
            ),
            Panel(
                "Memory of Redis/Valkey",
                [
                    Query(_USED, "{{store}}"),
                    Query(f"{_LIMIT} > 0", "limit of {{store}}"),
                ],
                "Over all nodes, with the limit (dashes) where there is one.",
                unit="bytes",
                lowest=0,
                looks=(dashed("B", "red"),),
            ),
        ),
    ),
    Row(
        "Features",
        (
            Panel(
                "Age of the trending list",
                [Query(largest("catalogue", "tastemaker_features_trending_age_seconds"), "{{catalogue}}")],
                "Since it was last read, of the process that knows least.",
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
                "Items' totals made anew",
                [Query(total("catalogue", "tastemaker_features_item_totals_total"), "{{catalogue}}")],
                "Items by second whose counters the consumer summed.",
                unit="cps",
                lowest=0,
            ),
            Panel(
                "Skew between serving and log",
                [Query(largest("feature", "tastemaker_features_skew_ratio"), "{{feature}}")],
                "Share of served values that differ from the log's, measured every hour: 0 is right.",
                unit="percentunit",
                lowest=0,
                width=12,
                empty="Not measured yet: once an hour",
            ),
            Panel(
                "Catalogue and users",
                [
                    Query(total("outcome", "tastemaker_catalogue_items_total"), "items {{outcome}}"),
                    Query(total("outcome", "tastemaker_users_put_total"), "profiles {{outcome}}"),
                ],
                "Rows by second that were put or deleted.",
                unit="rowsps",
                lowest=0,
                empty="Nobody has put any",
                width=12,
            ),
        ),
    ),
)  # fmt: skip
STREAM: Final = Dashboard(
    "stream", "Stream & features", "Do events arrive, and is what the ranker reads fresh and right.", _ROWS
)
