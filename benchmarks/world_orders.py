"""What orders of candidates are worth in the demo's world, exactly: `python benchmarks/world_orders.py HOME RECIPE…`.

HOME has been trained and published (`tastemaker demo`, or by hand); RECIPE names published ones. Visitors come as the demo's do, with a
history and without a record. Each list is scored by the world's expected clicks and by what the visitors' models really took
next: the next five, which trainings predict, and all that came later. Then the first recipe's ranker, its
features and candidates as they are, learns from simulated clicks of other visitors instead: what is lost there is no fault of
features or serving. Much of what visitors take later the sources have learned from; with --held-out requests are those of the
offline table instead, of which no model has seen what comes. No server runs. Writes benchmarks/out/world-orders.json.

Shape letters: N candidates of a batch, K of a request, I catalogue.
"""

import argparse
import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import circumstances, save, table
from torch.nn.functional import binary_cross_entropy_with_logits

from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.config import Settings
from tastemaker.data.schema import Dataset, read_dataset
from tastemaker.data.splits import leave_last
from tastemaker.data.world import EXAMINATION, World
from tastemaker.evaluation import metrics
from tastemaker.features.ranking_batch import Bag
from tastemaker.home import Home
from tastemaker.models.dlrm import Dlrm
from tastemaker.models.log import each_once
from tastemaker.models.tables import jagged
from tastemaker.stages.loading import BundleParts
from tastemaker.stages.pipeline_config import ALL_PARTS
from tastemaker.stages.ranking import candidate_bags
from tastemaker.types import Candidates, Float32, Int32, Query

K, HISTORY, AT_ONCE = 10, 100, 64
SHOWN_FROM = 60
"""Lists of the visitors whose clicks teach are drawn from retrieval's best."""
EPOCHS, PER_BATCH = 4, 16


@dataclass(frozen=True)
class Request:
    """One request of a visitor, and what its model took afterwards, oldest first."""

    visitor: str
    query: Query
    later: Int32


class Town:
    """A world with its visitors' requests, as queries over the rows of the dataset."""

    def __init__(self, dataset: Dataset) -> None:
        self.ids, self.world = dataset.item_ids, World(dataset, 0)
        self._dataset = dataset
        self.counts_I = np.bincount(dataset.item_index, minlength=dataset.num_items)
        self._row = {item_id: row for row, item_id in enumerate(dataset.item_ids)}

    def requests(self, visitors: int, seed: int) -> list[Request]:
        """Of new visitors, those of each in order."""
        found = self.world.visitors(visitors, seed, f"world-{seed}")
        return [self._request(one.visitor_id, session) for one in found for session in one.sessions]

    def held_out(self) -> list[Request]:
        """One for each user with held-out items, before the first of them."""
        split = leave_last(self._dataset, 5, 5)
        found = []
        for user in np.flatnonzero(split.test.lengths > 0).tolist():
            history_L = each_once(split.train_validation[user])
            query = Query(history_L[-HISTORY:], k=K, exclude=history_L[:-HISTORY], visit_L=history_L)
            self.world._clones[name := f"held-out-{user}"] = user, 0
            found.append(Request(name, query, split.test[user]))
        return found

    def utility(self, request: Request, rows: Int32) -> np.ndarray:
        """(K,) how much the visitor likes items: the logit of a click in the first slot."""
        user, _ = self.world._clones[request.visitor]
        return self.world._offset + self.world._utility(user, rows.astype(np.int64))

    def clicks(self, request: Request, rows: Int32) -> float:
        """Expected clicks on a list of ten."""
        return self.world.expected(request.visitor, [self.ids[row] for row in rows[:K]])

    def _request(self, visitor: str, session: Sequence[str]) -> Request:
        user, _ = self.world._clones[visitor]
        seen_L = np.array([self._row[item_id] for item_id in session], np.int32)
        taken = self.world._histories[user]
        windows = (end for end in range(len(seen_L), len(taken) + 1))
        end = next(end for end in windows if np.array_equal(taken[end - len(seen_L) : end], seen_L))
        history_L = each_once(seen_L)
        query = Query(history_L[-HISTORY:], k=K, exclude=history_L[:-HISTORY], visit_L=history_L)
        return Request(visitor, query, taken[end:])


