"""Counts of a small run that the plan's formulas are held against: what two ranks hold, send and write; FAISS indexes."""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from training_ranks import answer, run
from turns import Measured

SMALL_RANKS = 2
SMALL = {
    "users": 60_000, "items": 40_000, "dim": 32, "history": 10, "features": 3, "batch": 1024, "negatives": 64,
    "column_shards": 2, "tower_parameters": 1, "lists": 64, "code_bytes": 16,
}  # fmt: skip
"""The plan's assumptions at this size; the model is tables alone with one dense parameter."""
Count = tuple[str, str, float]


def counts() -> list[Count]:
    """Name, the formula that should give it, and the bytes that were counted."""
    rows, halves, columns = (
        _ranks("row_wise", "fp32"), _ranks("row_wise", "fp16"), _ranks("column_wise", "fp16")
    )  # fmt: skip
    return [
        ("tables and sums, fp32", "tables_fp32", rows["held"]),
        ("tables and sums, fp16", "tables_fp16", halves["held"]),
        ("tables and sums, fp16, column_wise", "column_wise_fp16", columns["held"]),
        ("a rank's exchange, row_wise", "row_wise_ids + row_wise_vectors", halves["sent"]),
        ("a rank's exchange, column_wise", "column_wise_ids + column_wise_vectors", columns["sent"]),
        ("a checkpoint", "checkpoint_bytes", halves["checkpoint"]),
        ("an export", "export_bytes", halves["export"]),
        *_indexes(),
    ]


def _ranks(placement: str, table_type: str) -> dict[str, float]:
    """What all ranks hold and write together, and what one of them sends in a step."""
    with tempfile.TemporaryDirectory() as folder:
        job = {"placement": placement, "table_type": table_type, "folder": folder}
        found = run("scaling_check.py", job, num_ranks=SMALL_RANKS)
    return {
        "held": sum(rank["held"] for rank in found),
        "sent": sum(rank["sent"] for rank in found) / SMALL_RANKS,
        "checkpoint": found[0]["checkpoint"],
        "export": found[0]["export"],
    }


def _indexes() -> list[Count]:
    import faiss

    items, dim, lists = SMALL["items"], SMALL["dim"], SMALL["lists"]
    vectors_ID = np.random.default_rng(5).standard_normal((items, dim), np.float32)
    flat, hnsw = faiss.IndexFlatIP(dim), faiss.IndexHNSWFlat(dim, 32, faiss.METRIC_INNER_PRODUCT)
    ivfpq = faiss.IndexIVFPQ(faiss.IndexFlatL2(dim), dim, lists, SMALL["code_bytes"], 8)
    hnsw.hnsw.efConstruction = 16  # a poor graph is as large as a good one
    ivfpq.train(vectors_ID[: 256 * lists])
    found = []
    for name, index in (("flat", flat), ("hnsw", hnsw), ("ivfpq", ivfpq)):
        index.add(vectors_ID)
        found.append((f"an index, {name}", f"{name}_index", len(faiss.serialize_index(index))))
    return found


