"""The offline table of a run: baselines, retrievers alone, the pipeline before reranking, and the whole pipeline.

All rank the full catalogue with seen items masked. The pipeline is the very object that serves.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tastemaker.data.schema import Dataset
from tastemaker.data.splits import Split, global_cutoff, leave_last
from tastemaker.evaluation.offline import Evaluation, Recommend, evaluate, paired_bootstrap
from tastemaker.features.traits import ItemTraits
from tastemaker.home import write_json
from tastemaker.stages.pipeline import Pipeline
from tastemaker.terminal import console, print_table
from tastemaker.types import Candidates, Int32, Query
from tastemaker_training.artifacts import load_tensors, save_tensors

BASELINES = ("popularity", "item-kNN", "item-kNN, recency", "ALS", "ALS, recency", "EASE", "EASE, recency")
TWO_TOWER, BEFORE_RERANKING, PIPELINE = "two-tower", "pipeline before reranking", "pipeline"
STRANGERS = "pipeline, no records"
"""The pipeline where nothing is kept of any user: their history alone is known, as of those who come for the first time."""
_OWN = (TWO_TOWER, BEFORE_RERANKING, PIPELINE, STRANGERS)
SHOWN = ("recall@10", "ndcg@10", "map@10", "mrr", "recall@50", "coverage", "gini", "novelty", "diversity")
HEADLINE = "ndcg@10"
_KS = (10, 50)
_TENSORS, _OVERALL = "evaluations.safetensors", "evaluations.json"
_LISTED = "listed"
"""In place of a metric, in the tensors."""


def evaluate_systems(
    systems: Mapping[str, Recommend], split: Split, dataset: Dataset
) -> dict[str, Evaluation]:
    """Each system on the test items, from the histories before them."""
    traits = ItemTraits.from_items(dataset.items)
    return {
        name: evaluate(
            recommend, split.train_validation, split.test, dataset.num_items, _KS, user_ids=dataset.user_ids,
            traits=traits, description=f"evaluating {name}",
        )
        for name, recommend in systems.items()
    }  # fmt: skip


def pipeline_systems(pipeline: Pipeline) -> dict[str, Recommend]:
    """The pipeline before reranking and whole. Evaluate them in this order: the second uses the first's work."""
    ranked: dict[int, Candidates] = {}

    def before(queries: Sequence[Query], k: int) -> list[Int32]:  # noqa: ARG001 (queries carry their k)
        found = pipeline.rank(queries, pipeline.retrieve(queries))
        ranked.update((query.seed, candidates) for query, candidates in zip(queries, found, strict=True))
        return _items(pipeline, queries, found)

    def whole(queries: Sequence[Query], k: int) -> list[Int32]:  # noqa: ARG001
        found = [ranked.pop(query.seed) for query in queries]
        return _items(pipeline, queries, pipeline.rerank(queries, found))

    return {BEFORE_RERANKING: before, PIPELINE: whole}


def _items(pipeline: Pipeline, queries: Sequence[Query], found: Sequence[Candidates]) -> list[Int32]:
    return [candidates.item_index for candidates in pipeline.finish(queries, found)]


def recommend_whole(pipeline: Pipeline) -> Recommend:
    """The whole pipeline as a recommender."""

    def recommend(queries: Sequence[Query], k: int) -> list[Int32]:  # noqa: ARG001
        return [candidates.item_index for candidates in pipeline.recommend(queries)]

    return recommend


def offline_report(
    evaluations: Mapping[str, Evaluation], last_one: Mapping[str, Evaluation], dataset: Dataset, seed: int
) -> dict[str, Any]:
    """The table as JSON values: rows with intervals, paired comparisons, the second view, the global cutoff."""
    best = best_baseline(evaluations)
    cutoff = global_cutoff(dataset)
    pairs = [
        ("best baseline", PIPELINE, best),
        (BEFORE_RERANKING, PIPELINE, BEFORE_RERANKING),
        ("best baseline", TWO_TOWER, best),
    ]
    others = [name for name in evaluations if name not in {*BASELINES, *_OWN}]
    pairs += [("best baseline", name, best) for name in others]
    if STRANGERS in evaluations:
        pairs.append((PIPELINE, STRANGERS, PIPELINE))
    return {
        "num_users": len(evaluations[PIPELINE].users),
        "num_items": dataset.num_items,
        "rows": [_row(name, evaluation, seed) for name, evaluation in evaluations.items()],
        "best_baseline": best,
        "paired": {f"{a} - {over}": _paired(evaluations, a, b, seed) for over, a, b in pairs},
        "last_one": [_row(name, evaluation, seed) for name, evaluation in last_one.items()],
        "global_cutoff": {
            "share": 0.8,
            "cutoff_ms": cutoff.cutoff_ms,
            "num_test_users": cutoff.num_test_users,
            "num_warm_users": cutoff.num_warm_users,
        },
        "ties": "events of a user at the same time keep the order of the imported file",
    }


