"""The plan of docs/scaling.md: what it assumes, and each of its numbers as a formula over what stands before it.

A formula is a Python expression, shown in the page as it is evaluated. Bytes are decimal: 1 GB is 10^9.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

GPUS = (8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Assumption:
    """A number that the plan starts from."""

    name: str
    value: float
    text: str


@dataclass(frozen=True)
class Quantity:
    """A number that the plan gives. `unit` is bytes, seconds, dollars, per second, flag or nothing."""

    name: str
    formula: str
    unit: str
    text: str


ASSUMPTIONS = {
    "workload": (
        Assumption("users", 1e9, "rows of the user table"),
        Assumption("items", 1e8, "rows of the item table, read by the item and by the history"),
        Assumption("dim", 128, "columns of both tables"),
        Assumption("events_per_day", 1e10, "each is one example"),
        Assumption("history", 50, "items of a user's history in an example"),
        Assumption("features", 3, "bags of an example: user, history, item"),
        Assumption("tower_parameters", 1e6, "dense parameters of both towers"),
        Assumption("batch", 8192, "examples of a rank's step"),
        Assumption("negatives", 512, "sampled items that each rank adds to a step"),
        Assumption("column_shards", 8, "parts of a column_wise table: dim / sharding.column_width"),
        Assumption("window_hours", 4, "in which a day's events must be learned"),
    ),
    "machines": (
        Assumption("gpu_bytes", 80e9, "memory of a GPU"),
        Assumption("usable", 0.85, "share of it for tables; the rest holds activations and buffers"),
        Assumption("gpus_per_node", 8, "joined by NVLink"),
        Assumption("memory_rate", 1.7e12, "bytes/s of a GPU's memory: half of 3.35e12"),
        Assumption("flop_rate", 1.4e14, "FLOP/s of a GPU in bf16: 35% of 4e14"),
        Assumption("nvlink_rate", 3.1e11, "bytes/s a GPU sends within a node: 70% of 4.5e11"),
        Assumption("network_rate", 3.5e10, "bytes/s a GPU sends between nodes: 70% of 400 Gb/s"),
        Assumption("host_copy_rate", 2.5e10, "bytes/s a GPU copies to its host's memory"),
        Assumption("storage_rate", 2e9, "bytes/s a node reads or writes of shared storage"),
        Assumption("hash_rate", 1.5e9, "bytes/s of SHA-256 on one core"),
        Assumption("input_rate", 3e5, "rows/s from Parquet to tensors on one core"),
        Assumption("cores_per_node", 96, "that read and decode"),
        Assumption("attained", 0.5, "share of the paper's speed that a run reaches"),
        Assumption("price_per_gpu_hour", 2.5, "dollars"),
        Assumption("index_bytes_per_replica", 3.2e10, "memory of a serving replica for its index"),
        Assumption("lists", 65536, "cells of an IVF-PQ index"),
        Assumption("code_bytes", 64, "of an item in it"),
    ),
}

QUANTITIES = {
    "load": (
        Quantity("events_per_second", "events_per_day / 86400", "per second", "arriving"),
        Quantity(
            "samples_needed", "events_per_day / (window_hours * 3600)", "per second", "learned in the window"
        ),
        Quantity("input_cores", "samples_needed / input_rate", "", "cores that read and decode for all ranks"),
    ),
    "tables": (
        Quantity("user_table", "users * (dim * 4 + 4)", "bytes", "fp32 rows and Adagrad's sum of each"),
        Quantity("item_table", "items * (dim * 4 + 4)", "bytes", "the same"),
        Quantity("tables_fp32", "user_table + item_table", "bytes", "both"),
        Quantity(
            "tables_fp16", "(users + items) * (dim * 2 + 4)", "bytes", "fp16 rows; the sums stay fp32"
        ),
        Quantity("accumulators", "(users + items) * 4", "bytes", "of it row-wise Adagrad's sums"),
        Quantity("plain_adagrad", "(users + items) * dim * 4", "bytes", "what Adagrad by element would take"),
        Quantity(
            "column_wise_fp16", "(users + items) * (dim * 2 + 4 * column_shards)", "bytes",
            "fp16 in columns: each shard has sums of its own",
        ),
    ),
    "example": (
        Quantity("bags", "batch + negatives", "", "bags of each feature in a rank's exchange"),
        Quantity("ids", "batch * (history + 2) + negatives", "", "ids that a rank looks up in a step"),
        Quantity("vectors", "bags * features * dim * 4", "bytes", "pooled fp32 vectors of a rank's step"),
        Quantity("id_bytes", "ids * 12", "bytes", "8 for the id, 4 for its weight"),
        Quantity("length_bytes", "bags * features * 8", "bytes", "lengths of the bags"),
        Quantity("lookup_bytes", "ids * dim * 4 * 3", "bytes", "rows read, read again and written"),
        Quantity(
            "flops", "6 * batch * (tower_parameters + bags * dim)", "", "towers and in-batch logits, both ways"
        ),
        Quantity("lookup_seconds", "lookup_bytes / memory_rate", "seconds", "bound by the GPU's memory"),
        Quantity("dense_seconds", "flops / flop_rate", "seconds", "bound by its arithmetic"),
    ),
    "index": (
        Quantity("flat_index", "items * dim * 4", "bytes", "exact; offered"),
        Quantity("hnsw_index", "items * (dim * 4 + 64 * 4 + 16)", "bytes", "32 links; offered"),
        Quantity(
            "ivfpq_index", "items * (code_bytes + 8) + (lists + 256) * dim * 4", "bytes",
            "codes, ids, centroids; not offered yet",
        ),
        Quantity("flat_shards", "ceil(flat_index / index_bytes_per_replica)", "", "replicas that hold one index"),
        Quantity("hnsw_shards", "ceil(hnsw_index / index_bytes_per_replica)", "", "the same"),
        Quantity("ivfpq_shards", "ceil(ivfpq_index / index_bytes_per_replica)", "", "the same"),
        Quantity("user_vectors", "users * dim * 2", "bytes", "all users' vectors in fp16, if kept online"),
    ),
}  # fmt: skip

PER_CLUSTER = {
    "memory": (
        Quantity("row_wise_fp32", "tables_fp32 / gpus", "bytes", "a GPU's part, row_wise"),
        Quantity("row_wise_fp16", "tables_fp16 / gpus", "bytes", "the same, fp16"),
        Quantity(
            "column_fp16", "column_wise_fp16 / min(gpus, 2 * column_shards)", "bytes",
            "the same, column_wise: two tables make no more shards than this",
        ),
        Quantity("fits_fp32", "row_wise_fp32 <= gpu_bytes * usable", "flag", "row_wise fp32 fits"),
        Quantity("fits_fp16", "row_wise_fp16 <= gpu_bytes * usable", "flag", "row_wise fp16 fits"),
        Quantity("fits_column", "column_fp16 <= gpu_bytes * usable", "flag", "column_wise fp16 fits"),
    ),
    "exchange": (
        Quantity(
            "row_wise_ids", "(gpus - 1) / gpus * id_bytes + (gpus - 1) * length_bytes", "bytes",
            "ids that a rank sends a step, row_wise",
        ),
        Quantity("row_wise_vectors", "2 * (gpus - 1) * vectors", "bytes", "vectors, forward and backward"),
        Quantity(
            "column_wise_ids", "(gpus - 1) / gpus * column_shards * (id_bytes + length_bytes)", "bytes",
            "ids, column_wise: every column shard needs them; mean of the ranks",
        ),
        Quantity(
            "column_wise_vectors", "2 * (gpus - 1) / gpus * vectors", "bytes",
            "vectors, forward and backward, mean of the ranks"
        ),
        Quantity(
            "column_wise_busiest", "(gpus - 1) * (id_bytes + length_bytes + 2 * vectors / column_shards)", "bytes",
            "what a rank with a shard of each table takes in and sends: the others wait for it",
        ),
        Quantity(
            "gradients", "2 * (gpus - 1) / gpus * tower_parameters * 4", "bytes", "dense gradients, all-reduced"
        ),
    ),
    "step": (
        Quantity(
            "link_rate", "nvlink_rate if gpus <= gpus_per_node else network_rate", "per second",
            "bytes/s that a rank sends",
        ),
        Quantity(
            "row_wise_network", "(row_wise_ids + row_wise_vectors + gradients) / link_rate", "seconds",
            "bound by the network, row_wise",
        ),
        Quantity(
            "column_wise_network", "(column_wise_busiest + gradients) / link_rate", "seconds", "the same, column_wise"
        ),
        Quantity(
            "step_row_wise", "(lookup_seconds + dense_seconds + row_wise_network) / attained", "seconds",
            "a step, nothing overlapped, row_wise",
        ),
        Quantity(
            "step_column_wise",
            "(lookup_seconds * gpus / column_shards + dense_seconds + column_wise_network) / attained",
            "seconds", "the same, column_wise: the shards' ranks do all lookups",
        ),
        Quantity("samples_row_wise", "gpus * batch / step_row_wise", "per second", "samples/s, row_wise"),
        Quantity("samples_column_wise", "gpus * batch / step_column_wise", "per second", "the same, column_wise"),
        Quantity(
            "input_limit", "gpus / gpus_per_node * cores_per_node * input_rate", "per second",
            "samples/s that the nodes' cores can read",
        ),
        Quantity("samples", "min(samples_row_wise, input_limit)", "per second", "what a row_wise run learns"),
        Quantity("enough", "samples >= samples_needed", "flag", "a day fits into the window"),
    ),
    "files": (
        Quantity("checkpoint_bytes", "tables_fp16 + 12 * tower_parameters", "bytes", "fp16 tables, sums, AdamW"),
        Quantity("nodes", "gpus / gpus_per_node", "", "nodes"),
        Quantity("pause", "checkpoint_bytes / gpus / host_copy_rate", "seconds", "training waits for the copy"),
        Quantity("staging", "checkpoint_bytes / nodes", "bytes", "host memory of a node for the copy"),
        Quantity(
            "save", "checkpoint_bytes / nodes / storage_rate + checkpoint_bytes / gpus / hash_rate", "seconds",
            "written beside the training, then hashed by each rank",
        ),
        Quantity(
            "restore", "checkpoint_bytes / nodes / storage_rate + checkpoint_bytes / gpus / hash_rate", "seconds",
            "hashed and read on start",
        ),
        Quantity("export_bytes", "(users + items) * dim * 2 + tower_parameters * 4", "bytes", "the bundle's rows"),
        Quantity("export", "export_bytes / nodes / storage_rate", "seconds", "streamed shard by shard"),
    ),
    "cost": (
        Quantity("learning", "events_per_day / samples", "seconds", "a day's events once"),
        Quantity("retrain", "restore + learning + save + export", "seconds", "a warm start to the bundle"),
        Quantity("cost", "gpus * retrain / 3600 * price_per_gpu_hour", "dollars", "of one retrain"),
    ),
}  # fmt: skip


def evaluate(changes: Mapping[str, float] | None = None, clusters: Sequence[int] = GPUS) -> dict[str, Any]:
    """Every assumption and quantity by name; quantities of a cluster as one value for each of `clusters`.

    Raises:
        KeyError: `changes` names what is no assumption.
    """
    found: dict[str, Any] = {a.name: a.value for group in ASSUMPTIONS.values() for a in group}
    if unknown := (changes or {}).keys() - found.keys():
        raise KeyError(f"{', '.join(sorted(unknown))} is no assumption; there are {', '.join(found)}")
    found = _evaluated(QUANTITIES, found | dict(changes or {}))
    sized = [_evaluated(PER_CLUSTER, found | {"gpus": gpus}) for gpus in clusters]
    return found | {name: [one[name] for one in sized] for name in sized[0].keys() - found.keys()}


def _evaluated(groups: Mapping[str, tuple[Quantity, ...]], known: dict[str, Any]) -> dict[str, Any]:
    for group in groups.values():
        for quantity in group:
            known = known | {quantity.name: formula(quantity.formula, known)}
    return known


def formula(expression: str, known: Mapping[str, float]) -> float:
    """What one of this repository's own expressions gives."""
    functions = {"ceil": math.ceil, "min": min, "max": max}
    return eval(expression, {"__builtins__": {}}, functions | dict(known))