def measure(job: dict[str, Any]) -> Measured:
    """What this rank holds, sends in one step, and what all ranks write."""
    import torch
    from torch import nn

    from tastemaker.models.tables import TableSpec
    from tastemaker_training.distributed.checkpoint_files import Position
    from tastemaker_training.distributed.checkpoints import Checkpoints
    from tastemaker_training.distributed.export import export_model
    from tastemaker_training.distributed.sharded_tables import ShardedTables, initial_rows
    from tastemaker_training.distributed.sharding import distribute
    from tastemaker_training.distributed.state import accumulators, local_parts
    from tastemaker_training.plan.fit_config import CheckpointConfig, OptimizerConfig, ShardingConfig

    class Sum(nn.Module):
        """The least that has a loss: tables alone, and a dense parameter since DDP wants one."""

        def __init__(self, tables: ShardedTables) -> None:
            super().__init__()
            self.tables, self.scale = tables, nn.Parameter(torch.ones(()))

        def forward(self, bags: Any) -> Any:
            return self.scale * torch.cat(list(self.tables.lookup(bags).values())).square().mean()

    dim = SMALL["dim"]
    specs = [
        TableSpec(name="user", num_rows=SMALL["users"], dim=dim, features=("user_id",)),
        TableSpec(name="item", num_rows=SMALL["items"], dim=dim, features=("history", "item_id")),
    ]
    sharding = ShardingConfig(
        default=job["placement"], column_width=dim // SMALL["column_shards"], table_type=job["table_type"]
    )
    sharding = ShardingConfig(
        default=job["placement"], column_width=dim // SMALL["column_shards"], table_type=job["table_type"]
    )
    tables = ShardedTables(specs, sharding)
    model = Sum(tables)
    distributed = distribute(model, tables, sharding, OptimizerConfig(), initial_rows(0))
    with counted() as sent:
        distributed.step(distributed.module(_bags()))
    held = sum(shard.rows_RD.nbytes for shard in tables.shards())
    held += sum(part.nbytes for _, _, value in accumulators(distributed) for _, part in local_parts(value))
    folder = Path(job["folder"])
    checkpoints = Checkpoints(folder, CheckpointConfig(), {})
    checkpoints.save(distributed, Position())
    checkpoints.wait()
    export_model(folder / "model.safetensors", model, tables)
    written = sum(path.stat().st_size for path in folder.glob("*/*"))
    exported = (folder / "model.safetensors").stat().st_size
    return {"held": held, "sent": sum(sent.values()), "checkpoint": written, "export": exported}


def _bags() -> Any:
    import torch
    import torch.distributed as dist

    from tastemaker.models.tables import Jagged

    random = np.random.default_rng([3, dist.get_rank()])

    def bags(count: int, rows: int, length: int) -> Jagged:
        values = torch.from_numpy(random.integers(0, rows, count * length))
        return Jagged(values, torch.full((count,), length), torch.ones(count * length))

    batch, users, items = SMALL["batch"], SMALL["users"], SMALL["items"]
    return {
        "user_id": bags(batch, users, 1), "history": bags(batch, items, SMALL["history"]),
        "item_id": bags(batch + SMALL["negatives"], items, 1),
    }  # fmt: skip


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Bytes that this rank sends to others through TorchRec's collectives, of integers and weights apart from vectors."""
    import torch.distributed as dist

    sent: Counter[str] = Counter()
    ranks, me = dist.get_world_size(), dist.get_rank()
    plain = {
        name: getattr(dist, name)
        for name in ("all_to_all_single", "reduce_scatter_tensor", "all_gather_into_tensor")
    }

    def note(kind: str, size: float) -> None:
        sent[kind] += int(size)

    def all_to_all_single(output: Any, input: Any, *more: Any, **named: Any) -> Any:
        splits = named.get("input_split_sizes") or [len(input) / ranks] * ranks
        size = (len(input) - splits[me]) * input[:1].numel() * input.element_size()
        note("all_to_all", size)
        return plain["all_to_all_single"](output, input, *more, **named)

    def reduce_scatter_tensor(output: Any, input: Any, *more: Any, **named: Any) -> Any:
        note("reduce_scatter", input.nbytes - output.nbytes)
        return plain["reduce_scatter_tensor"](output, input, *more, **named)

    def all_gather_into_tensor(output: Any, input: Any, *more: Any, **named: Any) -> Any:
        note("all_gather", output.nbytes - input.nbytes)
        return plain["all_gather_into_tensor"](output, input, *more, **named)

    replaced: dict[str, Callable[..., Any]] = {
        "all_to_all_single": all_to_all_single, "reduce_scatter_tensor": reduce_scatter_tensor,
        "all_gather_into_tensor": all_gather_into_tensor,
    }  # fmt: skip
    for name, function in replaced.items():
        setattr(dist, name, function)
    try:
        yield sent
    finally:
        for name, function in plain.items():
            setattr(dist, name, function)


if __name__ == "__main__":
    answer(measure)
