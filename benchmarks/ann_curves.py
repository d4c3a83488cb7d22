"""Curves of recall against time and memory, of every structure worth building for a number of vectors."""

import time
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Final, Literal, NamedTuple

from ann_vectors import DIM, hard, trained
from turns import Effort, Part

from tastemaker.index.config import RECALL_AT, IndexConfig, MeasuredIndex
from tastemaker.index.faiss_index import FaissIndex
from tastemaker.index.measuring import IndexQueries, borders, measure
from tastemaker.index.tuning import Trial, Wanted, choose, described, effort_of, nearest, rising, structures
from tastemaker.index.tuning_page import COLUMNS, row

Which = Literal["trained", "hard"]
WANTED: Final = Wanted(recall=0.95, p99_ms=3.0)
NUM_QUERIES: Final = 300
"""Efforts and structures are chosen on so many, and reported on so many others."""
MILLION, TEN_MILLION = 1_000_000, 10_000_000
SIZES: Final = (10_000, 100_000, MILLION)
ABOUT: Final = {"trained": "vectors of a trained model", "hard": "unclustered vectors"}
MADE: Final = {"trained": trained, "hard": hard}


class Tried(NamedTuple):
    """An index at one effort, with what it found for the queries that it is chosen by, and for those that are reported."""

    chosen_by: Trial
    reported: Trial


class Case(NamedTuple):
    """Vectors of one kind and number, and all that was tried on them."""

    which: Which
    num_items: int
    tried: Sequence[Tried]

    @property
    def name(self) -> str:
        return f"{ABOUT[self.which]}, {self.num_items:,} items"

    @property
    def chosen(self) -> Trial:
        """The best, or what comes nearest where none reaches what is wanted; as reported."""
        return _best(self.tried)


def on_trained(effort: Effort) -> Part:
    return _curves("trained", SIZES, effort)


def on_hard(effort: Effort) -> Part:
    return _curves("hard", SIZES, effort)


def on_ten_million_trained(effort: Effort) -> Part:
    return _curves("trained", (TEN_MILLION,), effort)


def on_ten_million_hard(effort: Effort) -> Part:
    return _curves("hard", (TEN_MILLION,), effort)


def _curves(which: Which, sizes: Sequence[int], effort: Effort) -> Part:
    most = f"{'up to ' if len(sizes) > 1 else ''}{sizes[-1] // effort.divide:,}"
    part = Part(f"Recall, time and memory on {most} {ABOUT[which]}, {DIM} numbers each", ("items", *COLUMNS))
    part.notes = [
        "The fastest effort of each structure that finds 95%, or else the one that finds most: chosen by half of the queries, its figures are of the other "
        f"half ({NUM_QUERIES} each). All efforts are in "
        "`benchmarks/out/ann.json` and, as curves, in `benchmarks/out/ann.html`.",
        " ".join(str(MADE[which].__doc__).split()),
    ]
    for size in sizes:
        case = _tried(which, size // effort.divide, worth_building(size, size // effort.divide))
        _add(part, case)
        if size == MILLION:
            name, measured = f"{which} vectors, {case.num_items:,} items", case.chosen.measured
            part.target(f"{name}: recall@100", measured.recall, WANTED.recall, "higher")
            part.target(f"{name}: p99 of one search, ms", measured.p99_ms, WANTED.p99_ms, "lower")
            part.target(f"{name}: the same by the clock", measured.wall_p99_ms, WANTED.p99_ms, "lower")
        if size == TEN_MILLION:
            part.notes.append(
                "Of as many vectors no graph is built, nor anything with twice the usual number of lists."
            )
    return part


def worth_building(size: int, num_items: int) -> list[IndexConfig]:
    """All structures for few items; for many, those that can be built within the time.

    Args:
        size: Decides which.
        num_items: What is built; less than `size` in a quick run.
    """
    found = structures(num_items, DIM)
    largest = max(config.nlist or 0 for config in found)
    if size >= MILLION:
        found = [config for config in found if config.links != 16]
        found = [config for config in found if config.nlist != largest or config.codes == DIM // 2]
    if size >= TEN_MILLION:
        found = [config for config in found if config.kind != "hnsw" and config.nlist != largest]
    return found


def _tried(which: Which, num_items: int, configs: Sequence[IndexConfig]) -> Case:
    """All efforts of all structures, one structure after the other."""
    vectors, began = MADE[which](num_items, 2 * NUM_QUERIES), time.monotonic()
    halves = [IndexQueries(vectors.query_UD, vectors.queries).half(number) for number in (0, 1)]
    border_B = [borders(half.vectors_BD, vectors.item_ID, min(RECALL_AT, num_items)) for half in halves]
    found: list[Tried] = []
    for config in configs:
        started = time.perf_counter()
        index = FaissIndex.build(vectors.item_ID, config)
        seconds = time.perf_counter() - started
        for trial in rising(index, *halves[0], seconds, border_B[0], WANTED):
            other = measure(index.with_config(trial.config), *halves[1], seconds, border_B[1])
            found.append(Tried(trial, Trial(trial.config, other)))
        print(f"  {which} {num_items:,}: {described(config)}, {time.monotonic() - began:.0f} s", flush=True)
    return Case(which, num_items, found)


def _add(part: Part, case: Case) -> None:
    for _, curve in groupby(case.tried, key=lambda tried: described(tried.reported.config)):
        part.rows.append((f"{case.num_items:,}", *row(_best(list(curve)))))
    config = case.chosen.config
    part.notes.append(f"Chosen at {case.num_items:,} items: {described(config)}; {effort_of(config)}.")
    part.figures[f"{case.num_items}"] = [
        {
            "config": tried.reported.config.model_dump(exclude_none=True),
            "measured": tried.reported.measured.model_dump(),
            "chosen_by": tried.chosen_by.measured.model_dump(),
        }
        for tried in case.tried
    ]


def _best(tried: Sequence[Tried]) -> Trial:
    by = [one.chosen_by for one in tried]
    best = choose(by, WANTED) or nearest(by, WANTED)
    return next(one.reported for one in tried if one.chosen_by is best)


def groups(results: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Sequence[Trial]], list[Trial]]:
    """Trials of parts' results by what they were tried on, and what is chosen of each."""
    cases = [
        Case(
            "hard" if part.startswith("hard") else "trained", int(number), [_read(trial) for trial in trials]
        )
        for part, result in results.items()
        for number, trials in result["figures"].items()
    ]
    return {case.name: [tried.reported for tried in case.tried] for case in cases}, [
        case.chosen for case in cases
    ]


def _read(found: Mapping[str, Any]) -> Tried:
    """Results of earlier releases were chosen by the queries that they report."""
    config = IndexConfig(**found["config"])
    by, reported = (MeasuredIndex(**found.get(key, found["measured"])) for key in ("chosen_by", "measured"))
    return Tried(Trial(config, by), Trial(config, reported))
