"""Tries kinds of index and their parameters on given vectors, and chooses. Not for where the vectors come from.

Shape letters: B queries, I catalogue, D dimension.
"""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tastemaker.index.building import efforts
from tastemaker.index.config import (
    FEWEST_CODED,
    RECALL_AT,
    IndexConfig,
    IndexKind,
    MeasuredIndex,
    QueryKind,
    default_codes,
    default_nlist,
)
from tastemaker.index.faiss_index import FaissIndex
from tastemaker.index.measuring import borders, measure
from tastemaker.types import Float32

KINDS: tuple[IndexKind, ...] = ("flat", "hnsw", "ivf-flat", "ivf-pq")
ENOUGH_RECALL = 0.998
"""Of a structure, at which no more effort is tried."""
NEAR = 1.1
"""Times the fastest median, within which less memory is preferred."""


class Trial(NamedTuple):
    """One index at one effort, and what it found and cost."""

    config: IndexConfig
    measured: MeasuredIndex


class Wanted(NamedTuple):
    """What an index has to reach."""

    recall: float
    p99_ms: float

    def met_by(self, trial: Trial) -> bool:
        """Whether it reaches both."""
        return trial.measured.recall >= self.recall and trial.measured.p99_ms <= self.p99_ms


def structures(num_items: int, dim: int, kinds: Sequence[IndexKind] = KINDS) -> list[IndexConfig]:
    """What is worth building for a catalogue, its efforts open.

    >>> found = structures(1_000_000, 64, ["ivf-pq", "flat"])
    >>> [(config.kind, config.nlist, config.codes) for config in found]
    [('ivf-pq', 1024, 16), ('ivf-pq', 1024, 32), ('ivf-pq', 2048, 16), ('ivf-pq', 2048, 32), ('flat', None, None)]
    """
    near = default_nlist(num_items)
    nlists = sorted({near, min(near * 2, num_items)})
    found: list[IndexConfig] = []
    for kind in kinds:
        if kind == "hnsw":
            found += [IndexConfig(kind=kind, links=links) for links in (16, 32)]
        elif kind == "ivf-flat":
            found += [IndexConfig(kind=kind, nlist=nlist) for nlist in nlists]
        elif kind == "ivf-pq" and num_items >= FEWEST_CODED:
            fine = {codes for codes in (default_codes(dim), dim // 4) if codes and dim % codes == 0}
            found += [
                IndexConfig(kind=kind, nlist=nlist, codes=codes) for nlist in nlists for codes in sorted(fine)
            ]
        elif kind == "flat":
            found.append(IndexConfig(kind="flat"))
    return [config.shaped(num_items, dim) for config in found]


def try_out(
    vectors_ID: Float32,
    queries_BD: Float32,
    queries: QueryKind,
    built: Sequence[IndexConfig],
    wanted: Wanted,
    done: Callable[[int], None] = lambda _: None,
) -> list[Trial]:
    """Builds each structure once and searches it at rising efforts, until it finds nearly all or is far too slow.

    Args:
        vectors_ID: Of the catalogue.
        queries_BD: What is searched for.
        queries: What those are.
        built: See `structures`.
        wanted: What has to be reached; a structure is given up at three times its latency.
        done: Told 1 after each structure.
    """
    border_B = borders(queries_BD, vectors_ID, min(RECALL_AT, len(vectors_ID)))
    trials: list[Trial] = []
    for config in built:
        began = time.perf_counter()
        index = FaissIndex.build(vectors_ID, config)
        seconds = time.perf_counter() - began
        trials += rising(index, queries_BD, queries, seconds, border_B, wanted)
        done(1)
    return trials


def rising(
    index: FaissIndex,
    queries_BD: Float32,
    queries: QueryKind,
    build_seconds: float,
    border_B: Float32,
    wanted: Wanted,
) -> list[Trial]:
    """Searches an index at rising efforts, until it finds nearly all or takes three times the latency that is wanted.

    Args:
        index: What is searched.
        queries_BD: What is searched for.
        queries: What those are.
        build_seconds: As it was when it was built.
        border_B: See `measuring.borders`, of as many results as are measured.
        wanted: What has to be reached.
    """
    trials: list[Trial] = []
    for effort in efforts(index.config):
        measured = measure(index.with_config(effort), queries_BD, queries, build_seconds, border_B)
        trials.append(Trial(effort, measured))
        if measured.recall >= ENOUGH_RECALL or measured.p50_ms > 3 * wanted.p99_ms:
            break
    return trials


def choose(trials: Sequence[Trial], wanted: Wanted) -> Trial | None:
    """Of those that reach recall and latency, the fastest by its median; among those nearly as fast, the smallest.

    None where no trial reaches both.
    """
    good = [trial for trial in trials if wanted.met_by(trial)]
    if not good:
        return None
    fastest = min(trial.measured.p50_ms for trial in good)
    near = [trial for trial in good if trial.measured.p50_ms <= NEAR * fastest]
    return min(near, key=lambda trial: (trial.measured.memory_bytes, trial.measured.p50_ms))


def nearest(trials: Sequence[Trial], wanted: Wanted) -> Trial:
    """What comes nearest where nothing reaches both: the fastest of the wanted recall, else the one that finds most."""
    good = [trial for trial in trials if trial.measured.recall >= wanted.recall]
    if good:
        return min(good, key=lambda trial: trial.measured.p99_ms)
    return max(trials, key=lambda trial: trial.measured.recall)


def described(config: IndexConfig) -> str:
    """A structure in a few words.

    >>> described(IndexConfig(kind="ivf-pq", nlist=1024, codes=16, nprobe=8, refine=4.0))
    'ivf-pq, 1024 lists, 16 codes'
    """
    words = {"nlist": "lists", "codes": "codes", "links": "links"}
    told = [f"{value} {word}" for key, word in words.items() if (value := getattr(config, key)) is not None]
    return ", ".join([config.kind, *told])


def effort_of(config: IndexConfig) -> str:
    """Its efforts in a few words.

    >>> effort_of(IndexConfig(kind="ivf-pq", nlist=1024, codes=16, nprobe=8, refine=4.0))
    'nprobe 8, refine 4'
    """
    names = ("nprobe", "refine", "beam")
    told = [f"{name} {value:g}" for name in names if (value := getattr(config, name)) is not None]
    return ", ".join(told) or "exact"
