"""Rows from Parquet: how fast they reach the step, and that training on more of them takes no more memory.

As a rank's script it reads the files of a job's folder, by a bare scan, as `RowStream`'s tables or as tensors, or
trains on them.
"""

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
from training_model import GLOBAL_BATCH, NUM_DENSE, NUM_TABLES, Batch, ids
from training_ranks import answer, forget_peak, peak_bytes, resident_bytes
from turns import Measured

from tastemaker.models.tables import Jagged
from tastemaker_training.rows.stream import RowStream, StreamConfig

NUM_ROWS = 100_000
"""Of each table."""
MEAN_HISTORY = 20
ROW_GROUP, ROWS_PER_FILE = 4_096, 131_072
LAYOUT = {"compression": "zstd", "use_dictionary": False, "write_page_checksum": True}
"""Row groups and layout are those of the product's example files."""
_DENSE = [f"dense_{f}" for f in range(NUM_DENSE)]
_SINGLE = [f"feature_{t}" for t in range(NUM_TABLES)]
COLUMNS = {
    "DLRM rows: 13 floats, 8 ids": [*_DENSE, *_SINGLE, "label"],
    "the same and a history of 20 ids": [*_DENSE, *_SINGLE, "label", "history"],
}


def write_rows(folder: Path, num_rows: int) -> None:
    """Seeded rows as Parquet files, made a file at a time."""
    folder.mkdir()
    for number, start in enumerate(range(0, num_rows, ROWS_PER_FILE)):
        random = np.random.default_rng([11, number])
        table = _rows(random, min(ROWS_PER_FILE, num_rows - start))
        pq.write_table(table, folder / f"{number:05d}.parquet", row_group_size=ROW_GROUP, **LAYOUT)


def _rows(random: np.random.Generator, count: int) -> pa.Table:
    lengths = random.integers(1, 2 * MEAN_HISTORY, count)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    columns: dict[str, Any] = {name: random.standard_normal(count, np.float32) for name in _DENSE}
    columns |= {name: ids(random, "zipf", NUM_ROWS, count).astype(np.int32) for name in _SINGLE}
    columns["label"] = (random.random(count) < 0.25).astype(np.float32)
    history = ids(random, "zipf", NUM_ROWS, int(offsets[-1])).astype(np.int32)
    columns["history"] = pa.ListArray.from_arrays(pa.array(offsets), pa.array(history))
    return pa.table(columns)


def measure(job: dict[str, Any]) -> Measured:
    files = sorted(Path(job["folder"]).glob("*.parquet"))
    if job["kind"] == "train":
        return _train(files)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    pa.set_cpu_count(1)
    columns = COLUMNS[job["rows"]]
    sources = {"scan": _scan, "stream": _stream, "tensors": _tensors}
    began, num_rows = time.perf_counter(), 0
    for count in sources[job["kind"]](files, columns):
        num_rows += count
    return {"rows_per_second": num_rows / (time.perf_counter() - began)}


def _scan(files: Iterable[Path], columns: list[str]) -> Iterator[int]:
    for file in files:
        for batch in pq.ParquetFile(file).iter_batches(GLOBAL_BATCH, columns=columns, use_threads=False):
            yield batch.num_rows


def _stream(files: list[Path], columns: list[str]) -> Iterator[int]:
    for table in _row_stream(files, columns, 0, 1).batches(epoch=0):
        yield table.num_rows


def _tensors(files: list[Path], columns: list[str]) -> Iterator[int]:
    for table in _row_stream(files, columns, 0, 1).batches(epoch=0):
        yield len(to_batch(table)[2])


def _row_stream(files: list[Path], columns: list[str], rank: int, num_ranks: int) -> RowStream:
    return RowStream(
        files, columns, StreamConfig(), seed=0, batch_size=GLOBAL_BATCH, rank=rank, num_ranks=num_ranks
    )


def to_batch(table: pa.Table) -> Batch:
    """A step's tensors; every column of `table` is one chunk."""
    dense_BF = np.stack([table[name].to_numpy() for name in _DENSE], axis=1)
    bags = {name: _bags(table[name].chunk(0)) for name in table.column_names if name in (*_SINGLE, "history")}
    return torch.from_numpy(dense_BF), bags, torch.from_numpy(np.array(table["label"]))


def _bags(column: Any) -> Jagged:
    is_list = pa.types.is_list(column.type)
    values = (column.flatten() if is_list else column).to_numpy().astype(np.int64)
    lengths = (
        np.diff(column.offsets.to_numpy()).astype(np.int64) if is_list else np.ones(len(column), np.int64)
    )
    return Jagged(torch.from_numpy(values), torch.from_numpy(lengths), torch.ones(len(values)))


def _train(files: list[Path]) -> Measured:
    """One epoch of the sharded bench DLRM on this rank's rows."""
    from training_contender import contender

    forget_peak()
    imports = resident_bytes()
    train = contender("table_wise", NUM_ROWS)
    columns = COLUMNS["DLRM rows: 13 floats, 8 ids"]
    stream = _row_stream(files, columns, dist.get_rank(), dist.get_world_size())
    train(map(to_batch, stream.batches(epoch=0)))
    peak = peak_bytes()
    return {"num_rows": stream.num_rows, "peak_bytes": peak, "above_imports_bytes": peak - imports}


if __name__ == "__main__":
    answer(measure)
