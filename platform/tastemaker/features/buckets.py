"""A log that does not fit into memory, sorted by user on disk: every row of one user lies in one bucket.

One pass over the log writes the buckets, one pass over them replays it, each bucket on its own. The other way, to go
through the days and read and write every user's state for each day, costs a read and a write of a record per user and
day; and all states at once need not fit into memory either.

A row is an event; or, without `event_id`, a user whom the online state knows.
"""

import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa

from tastemaker.events.archive import EVENT_SCHEMA
from tastemaker.features.countries import countries_of
from tastemaker.types import Int64

BUCKET_SCHEMA: Final = pa.schema(
    [
        EVENT_SCHEMA.field(name)
        for name in (
            "event_id",
            "user_id",
            "item_id",
            "kind",
            "timestamp_ms",
            "received_ms",
            "value",
            "sequence",
        )
    ]
    + [pa.field("country", pa.string()), pa.field("personal", pa.bool_())]
)
"""Columns of a bucket; what a row has none of is null. `country` is what is kept of an event's context.

`personal` is false where an event counts for its item and not for its user, see `replay_owners`.
"""
_ROWS_A_BUCKET: Final = 500_000
_MOST_FILES: Final = 256


class Buckets:
    """Files under `folder`, which is made: one or several for each partition.

    Args:
        folder: Holds nothing yet.
        partitions: Of the catalogue.
        num_rows: About how many will come; tells how many buckets a partition gets.
    """

    def __init__(self, folder: Path, partitions: int, num_rows: int) -> None:
        self._folder, self._partitions = folder, partitions
        wanted = -(-num_rows // (partitions * _ROWS_A_BUCKET))
        self._per_partition = max(1, min(wanted, _MOST_FILES // partitions))
        self._files = ExitStack()

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True)
        self._writers = [
            self._files.enter_context(pa.ipc.new_stream(str(self._path(bucket)), BUCKET_SCHEMA))
            for bucket in range(self._partitions * self._per_partition)
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()

    def add(self, table: pa.Table) -> None:
        """Adds rows; columns that `table` lacks are null."""
        if not len(table):
            return
        if "context" in table.column_names:
            table = table.append_column("country", countries_of(table["context"]))
        table = pa.concat_tables([BUCKET_SCHEMA.empty_table(), table], promote_options="default")
        bucket_E = self._bucket_of(table["user_id"])
        order_E = np.argsort(bucket_E, kind="stable")
        table = table.select(BUCKET_SCHEMA.names).take(order_E)
        found, starts = np.unique(bucket_E[order_E], return_index=True)
        for bucket, start, end in zip(found, starts, [*starts[1:], len(order_E)], strict=True):
            self._writers[bucket].write_table(table.slice(start, end - start))

    def of(self, partition: int) -> Iterator[pa.Table]:
        """A partition's rows, bucket by bucket; after the last `add`."""
        first = partition * self._per_partition
        for bucket in range(first, first + self._per_partition):
            with pa.ipc.open_stream(self._path(bucket).read_bytes()) as reader:
                yield reader.read_all()

    def _bucket_of(self, user_id: "pa.ChunkedArray[Any]") -> Int64:
        """See `state.keys.partition_of`, whose hash goes on to choose among a partition's buckets."""
        users: Any = user_id.combine_chunks().dictionary_encode()
        hash_U = np.array([zlib.crc32(user.encode()) for user in users.dictionary.to_pylist()], np.int64)
        within_U = hash_U // self._partitions % self._per_partition
        bucket_U = hash_U % self._partitions * self._per_partition + within_U
        bucket_E: Int64 = bucket_U[users.indices.to_numpy()]
        return bucket_E

    def _path(self, bucket: int) -> Path:
        return self._folder / f"{bucket}.arrow"