def best_baseline(evaluations: Mapping[str, Evaluation]) -> str:
    """The baseline with the largest NDCG@10."""
    return max(BASELINES, key=lambda name: float(evaluations[name].per_user[HEADLINE].mean()))


def _row(name: str, evaluation: Evaluation, seed: int) -> dict[str, Any]:
    return {"system": name, **evaluation.row(seed)}


def _paired(evaluations: Mapping[str, Evaluation], a: str, b: str, seed: int) -> dict[str, Any]:
    first, second = evaluations[a], evaluations[b]
    assert np.array_equal(first.users, second.users)
    mean, low, high = paired_bootstrap(first.per_user[HEADLINE], second.per_user[HEADLINE], seed)
    return {"metric": HEADLINE, "mean": mean, "low": low, "high": high, "of": a, "over": b}


def evaluate_last_one(systems: Mapping[str, Recommend], dataset: Dataset) -> dict[str, Evaluation]:
    """The second view: each user's very last item, from all before it; the models are those of the first."""
    split = leave_last(dataset, 1, 1)
    return {
        name: evaluate(
            recommend, split.train_validation, split.test, dataset.num_items, _KS, user_ids=dataset.user_ids,
            description=f"evaluating {name}, last one",
        )
        for name, recommend in systems.items()
    }  # fmt: skip


def save_evaluations(folder: Path, evaluations: Mapping[str, Evaluation]) -> None:
    """Writes every user's metrics of all systems."""
    folder.mkdir(exist_ok=True)
    tensors: dict[str, np.ndarray] = {}
    for number, evaluation in enumerate(evaluations.values()):
        tensors |= {f"{number}.users": evaluation.users, f"{number}.{_LISTED}": evaluation.listed_I}
        tensors |= {f"{number}.{metric}": values for metric, values in evaluation.per_user.items()}
    save_tensors(folder / _TENSORS, tensors)
    write_json(folder / _OVERALL, {name: evaluation.overall for name, evaluation in evaluations.items()})


def load_evaluations(folder: Path) -> dict[str, Evaluation]:
    """What `save_evaluations` wrote."""
    tensors = load_tensors(folder / _TENSORS)
    overall = json.loads((folder / _OVERALL).read_text(encoding="utf-8"))
    loaded = {}
    for number, (name, values) in enumerate(overall.items()):
        prefix = f"{number}."
        mine = {key.removeprefix(prefix): v for key, v in tensors.items() if key.startswith(prefix)}
        listed_I = mine.pop(_LISTED, np.empty(0, np.int64))  # an earlier release did not count
        loaded[name] = Evaluation(mine.pop("users"), mine, values, listed_I)
    return loaded


def print_offline(offline: Mapping[str, Any]) -> None:
    """The table on stdout, and what it says in words."""
    if not offline["rows"]:
        console.print("nothing was held out: the run trained content vectors alone")
        return
    _print_rows(f"Held-out test, {offline['num_users']} users, {offline['num_items']} items", offline["rows"])
    _print_rows("The last event alone", offline["last_one"])
    for name, paired in offline["paired"].items():
        interval = f"{paired['mean']:+.4f} [{paired['low']:+.4f}, {paired['high']:+.4f}]"
        over = f" ({paired['over']})" if "best" in name else ""
        console.print(f"{name}{over}: {interval} NDCG@10, paired over users, 95%", markup=False)
    cutoff = offline["global_cutoff"]
    console.print(
        f"A cut at one moment (80% of events before it) would leave {cutoff['num_test_users']} test users, "
        f"{cutoff['num_warm_users']} of them with a history. Ties in time: {offline['ties']}.",
        markup=False,
    )


def _print_rows(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    shown = [metric for metric in SHOWN if rows and metric in rows[0]]
    print_table(title, ["system", *shown], [[row["system"], *(_cell(row, m) for m in shown)] for row in rows])


def _cell(row: Mapping[str, Any], metric: str) -> str:
    if f"{metric}_low" not in row:
        return f"{row[metric]:.3f}"
    digits = 2 if metric == "novelty" else 3
    low, high = (f"{row[f'{metric}_{side}']:.{digits}f}".removeprefix("0") for side in ("low", "high"))
    return f"{row[metric]:.{digits}f}\n[{low}, {high}]"