def scored(town: Town, requests: Sequence[Request], lists: Sequence[Int32]) -> dict[str, float]:
    """Means over requests of what lists are worth."""
    found: dict[str, list[float]] = {
        "clicks": [],
        "ndcg@10, next five": [],
        "ndcg@10, all later": [],
        "log count": [],
    }
    for request, rows in zip(requests, lists, strict=True):
        found["clicks"].append(town.clicks(request, rows))
        found["log count"].append(float(np.log1p(town.counts_I[rows[:K]]).mean()))
        for name, later in (("ndcg@10, next five", request.later[:5]), ("ndcg@10, all later", request.later)):
            wanted = [np.unique(later)]
            hits = metrics.relevance(rows[None, :K], wanted)
            found[name].append(float(metrics.ndcg(hits, metrics.ideal_grades(wanted), K)[0]))
    return {name: float(np.nanmean(values)) for name, values in found.items()}


class Ranked:
    """One bundle's candidates for some requests, and its orders of them."""

    def __init__(self, bundle: Bundle, requests: Sequence[Request]) -> None:
        self.parts = BundleParts(bundle)
        self.pipeline = self.parts.pipeline(ALL_PARTS)
        self.queries = [request.query for request in requests]
        self.retrieved: list[Candidates] = []
        for start in range(0, len(self.queries), AT_ONCE):
            self.retrieved += self.pipeline.retrieve(self.queries[start : start + AT_ONCE])

    def orders(self) -> dict[str, list[Int32]]:
        """Lists by what ordered them."""
        ranked = self.pipeline.rank(self.queries, self.retrieved)
        whole = self.pipeline.rerank(self.queries, ranked)
        found = {"retrieval": self.retrieved, "ranker": ranked, "ranker, reranked": whole}
        return {name: self._finished(candidates) for name, candidates in found.items()}

    def by_source(self) -> dict[str, list[Int32]]:
        """The same candidates by what each source says of them."""
        found = {}
        for column, name in enumerate(self.pipeline.source_names):
            score = [np.nan_to_num(one.source_score_KS[:, column], nan=-np.inf) for one in self.retrieved]
            found[f"source {name}"] = [
                one.item_index[np.argsort(-s, kind="stable")]
                for one, s in zip(self.retrieved, score, strict=True)
            ]
        return found

    def features(self) -> list[tuple[Float32, dict[str, Bag]]]:
        """What the ranker reads of each request's candidates."""
        hydrated = self.parts.hydration()(self.queries, self.retrieved)
        items, config = self.parts._models.items, self.pipeline.config.ranking
        bags = [
            candidate_bags(items, query, one, config)
            for query, one in zip(self.queries, hydrated, strict=True)
        ]
        return [
            (one.features_KF, own)
            for one, own in zip(hydrated, bags, strict=True)
            if one.features_KF is not None
        ]

    def _finished(self, candidates: Sequence[Candidates]) -> list[Int32]:
        return [one.item_index for one in self.pipeline.finish(self.queries, candidates)]


