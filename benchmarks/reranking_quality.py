"""What each reranking stage costs in NDCG@10 and gains in variety, on the test users of the packaged recipe.

The recipe's pipeline ranks once for each user; each stage then reorders the same candidates. What the lists gain is told by
tags and categories, which no stage but `calibrated`, `spread` and the caps looks at, and by the item tower's vectors, which
MMR and DPP go by.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from commands import tastemaker
from turns import Effort, Part

from tastemaker.config import Settings
from tastemaker.data.log import read_frozen
from tastemaker.evaluation import metrics
from tastemaker.evaluation.offline import Evaluation, evaluate, paired_bootstrap
from tastemaker.features.traits import ItemTraits
from tastemaker.home import Home
from tastemaker.stages.loading import reranking_items
from tastemaker.stages.rerankers.calibrated import divergence, shares
from tastemaker.stages.rerankers.config import RerankingConfig
from tastemaker.stages.rerankers.seen import RerankingItems
from tastemaker.stages.reranking import Reranking
from tastemaker.types import Candidates, Float64, Int32, Query
from tastemaker_training.runs.run_record import open_run
from tastemaker_training.runs.steps import Steps

K = 10
SEEDS = (0, 1, 2)
PLAIN = "the ranker's order"
MOST_COST = 0.003
OFF: dict[str, Any] = {"fatigue": None, "mmr": None, "category_cap": None}
STAGES: Mapping[str, Mapping[str, Any]] = {
    "the defaults": {},
    "mmr, weight 0.7": OFF | {"mmr": {}},
    "mmr, weight 0.5": OFF | {"mmr": {"weight": 0.5}},
    "mmr, weight 0.3": OFF | {"mmr": {"weight": 0.3}},
    "dpp, weight 0.7": OFF | {"dpp": {}},
    "dpp, weight 0.5": OFF | {"dpp": {"weight": 0.5}},
    "calibrated by tags": OFF | {"calibrated": {"by": "tags"}},
    "calibrated by tags, weight 0.5": OFF | {"calibrated": {"by": "tags", "weight": 0.5}},
    "category_cap of 6": OFF | {"category_cap": {}},
    "category_cap of 3": OFF | {"category_cap": {"max_per_category": 3}},
    "spread, 1 apart": OFF | {"spread": {}},
    "spread, 2 apart": OFF | {"spread": {"apart": 2}},
    "freshness, half-life 2 years": OFF | {"freshness": {"half_life_days": 730.0}},
    "long_tail": OFF | {"long_tail": {}},
    "long_tail, strength 0.3": OFF | {"long_tail": {"strength": 0.3}},
    "exposure, a tenth to items of at most 20": OFF
    | {"exposure": {"floors": [{"match": {"max_interactions": 20}, "share": 0.1}]}},
    "shuffle, windows of 5": OFF | {"shuffle": {}},
    "dedupe by title": OFF | {"dedupe": {}},
}
"""Each alone, but for the defaults, beside the ranker's own order."""
HEADER = (
    "stage", "NDCG@10", "difference", "Recall@10", "unlike by tags", "unlike by vectors", "categories", "mix (KL)",
    "novelty, bits", "coverage",
)  # fmt: skip


@contextmanager
def trained(effort: Effort) -> Iterator[tuple[Home, list[str]]]:
    """A home in which runs of the packaged recipe lie, one for each seed, and their names."""
    names = [f"reranking-{seed}" for seed in (SEEDS if effort.divide == 1 else SEEDS[:1])]
    if given := os.environ.get("RERANKING_HOME"):
        yield Home(Path(given)), names
        return
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        tastemaker(home, "data", "import")
        recipes = []
        for seed, name in zip(SEEDS, names, strict=False):
            recipes.append(str(Path(folder) / f"{name}.yaml"))
            Path(recipes[-1]).write_text(f"extends: movielens\nseed: {seed}\n")
        tastemaker(home, "train", *recipes, "--workers", "2", *(["--quick"] if effort.divide > 1 else []))
        yield Home(home), names


class Lists:
    """The lists of one configuration over test users, and what is measured of them beside the usual metrics."""

    def __init__(self, items: RerankingItems, stage: Reranking | None, ranked: dict[int, Candidates]) -> None:
        self._stage, self._ranked = stage, ranked
        self._alike = metrics.tag_similarity(_traits(items))
        self._items = items
        self.top: dict[int, Int32] = {}
        self.mix: dict[int, float] = {}

    def recommend(self, queries: Sequence[Query], k: int) -> list[Int32]:
        found = [self._ranked[query.seed] for query in queries]
        slates = found if self._stage is None else self._stage(queries, found)
        for query, slate in zip(queries, slates, strict=True):
            self.top[query.seed] = slate.item_index[:K]
            self.mix[query.seed] = self._divergence(query, slate.item_index[:K])
        return [slate.item_index[:k] for slate in slates]

    def _divergence(self, query: Query, shown: Int32) -> float:
        share_XG = shares(np.concatenate([query.history_L, shown]), self._items, "tags")
        past_G, list_G = (
            share_XG[: len(query.history_L)].mean(axis=0),
            share_XG[len(query.history_L) :].mean(axis=0),
        )
        return divergence(past_G / max(past_G.sum(), 1e-12), list_G)

    def measured(self, evaluation: Evaluation) -> dict[str, Float64]:
        """Per user, beside the evaluation's own: how unlike and of how many categories the lists are, and their mix."""
        lists = [self.top[int(user)] for user in evaluation.users]
        ranked = np.full((len(lists), K), metrics.PADDING, np.int32)
        for row, rows in enumerate(lists):
            ranked[row, : len(rows)] = rows
        vectors = self._items.vectors_ID.astype(np.float64)
        return {
            "tags": np.nan_to_num(metrics.intra_list_diversity(ranked, self._alike)),
            "vectors": np.nan_to_num(
                metrics.intra_list_diversity(
                    ranked, lambda one, other: (vectors[one] * vectors[other]).sum(axis=1)
                )
            ),
            "categories": metrics.num_categories(ranked, self._items.category_I),
            "mix": np.array([self.mix[int(user)] for user in evaluation.users]),
        } | {name: evaluation.per_user[name] for name in ("ndcg@10", "recall@10", "novelty")}


