"""Rows put aside by bucket, so that each bucket can be looked at alone: more of them than fit into memory."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
        self._writers: dict[tuple[str, int], tuple[Any, Any]] = {}
        self._written: set[tuple[str, int]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for opened in self._writers.values():
            with suppress(OSError, pa.ArrowException):  # of a full disk: the files go in any case
                _close(*opened)
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

    def finish(self, name: str) -> None:
        """Says that no more rows of a kind come: their files are closed, so that those of one kind alone are open at a time.

        Raises:
            DataError: They cannot be written.
        """
        for key in [key for key in self._writers if key[0] == name]:
            with self._writing():
                _close(*self._writers.pop(key))

    def take(self, name: str, bucket: int, schema: pa.Schema) -> pa.Table:
        """The rows of a kind in a bucket, in the order in which they came; they are gone then. Only after `finish`.

        Raises:
            DataError: They cannot be read.
        """
        if self._folder is None:
            return pa.concat_tables([schema.empty_table(), *self._kept.pop(name, ())])
        assert (name, bucket) not in self._writers
        if (name, bucket) not in self._written:
            return schema.empty_table()
        self._written.remove((name, bucket))
        path = self._path(name, bucket)
        try:
            with pa.OSFile(str(path), "rb") as file:
                found: pa.Table = pa.ipc.open_stream(file).read_all()
            path.unlink()
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"cannot read {path}: {error}", mend="make room for temporary files") from error
        return found

    def _write(self, name: str, bucket: int, rows: pa.Table) -> None:
        with self._writing():
            if (name, bucket) not in self._writers:
                file = pa.OSFile(str(self._path(name, bucket)), "wb")
                self._writers[name, bucket] = pa.ipc.new_stream(file, rows.schema, options=_OPTIONS), file
                self._written.add((name, bucket))
            self._writers[name, bucket][0].write_table(rows)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"cannot write to {self._folder}: {error}",
                mend="make room for temporary files, or name another folder by TMPDIR",
            ) from error

    def _path(self, name: str, bucket: int) -> Path:
        assert self._folder is not None
        return self._folder / f"{name}-{bucket}.arrow"


def _close(writer: Any, file: Any) -> None:
    try:
        writer.close()
    finally:
        file.close()
