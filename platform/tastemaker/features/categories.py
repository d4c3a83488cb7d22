"""The category of each item, as last imported or put, for processes that outlive both."""

import json
import os
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import redis

from tastemaker.data.schema import IMPORT_MEND, Column, imported_folder
from tastemaker.errors import DataError
from tastemaker.home import Home
from tastemaker.state.items import PutItems
from tastemaker.state.keys import Keys


class Categories:
    """Gives an item's category; empty where it has none, or the item is unknown. Not thread-safe.

    Args:
        home: Of the imported items.
        client: Of the role `state.url`, where put items are.
        keys: Of the catalogue.
    """

    def __init__(self, home: Home, client: redis.Redis, keys: Keys) -> None:
        self._path = imported_folder(home, keys.catalogue) / "items.parquet"
        self._version: tuple[int, ...] | None = None
        self._category: dict[str, str] = {}
        self._put, self._put_category = PutItems(client, keys), dict[str, str]()

    def __call__(self, item_id: str) -> str:
        """As of the last `refresh`; what was put counts before what was imported, also once it is deleted."""
        found = self._put_category.get(item_id)
        return self._category.get(item_id, "") if found is None else found

    def refresh(self) -> None:
        """Reads what was put since, and the imported items again where another file lies there than was read last.

        Raises:
            DataError: The file cannot be read.
            StateError: Redis/Valkey cannot be reached.
        """
        self._follow()
        version = self._version_now()
        if version != self._version:
            self._category = self._read() if version else {}
            self._version = version

    def _follow(self) -> None:
        changes = self._put.poll()
        if changes.restarted:
            self._put_category = {}
        for item_id, row in changes.rows.items():
            if row is not None:
                self._put_category[item_id] = json.loads(row).get("category") or ""

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