def taught_by_clicks(town: Town, bundle: Bundle, teachers: Sequence[Request], seed: int) -> Dlrm:
    """The bundle's ranker, gone on with clicks of visitors who were shown ten of retrieval's best, in any order."""
    draws = np.random.default_rng(seed)
    told = Ranked(bundle, teachers)
    examples: list[tuple[Float32, Float32, dict[str, Bag]]] = []
    for request, found, (dense_KF, bags) in zip(teachers, told.retrieved, told.features(), strict=True):
        best = min(SHOWN_FROM, len(found))
        shown = draws.permutation(best)[:K]
        chance = 1 / (1 + np.exp(-town.utility(request, found.item_index[shown])))
        clicked = draws.random(len(shown)) < chance * EXAMINATION ** np.arange(len(shown))
        order = np.argsort(shown)
        keep_K = np.isin(np.arange(len(found)), shown)
        own = {name: bag.kept(keep_K) for name, bag in bags.items()}
        examples.append((dense_KF[keep_K], clicked[order].astype(np.float32), own))
    model: Dlrm = copy.deepcopy(bundle.model("ranker", Dlrm)).requires_grad_(True).train()
    model.set_normalisation(np.concatenate([dense_KF for dense_KF, _, _ in examples]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003, weight_decay=0.01)
    torch.manual_seed(seed)
    for _ in range(EPOCHS * len(examples) // PER_BATCH):
        batch = [examples[g] for g in draws.permutation(len(examples))[:PER_BATCH]]
        dense_NF, label_N = (torch.from_numpy(np.concatenate([one[n] for one in batch])) for n in (0, 1))
        bags = {name: Bag.concat([one[2][name] for one in batch]) for name in batch[0][2]}
        loss = binary_cross_entropy_with_logits(model(dense_NF, jagged(bags))[:, 0], label_N)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def ordered_by(model: Dlrm, told: Ranked) -> list[Int32]:
    """The candidates by a ranker's logits."""
    lists = []
    with torch.inference_mode():
        for found, (dense_KF, bags) in zip(told.retrieved, told.features(), strict=True):
            logit_K = model(torch.from_numpy(dense_KF), jagged(bags))[:, 0].numpy()
            lists.append(found.item_index[np.argsort(-logit_K, kind="stable")])
    return lists


def unpersonalised(town: Town, requests: Sequence[Request]) -> dict[str, list[Int32]]:
    """What is popular, and what the visitors like best: neither is in their history."""
    popular = np.argsort(-town.counts_I, kind="stable").astype(np.int32)
    everything = np.arange(len(town.ids), dtype=np.int32)
    best = [np.argsort(-town.utility(one, everything)).astype(np.int32) for one in requests]
    unseen = [popular[~np.isin(popular, one.query.history_L)] for one in requests]
    liked = [rows[~np.isin(rows, one.query.history_L)] for one, rows in zip(requests, best, strict=True)]
    return {"most popular": unseen, "best possible": liked}


def opened(home: Home, settings: Settings, recipe: str) -> Bundle:
    """The newest bundle of a recipe."""
    store, found = BundleStore.of(settings, home), []
    for path in (home / "bundles" / "manifests" / settings.catalogue).glob("*.json"):
        if json.loads(path.read_text())["recipe"] == recipe:
            found.append(path)
    newest = max(found, key=lambda path: path.stat().st_mtime)
    return Bundle.open(store, f"manifests/{settings.catalogue}/{newest.name}")


def measure(
    town: Town,
    bundles: dict[str, Bundle],
    requests: Sequence[Request],
    teachers: Sequence[Request],
    seed: int,
) -> dict[str, dict[str, float]]:
    """What each order is worth to who asks; `teachers` are others, whose clicks a ranker learns from."""
    lists = unpersonalised(town, requests)
    for recipe, bundle in bundles.items():
        told = Ranked(bundle, requests)
        lists |= {f"{recipe}: {name}": found for name, found in told.orders().items()}
        if len(lists) == 5:
            lists |= told.by_source()
            taught = taught_by_clicks(town, bundle, teachers, seed)
            lists[f"{recipe}: ranker, taught by clicks"] = ordered_by(taught, told)
    return {name: scored(town, requests, found) for name, found in lists.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("home", type=Path)
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--visitors", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    parser.add_argument("--held-out", action="store_true", help="requests of the offline table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    home = Home.open(options.home)
    settings = Settings(home=home.root)
    town = Town(read_dataset(home, settings.catalogue))
    bundles = {recipe: opened(home, settings, recipe) for recipe in options.recipes}
    runs = []
    for seed in options.seeds:
        requests = town.held_out() if options.held_out else town.requests(options.visitors, seed)
        teachers = town.requests(options.visitors, seed + 1000)
        runs.append(measure(town, bundles, requests, teachers, seed))
    rows: dict[str, dict[str, Any]] = {
        name: {metric: float(np.mean([run[name][metric] for run in runs])) for metric in runs[0][name]}
        for name in runs[0]
    }
    result = circumstances() | {
        "held_out": options.held_out,
        "visitors": options.visitors,
        "seeds": options.seeds,
        "rows": rows,
        "runs": runs,
    }
    save("world-orders", result)
    header = ("order", *next(iter(rows.values())))
    print(
        "\n".join(table(header, [(name, *(f"{v:.4f}" for v in row.values())) for name, row in rows.items()]))
    )


if __name__ == "__main__":
    main()
