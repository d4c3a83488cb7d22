"""Training: does it learn, how fast, and what did the gates say."""

from typing import Final

from helm.dashboards.dashboard import Dashboard
from helm.dashboards.looks import Column
from helm.dashboards.panels import Panel, Row
from helm.dashboards.queries import Query, largest

_WORKERS: Final = 'fit=~"workers.*"'
_GATE: Final = "tastemaker_promotion_gate_value"
_OUTCOMES: Final = ("passed", "refused", "waiting", "not applicable")
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
                [Query(largest("fit", "tastemaker_training_rows_per_second"), "{{fit}}")],
                "Rows by second of all ranks, over the newest epoch without its evaluation: examples of a retriever, candidates of a ranker.",
                unit="suffix: rows/s",
                lowest=0,
                empty="No training has told it",
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
                        f"time() - {largest('fit', 'tastemaker_training_checkpoint_timestamp_seconds', _WORKERS)} >= 0",
                        "{{fit}}",
                    )
                ],
                "Of the training that is under way: how much work a crash would cost.",
                unit="s",
                lowest=0,
                empty="No training is under way",
            ),
        ),
    ),
    Row(
        "Gates",
        (
            Panel(
                "What gates said",
                [
                    Query(largest("alias", "tastemaker_promotion_gates", f'outcome="{one}"'))
                    for one in _OUTCOMES
                ],
                "How many gates said what of the versions that aliases name. A refused one was forced.",
                kind="table",
                width=10,
                height=9,
                columns=(
                    Column("alias", "Alias"),
                    Column("Value #A", "Passed", decimals=0, width=90),
                    Column("Value #B", "Refused", decimals=0, width=90, steps=((None, "text"), (1, "red"))),
                    Column(
                        "Value #C", "Waiting", decimals=0, width=90, steps=((None, "text"), (1, "orange"))
                    ),
                    Column("Value #D", "Not applicable", decimals=0, width=130),
                ),
            ),
            Panel(
                "Figures of gates",
                [Query(largest("alias, gate", _GATE, f'bound="{bound}"')) for bound in ("value", "limit")],
                "What each gate looked at, and its limit, of the versions that aliases name. More: `tastemaker bundles gates`.",
                kind="table",
                width=14,
                height=9,
                columns=(
                    Column("alias", "Alias"),
                    Column("gate", "Gate"),
                    Column("Value #A", "Figure", decimals=4),
                    Column("Value #B", "Limit", decimals=4),
                ),
            ),
        ),
    ),
)
TRAINING: Final = Dashboard(
    "training", "Training", "Does it learn, how fast, and what did the gates say.", _ROWS
)
