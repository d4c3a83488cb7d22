"""Training: does it learn, how fast, and what did the gates say."""

from typing import Final

from helm.dashboards.dashboard import Dashboard
from helm.dashboards.panels import Panel, Query, Row, largest, of

_RUNNING: Final = of("tastemaker_training_epoch", 'fit=~"workers.*"')
_ROWS = (
    Row(
        "Fits that the home keeps",
        (
            Panel(
                "Loss",
                [Query(largest("fit", "tastemaker_training_loss"), "{{fit}}")],
                "Of the newest epoch. `workers` is a training that is under way.",
            ),
            Panel(
                "Validation",
                [Query(largest("fit, metric", "tastemaker_training_validation_ratio"), "{{fit}} {{metric}}")],
                "Of the newest epoch.",
                unit="percentunit",
                lowest=0,
            ),
            Panel(
                "Throughput",
                [
                    Query(
                        f"clamp_min(3600 * max by (fit) (deriv({_RUNNING}[15m])), 0)",
                        "{{fit}}",
                    )
                ],
                "Epochs by hour of the training that is under way, over 15 minutes.",
                lowest=0,
            ),
            Panel(
                "Table memory",
                [Query(largest("fit, rank", "tastemaker_training_table_bytes"), "{{fit}} rank {{rank}}")],
                "Weights of embedding tables on each rank: ranks should be near one another.",
                unit="bytes",
                lowest=0,
            ),
            Panel(
                "Epoch",
                [Query(largest("fit", "tastemaker_training_epoch"), "{{fit}}")],
                "The newest one.",
                lowest=0,
                decimals=0,
            ),
            Panel(
                "Age of the newest checkpoint",
                [
                    Query(
                        f"time() - {largest('fit', 'tastemaker_training_checkpoint_timestamp_seconds')}",
                        "{{fit}}",
                    )
                ],
                "Of `workers`: how much work a crash would cost.",
                unit="s",
                lowest=0,
            ),
        ),
    ),
    Row(
        "Gates",
        (
            Panel(
                "What gates said",
                [Query(largest("alias, outcome", "tastemaker_promotion_gates"), "{{alias}} {{outcome}}")],
                "Of the versions that aliases name. A refused one was forced.",
                kind="bargauge",
                width=10,
                lowest=0,
                decimals=0,
            ),
            Panel(
                "Figures of gates",
                [Query(largest("alias, gate, bound", "tastemaker_promotion_gate_value"))],
                "What each gate looked at, and its limit. More: `tastemaker bundles gates`.",
                kind="table",
                width=14,
            ),
        ),
    ),
)
TRAINING: Final = Dashboard(
    "training", "Training", "Does it learn, how fast, and what did the gates say.", _ROWS
)
