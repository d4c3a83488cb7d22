"""The category of each item, as last imported, for processes that outlive an import."""

import os
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tastemaker.data.schema import IMPORT_MEND, Column, imported_folder
from tastemaker.errors import DataError
from tastemaker.home import Home


class Categories:
    """Gives an item's category; empty where it has none, or the item is unknown. Not thread-safe."""

    def __init__(self, home: Home, catalogue: str) -> None:
        self._path = imported_folder(home, catalogue) / "items.parquet"
        self._version: tuple[int, ...] | None = None
        self._category: dict[str, str] = {}

    def __call__(self, item_id: str) -> str:
        """As of the last `refresh`."""
        return self._category.get(item_id, "")

    def refresh(self) -> None:
        """Reads the items again where another file lies there than was read last; without one, all are unknown.

        Raises:
            DataError: The file cannot be read.
        """
        version = self._version_now()
        if version != self._version:
            self._category = self._read() if version else {}
            self._version = version

    def _version_now(self) -> tuple[int, ...] | None:
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size

    def _read(self) -> dict[str, str]:
        try:
            table = pq.ParquetFile(self._path).read(columns=[Column.ITEM_ID, Column.CATEGORY])
            columns: list[Any] = [table[Column.ITEM_ID].to_pylist(), table[Column.CATEGORY].to_pylist()]
        except (OSError, KeyError, pa.ArrowException) as error:
            raise DataError(f"cannot read {self._path}: {error}", mend=IMPORT_MEND) from error
        return dict(zip(*columns, strict=True))
