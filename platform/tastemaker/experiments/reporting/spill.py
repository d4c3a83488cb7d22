"""Rows put aside by bucket, so that each bucket can be looked at alone: more of them than fit into memory."""

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa

from tastemaker.errors import DataError
from tastemaker.types import Int64

_OPTIONS: Final = pa.ipc.IpcWriteOptions(compression="lz4")


class Spill:
    """Buckets of rows, in files of a temporary folder; in memory where there is one bucket alone. Gone at the end of `with`.

    Args:
        num_buckets: From 1.
    """

    def __init__(self, num_buckets: int) -> None:
        self.num_buckets = num_buckets
        self._folder = Path(tempfile.mkdtemp(prefix="tastemaker-report-")) if num_buckets > 1 else None
        self._kept: dict[str, list[pa.Table]] = {}
        self._writers: dict[tuple[str, int], Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in self._writers.values():
            with suppress(OSError, pa.ArrowException):  # of a full disk: the files go in any case
                writer.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def put(self, name: str, rows: pa.Table, bucket_R: Int64) -> None:
        """Adds rows of a kind, each to its bucket.

        Raises:
            DataError: They cannot be written.
        """
        if self._folder is None:
            self._kept.setdefault(name, []).append(rows)
            return
        for bucket in np.unique(bucket_R).tolist():
            self._write(name, bucket, rows.filter(pa.array(bucket_R == bucket)))

    def take(self, name: str, bucket: int, schema: pa.Schema) -> pa.Table:
        """The rows of a kind in a bucket, in the order in which they came; they are gone then.

        Raises:
            DataError: They cannot be read.
        """
        if self._folder is None:
            return pa.concat_tables([schema.empty_table(), *self._kept.pop(name, ())])
        writer = self._writers.pop((name, bucket), None)
        if writer is None:
            return schema.empty_table()
        path = self._path(name, bucket)
        try:
            writer.close()
            with pa.OSFile(str(path), "rb") as file:
                found: pa.Table = pa.ipc.open_stream(file).read_all()
            path.unlink()
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"cannot read {path}: {error}", mend="make room for temporary files") from error
        return found

    def _write(self, name: str, bucket: int, rows: pa.Table) -> None:
        try:
            writer = self._writers.get((name, bucket))
            if writer is None:
                path = self._path(name, bucket)
                writer = pa.ipc.new_stream(str(path), rows.schema, options=_OPTIONS)
                self._writers[name, bucket] = writer
            writer.write_table(rows)
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"cannot write to {self._folder}: {error}",
                mend="make room for temporary files, or name another folder by TMPDIR",
            ) from error

    def _path(self, name: str, bucket: int) -> Path:
        assert self._folder is not None
        return self._folder / f"{name}-{bucket}.arrow"
