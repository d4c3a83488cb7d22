"""MMR and DPP beside plain loops, in turns of one run on one thread; and what the whole stage takes for a request.

The loops are what one would write with lists and numbers: MMR keeps each candidate's largest similarity so far, and DPP grows
one row of the Cholesky factor for each choice. They choose the same items in the same order, which is asserted.
"""

import math
import time
from collections.abc import Callable

import numpy as np
from turns import Effort, Measured, Part, column, ratios, shown, turns

from tastemaker.data.item_rows import Item, table_of
from tastemaker.features.traits import ItemTraits
from tastemaker.stages.rerankers.config import RerankingConfig
from tastemaker.stages.rerankers.dpp import dpp_order
from tastemaker.stages.rerankers.mmr import mmr_order
from tastemaker.stages.rerankers.seen import RerankingItems
from tastemaker.stages.reranking import Reranking
from tastemaker.types import Candidates, Query

CANDIDATES, DIM, PLACES = 500, 64, 50
WEIGHT = 0.7
ITEMS = 2000
NOW_MS = 1_750_000_000_000
EVERYTHING = {
    "freshness": {}, "long_tail": {}, "dedupe": {"by": ["title", "franchise"]}, "calibrated": {"by": "tags"},
    "exposure": {"floors": [{"match": {"max_interactions": 20}, "share": 0.1}]}, "spread": {}, "franchise_cap": {},
    "shuffle": {}, "sampling": {},
    "rules": [
        {"kind": "boost", "match": {"tags": ["t1"]}, "amount": 0.1, "when": {"hours": [18, 19, 20]}},
        {"kind": "boost", "match": {"max_age_days": 30}, "amount": 0.1},
        {"kind": "pin", "match": {"item_ids": ["i7"]}, "rank": 4},
    ],
}  # fmt: skip
"""Every stage beside the defaults."""


def plain_mmr(relevance: list[float], vectors: list[list[float]], weight: float, places: int) -> list[int]:
    chosen, left = [0], list(range(1, len(relevance)))
    nearest = [-math.inf] * len(relevance)
    while left and len(chosen) < places:
        newest = vectors[chosen[-1]]
        for i in left:
            similarity = sum(a * b for a, b in zip(vectors[i], newest, strict=True))
            nearest[i] = max(nearest[i], similarity)
        best = max(left, key=lambda i: weight * relevance[i] - (1 - weight) * nearest[i])
        chosen.append(best)
        left.remove(best)
    return chosen


def plain_dpp(relevance: list[float], vectors: list[list[float]], weight: float, places: int) -> list[int]:
    num = len(relevance)
    factor: list[list[float]] = [[] for _ in range(num)]
    volume = [1.0] * num
    chosen, left = [0], list(range(1, num))
    while len(chosen) < places:
        last = chosen[-1]
        for i in left:
            kernel = (1 + sum(a * b for a, b in zip(vectors[i], vectors[last], strict=True))) / 2
            before = sum(a * b for a, b in zip(factor[i], factor[last], strict=False))
            entry = (kernel - before) / math.sqrt(volume[last])
            factor[i].append(entry)
            volume[i] -= entry * entry
        best = max(left, key=lambda i: weight * relevance[i] + (1 - weight) * math.log(max(volume[i], 1e-30)))
        chosen.append(best)
        left.remove(best)
    return chosen


def timed(job: Callable[[], object], repeats: int) -> float:
    """Milliseconds of one call, the median of some."""
    took = []
    for _ in range(repeats):
        began = time.process_time()
        job()
        took.append(time.process_time() - began)
    return float(np.median(took)) * 1000


def measure_speed(effort: Effort) -> Part:
    luck = np.random.default_rng(0)
    vectors = luck.normal(size=(CANDIDATES, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    relevance = np.sort(luck.random(CANDIDATES))[::-1].astype(np.float32)
    lists = relevance.tolist(), vectors.tolist()
    pairs = {"MMR": (mmr_order, plain_mmr), "DPP": (dpp_order, plain_dpp)}
    rows, part_targets = [], {}
    part = Part(
        f"Speed over {CANDIDATES} x {DIM} to {PLACES}, one thread",
        ("job", "ours, ms", "plain loop, ms", "times"),
    )
    for name, (ours, plain) in pairs.items():
        found = ours(relevance, vectors, WEIGHT, 1, PLACES)[:PLACES].tolist()
        assert found == plain(*lists, WEIGHT, PLACES), f"{name} and its plain loop choose alike"
        jobs: dict[str, Callable[[], Measured]] = {
            "ours": lambda ours=ours: {"ms": timed(lambda: ours(relevance, vectors, WEIGHT, 1, PLACES), 50)},  # type: ignore[misc]
            "plain": lambda plain=plain: {"ms": timed(lambda: plain(*lists, WEIGHT, PLACES), 1)},  # type: ignore[misc]
        }
        measured = turns(effort.turns, jobs)
        mine, others = column(measured["ours"], "ms"), column(measured["plain"], "ms")
        times = ratios(others, mine)
        rows.append((name, shown(mine, 2), shown(others), shown(times, 0)))
        part_targets[name] = float(np.median(times))
    part.rows, part.num_turns = rows, effort.turns
    part.target("MMR over 500 x 64 to 50, times the plain loop", part_targets["MMR"], 50.0, "higher")
    part.figures["times"] = part_targets
    for name, config in {"the defaults": {}, "every stage": EVERYTHING}.items():
        stage, query, ranked = whole_stage(config)
        took = [timed(lambda: stage([query], [ranked]), 50) for _ in range(effort.turns)]  # noqa: B023 (called at once)
        part.rows.append(
            (f"a request's reranking of {CANDIDATES} candidates, {name}", shown(took, 2), "", "")
        )
        part.figures[name] = took
    return part


def whole_stage(config: dict[str, object]) -> tuple[Reranking, Query, Candidates]:
    """The stage over a made-up catalogue, and a request for it."""
    luck = np.random.default_rng(1)
    rows = [
        Item(
            item_id=f"i{i}", title=f"title {i % 1900}", category=f"c{i % 20}", tags=[f"t{i % 30}", f"t{i % 7}"],
            franchise=f"f{i % 400}" if i % 3 else None, created_at_ms=NOW_MS - i * 40_000_000,
        )
        for i in range(ITEMS)
    ]  # fmt: skip
    items = table_of([(item.item_id, item.encode()) for item in rows])
    traits = ItemTraits.from_items(items, luck.integers(0, 500, ITEMS).astype(np.float32))
    vectors = luck.normal(size=(ITEMS, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    known = RerankingItems(vectors, traits.category.code_I, traits)
    stage = Reranking(known, RerankingConfig.parse(config, "bench"), {f"i{i}": i for i in range(ITEMS)}.get)
    chosen = luck.choice(ITEMS, CANDIDATES, replace=False).astype(np.int32)
    score = np.sort(luck.beta(1, 20, CANDIDATES))[::-1].astype(np.float32)
    features = np.zeros((CANDIDATES, 50), np.float32)
    ranked = Candidates(chosen, score, np.ones(CANDIDATES, np.uint32), np.stack([score] * 4, 1), features)
    query = Query(luck.choice(ITEMS, 50).astype(np.int32), k=20, now_ms=NOW_MS, explore=True, seed=7)
    return stage, query, ranked
