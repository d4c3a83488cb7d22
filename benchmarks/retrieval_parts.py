"""Times of each source of candidates, and of the whole stage, for one request after the other on one thread."""

import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

import numpy as np
from retrieval_catalogue import DIM, HISTORY, NEIGHBOURS, RECALL, Catalogue, Contender, make_catalogue
from turns import Effort, Part

from tastemaker.config_serving import ServingSettings
from tastemaker.index.config import RECALL_AT
from tastemaker.index.library import faiss
from tastemaker.stages.asking import Asking, InTurn, SideBySide
from tastemaker.stages.merging import SourceConfig
from tastemaker.stages.retrieval import Retrieval, RetrievalConfig
from tastemaker.stages.source import top_allowed
from tastemaker.types import Query

NUM_ITEMS, NUM_QUERIES = 1_000_000, 1000
QUOTA, WARM, AGAINST_ALL = 150, 20, 30
STAGE: Final = ("two_tower", "als", "knn", "popular", "trending")
SERVED_SECONDS: Final = ServingSettings().source_ms / 1000
LIMIT_MS: Final = 10.0
EXACT: Final = ("knn", "popular", "trending")
APPROXIMATE: Final = ("two_tower", "als")


@cache
def made(effort: Effort) -> Catalogue:
    """Once for both parts."""
    faiss.omp_set_num_threads(1)
    return make_catalogue(NUM_ITEMS // effort.divide, WARM + NUM_QUERIES // effort.divide)


def sources(effort: Effort) -> Part:
    """Each source beside the whole catalogue's scores."""
    here = made(effort)
    part = Part(
        f"Sources over {NUM_ITEMS // effort.divide:,} items of {DIM} numbers",
        ("source", "before p50 / p99 ms", "its processor", "after p50 / p99 ms", "its processor", "agrees"),
    )
    found = {name: measure(contender, here.queries) for name, contender in here.contenders.items()}
    for name, one in found.items():
        part.rows.append((name, *_times(one["before"]), *_times(one["after"]), f"{one['agrees_ratio']:.3f}"))
    exact, near = (min(found[name]["agrees_ratio"] for name in names) for names in (EXACT, APPROXIMATE))
    part.target("what lists and neighbours agree with the whole catalogue", exact, 1.0, "higher")
    part.target("what the indexes agree with the whole catalogue", near, RECALL, "higher")
    part.notes = [
        f"Before: every item is scored and the best are picked, as the definition of a source says. After: as it serves. Histories of "
        f"{HISTORY}, {NEIGHBOURS} neighbours an item, quota {QUOTA}."
    ]
    part.figures = found
    return part


def stage(effort: Effort) -> Part:
    """The whole stage with its five sources: 500 candidates of a request, each scored by all."""
    here = made(effort)
    part = Part("The stage with five sources, 500 candidates", ("sources", "p50 / p99 ms", "its processor"))
    ways = {"in turn": InTurn(), "as served": SideBySide(SERVED_SECONDS, lambda *_: None)}
    for name, asking in ways.items():
        times = timed(_stage(here, asking, NUM_ITEMS // effort.divide), here.queries)
        part.rows.append((name, *_times(times)))
        part.target(f"retrieval of five sources {name}, p99 ms", times["p99_ms"], LIMIT_MS, "lower")
        part.target(f"its processor's time {name}, p99 ms", times["cpu_p99_ms"], LIMIT_MS, "lower")
        part.figures[name] = times
    return part


def _stage(here: Catalogue, asking: Asking, num_items: int) -> Callable[[Query], object]:
    config = RetrievalConfig(
        sources=tuple(SourceConfig(name=name, quota=QUOTA) for name in STAGE), num_candidates=500
    )
    retrieval = Retrieval(
        {name: here.contenders[name].source for name in STAGE},
        config,
        np.zeros(num_items, np.float32),
        asking=asking,
    )
    return lambda query: retrieval([query])


def measure(contender: Contender, queries: Sequence[Query]) -> dict[str, Any]:
    """One source: its times and the whole catalogue's, and how many of the latter's first hundred are its own."""

    def before(query: Query) -> Any:
        return top_allowed(contender.score(query), query, QUOTA, contender.least)

    def after(query: Query) -> Any:
        asked = contender.source.ask([query])
        rows = asked.propose(QUOTA)[0][0]
        return rows, asked.score([rows[rows >= 0]])

    shares = []
    for query in queries[WARM : WARM + AGAINST_ALL]:
        expected = before(query)[0][:RECALL_AT]
        shares.append(len(np.intersect1d(expected, after(query)[0][:RECALL_AT])) / max(len(expected), 1))
    return {
        "before": timed(before, queries[: WARM + AGAINST_ALL]),
        "after": timed(after, queries),
        "agrees_ratio": float(np.mean(shares)),
    }


def timed(work: Callable[[Query], object], queries: Sequence[Query]) -> dict[str, float]:
    """Milliseconds of one query after the other, the first ones not counted: by the clock, and of the processor, which others leave alone."""
    taken = np.empty((len(queries), 2))
    for n, query in enumerate(queries):
        began, at_work = time.perf_counter(), time.process_time()
        work(query)
        taken[n] = time.perf_counter() - began, time.process_time() - at_work
    p50, p99 = 1000 * np.percentile(taken[WARM:], [50, 99], axis=0)
    return {"p50_ms": p50[0], "p99_ms": p99[0], "cpu_p50_ms": p50[1], "cpu_p99_ms": p99[1]}


def _times(ms: dict[str, float]) -> tuple[str, str]:
    by_clock, of_processor = (
        f"{ms[f'{kind}p50_ms']:.2f} / {ms[f'{kind}p99_ms']:.2f}" for kind in ("", "cpu_")
    )
    return by_clock, of_processor