def _traits(items: RerankingItems) -> ItemTraits:
    assert items.traits is not None, "a fitted pipeline knows its items"
    return items.traits


def measure_quality(effort: Effort) -> Part:
    with trained(effort) as (home, names):
        found = [measured_run(home, name) for name in names]
    return _part({stage: _mean([run[stage] for run in found]) for stage in found[0]}, len(found))


def measured_run(home: Home, name: str) -> dict[str, tuple[dict[str, Float64], float]]:
    """What the lists of one run's users are worth under each stage: values by user, and the coverage."""
    settings = Settings(home=home.root)
    run = open_run(home, settings.catalogue, name)
    dataset = read_frozen(home, settings.catalogue, run.fingerprint)
    steps = Steps.of(settings, home, run.recipe, run.num_workers, dataset=dataset)
    pipeline = steps.pipeline()
    ranked: dict[int, Candidates] = {}

    def rank(queries: Sequence[Query], k: int) -> list[Int32]:
        found = pipeline.rank(queries, pipeline.retrieve(queries))
        ranked.update((query.seed, mine) for query, mine in zip(queries, found, strict=True))
        return [mine.item_index[:k] for mine in found]

    def score(recommend: Callable[..., list[Int32]], stage: str) -> Evaluation:
        histories, targets = steps.split.train_validation, steps.split.test
        return evaluate(
            recommend, histories, targets, dataset.num_items, (K,), description=f"{name}, {stage}"
        )

    score(rank, "ranking")
    traits = ItemTraits.from_items(dataset.items, steps.refit.memory.popularity.counts_I)
    items = reranking_items(steps.refit.columns, steps.refit.index.vectors(), traits)
    row = {item_id: i for i, item_id in enumerate(dataset.item_ids)}
    found: dict[str, tuple[dict[str, Float64], float]] = {}
    for stage, config in {PLAIN: None, **STAGES}.items():
        reranking = (
            None if config is None else Reranking(items, RerankingConfig.parse(config, stage), row.get)
        )
        lists = Lists(items, reranking, ranked)
        evaluation = score(lists.recommend, stage)
        found[stage] = lists.measured(evaluation), evaluation.overall["coverage"]
    return found


def _mean(runs: Sequence[tuple[dict[str, Float64], float]]) -> tuple[dict[str, Float64], float]:
    """Each user's values as the mean over runs, so that the users are drawn and not the trainings."""
    values = {key: np.mean([run[0][key] for run in runs], axis=0) for key in runs[0][0]}
    return values, float(np.mean([run[1] for run in runs]))


def _part(found: Mapping[str, tuple[dict[str, Float64], float]], num_runs: int) -> Part:
    plain, plain_coverage = found[PLAIN]
    num_users = len(plain["ndcg@10"])
    title = f"Quality on {num_users} users' held-out items, mean of {num_runs} trainings; differences from {PLAIN}"
    part = Part(title, HEADER)
    for name, (values, coverage) in found.items():
        cost, low, high = paired_bootstrap(values["ndcg@10"], plain["ndcg@10"])
        changed = "" if values is plain else f"{cost:+.4f} [{low:+.4f}, {high:+.4f}]"
        part.rows.append(
            (
                name, f"{values['ndcg@10'].mean():.4f}", changed, f"{values['recall@10'].mean():.4f}",
                *(_difference(values[key], plain[key]) for key in ("tags", "vectors", "categories", "mix", "novelty")),
                f"{coverage:.3f}" if values is plain else f"{coverage:.3f} ({coverage - plain_coverage:+.3f})",
            )
        )  # fmt: skip
        part.figures[name] = {key: _interval(values[key], plain[key]) for key in values} | {
            "coverage": coverage
        }
    defaults = paired_bootstrap(plain["ndcg@10"], found["the defaults"][0]["ndcg@10"])
    part.target("the defaults' cost in NDCG@10", defaults[0], MOST_COST, "lower")
    part.notes.append(
        "Unlike: 1 - the mean similarity of a list's pairs, by shared tags and by the item tower's vectors. Mix: the "
        "Kullback-Leibler divergence of the list's tags from the history's, smaller is nearer. Novelty: mean of -log2 of the "
        "share of users who took the item. In brackets the 95% interval of the difference, elsewhere the difference, with * "
        "where its interval is on one side of 0. Fatigue and frequency caps need impressions, which this data lacks."
    )
    return part


def _difference(values: Float64, plain: Float64) -> str:
    if values is plain:
        return f"{values.mean():.3f}"
    mean, low, high = paired_bootstrap(values, plain)
    return f"{values.mean():.3f} ({mean:+.3f}{'*' if low > 0 or high < 0 else ''})"


def _interval(values: Float64, plain: Float64) -> dict[str, float]:
    mean, low, high = paired_bootstrap(values, plain)
    return {"mean": float(values.mean()), "difference": mean, "low": low, "high": high}
