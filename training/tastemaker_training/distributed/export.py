"""From the ranks into one safetensors file, shard by shard: no rank and no driver ever holds a whole table.

The file is laid out first; then every rank writes its rows where they belong. It must lie where all ranks can write.
Shape letters: R rows, D dimension.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch.distributed as dist
from torch import Tensor, nn

from tastemaker.bundle.tensor_file import TensorLayout
from tastemaker_training.distributed.sharded_tables import ShardedTables, chunks
from tastemaker_training.distributed.sharding import Distributed
from tastemaker_training.distributed.state import accumulators, local_parts


def export_model(
    path: Path, model: nn.Module, tables: ShardedTables, more: Mapping[str, np.ndarray] | None = None
) -> None:
    """Writes the state of the single-device model, under its names; its tables are at `model.tables`.

    Every rank must call it; once it returns the file is whole on all of them.

    Args:
        path: Of the file.
        model: Of this rank.
        tables: The model's.
        more: Arrays that stand beside the state.
    """
    dense = {name: value for name, value in model.state_dict().items() if not name.startswith("tables.")}
    arrays = {name: value.detach().cpu().numpy() for name, value in dense.items()} | dict(more or {})
    shapes = {name: (array.dtype, array.shape) for name, array in arrays.items()}
    for spec in tables.specs:
        kind = np.dtype("float16" if tables.types[spec.name] == "fp16" else "float32")
        shapes[_weight(spec.name)] = (kind, (spec.num_rows, spec.dim))
    layout = TensorLayout(shapes)
    first = dist.get_rank() == 0
    parts = [
        (_weight(shard.table), shard.row, shard.column, shard.rows_RD)
        for shard in tables.shards()
        if first or not shard.replicated
    ]
    _write(path, layout, arrays, parts)


def export_accumulators(path: Path, distributed: Distributed) -> None:
    """Writes the tables' row-wise Adagrad sums (R,), under the tables' names: what a warm start goes on from.

    Those of a column-wise table are left out: each of its column shards has its own.
    """
    rows = {spec.name: spec.num_rows for spec in distributed.tables.specs}
    found = [(table, value) for table, blocks, value in accumulators(distributed) if blocks == 1]
    layout = TensorLayout({table: (np.dtype("float32"), (rows[table],)) for table, _ in found})
    parts = [
        (table, start, 0, part.view(-1, 1))
        for table, value in found
        if hasattr(value, "local_shards") or dist.get_rank() == 0
        for start, part in local_parts(value)
    ]
    _write(path, layout, {}, parts)


def _weight(table: str) -> str:
    return f"tables.embedding_bags.{table}.weight"


def _write(
    path: Path,
    layout: TensorLayout,
    arrays: Mapping[str, np.ndarray],
    parts: list[tuple[str, int, int, Tensor]],
) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    if dist.get_rank() == 0:
        with temporary.open("wb") as file:
            file.write(layout.head)
            file.truncate(layout.size)
            for name, array in arrays.items():
                file.seek(layout.offset(name))
                file.write(np.ascontiguousarray(array).tobytes())
    dist.barrier()
    with temporary.open("r+b") as file:
        for name, row, column, rows_RD in parts:
            for start, stop in chunks(len(rows_RD)):
                _write_rows(file.fileno(), layout, name, row + start, column, rows_RD[start:stop])
        file.flush()
        os.fsync(file.fileno())
    dist.barrier()
    if dist.get_rank() == 0:
        temporary.replace(path)
    dist.barrier()


def _write_rows(file: int, layout: TensorLayout, name: str, row: int, column: int, rows_RD: Tensor) -> None:
    values = np.ascontiguousarray(rows_RD.detach().cpu().numpy())
    if values.shape[1] == layout.width(name):
        os.pwrite(file, values.data, layout.offset(name, row))
        return
    for number, part in enumerate(values, row):
        os.pwrite(file, part.data, layout.offset(name, number, column))
