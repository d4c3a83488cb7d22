"""What was put into a catalogue and deleted, on the home's disk: what trainings read, and what a lost server is refilled from.

A file of JSON lines, each what became known at a time; the newest row of an item counts. A line that a crash cut off is
none, and goes with the next.
"""

import json
import os
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import redis

from tastemaker.data.item_rows import table_of
from tastemaker.data.schema import ITEM_DETAILS, Column, items_schema, read_imported
from tastemaker.errors import DataError
from tastemaker.home import Home
from tastemaker.state.connection import state_errors
from tastemaker.state.items import ItemChanges, PutItems, write_items
from tastemaker.state.keys import Keys
from tastemaker.types import catalogue_name

LOCK: Final = "items"
"""Of the home, for who appends."""
_RESTORED_AT_ONCE: Final = 500


class ItemArchive:
    """The file of one catalogue. Readers need no lock; one process at a time appends."""

    def __init__(self, home: Home, catalogue: str) -> None:
        self.path = home / "events" / catalogue_name(catalogue) / "items" / "put.jsonl"

    def read(self) -> ItemChanges:
        """All that was archived, nothing where nothing was.

        Raises:
            DataError: The file cannot be read.
        """
        return read_lines(self.path)

    def append(self, changes: ItemChanges) -> None:
        """Adds what is new; on disk when this returns.

        Raises:
            DataError: The file cannot be written.
        """
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self.path.open("ab+") as file:
                file.truncate(_whole(file))
                file.write(encode_line(changes))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise DataError(f"cannot write {self.path}", value=error.strerror, mend="make room") from error

    @property
    def size(self) -> int:
        """Bytes."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0


class ItemArchiver:
    """Copies what is put into the archive. For one thread of a process that does so again and again.

    Args:
        client: Of the role `state.url`.
        keys: Of the catalogue.
        home: Holds the archive.
    """

    def __init__(self, client: redis.Redis, keys: Keys, home: Home) -> None:
        self._client, self._keys, self._home = client, keys, home
        self._archive = ItemArchive(home, keys.catalogue)
        self._put = PutItems(client, keys)
        self._size = -1

    def archive(self) -> int:
        """Archives what is new, and gives back to a server what it lost; the number of rows archived.

        Raises:
            UsageError: Another process is at it.
            StateError: Redis/Valkey cannot be reached.
            DataError: The archive cannot be read or written.
        """
        with self._home.lock(LOCK):
            if self._archive.size != self._size:
                self._put = PutItems(self._client, self._keys)
                self._put.know(self._archive.read())
            restore_items(self._client, self._keys, self._put.everything())
            changes = self._put.poll()
            if changes:
                self._archive.append(changes)
            self._size = self._archive.size
        return len(changes.rows)


def restore_items(client: redis.Redis, keys: Keys, archived: ItemChanges) -> int:
    """Writes archived rows that a server has lost, in their order; gives how many. What was put since then stays.

    Raises:
        StateError: Redis/Valkey cannot be reached.
    """
    if not archived.rows:
        return 0
    with state_errors("read what was put into the catalogue"):
        lineage: Any = client.hget(keys.put_head, "lineage")
    if lineage == archived.lineage:
        return 0
    there = PutItems(client, keys)
    there.poll()
    ids = [
        item_id for item_id in dict.fromkeys([*archived.order, *archived.rows]) if item_id not in there.rows
    ]
    for start in range(0, len(ids), _RESTORED_AT_ONCE):
        block = ids[start : start + _RESTORED_AT_ONCE]
        write_items(client, keys, {item_id: archived.rows.get(item_id) for item_id in block}, durable=False)
    return len(ids)


def current_items(home: Home, catalogue: str) -> pa.Table:
    """The catalogue's items as of now: imported and put ones, no deleted ones.

    Raises:
        DataError: Nothing was imported, or a file cannot be read.
    """
    put = ItemArchive(home, catalogue).read()
    return with_put_items(read_imported(home, catalogue)[1], put, pa.array([], pa.string()))


def with_put_items(items: pa.Table, put: ItemChanges, used_ids: "pa.Array[Any]") -> pa.Table:
    """A catalogue's imported items with those that were put since in place of and behind them, without deleted ones.

    Args:
        items: With `items_schema`.
        put: What was put and deleted.
        used_ids: Items of interactions, which stay when deleted: what was learned from them is still true.
    """
    if not put.rows:
        return items
    texts = {item_id: row for item_id, row in put.rows.items() if row is not None}
    place = {item_id: items.num_rows + n for n, item_id in enumerate(texts)}
    there = items[Column.ITEM_ID].to_pylist()
    new = [item_id for item_id in put.order if item_id in texts and item_id not in set(there)]
    taken = [place.get(str(item_id), row) for row, item_id in enumerate(there)] + [place[i] for i in new]
    whole = pa.concat_tables([items, table_of(texts)], promote_options="default").take(taken)
    gone = pa.array([item_id for item_id, row in put.rows.items() if row is None], pa.string())
    ids: Any = whole[Column.ITEM_ID].combine_chunks()
    is_kept = pc.or_(pc.invert(pc.is_in(ids, gone)), pc.is_in(ids, used_ids))
    return _slim(whole.filter(is_kept))


def _slim(items: pa.Table) -> pa.Table:
    """Without details that no item has."""
    known = [name for name in items.column_names if items[name].null_count < len(items)]
    schema = items_schema([name for name in ITEM_DETAILS.names if name in known])
    return items.select(schema.names).cast(schema)


def encode_line(changes: ItemChanges) -> bytes:
    """A line of JSON."""
    content = {
        "lineage": changes.lineage, "epoch": changes.epoch, "restarted": changes.restarted,
        "order": changes.order, "rows": changes.rows,
    }  # fmt: skip
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def read_lines(path: Path) -> ItemChanges:
    """What the lines of a file say together.

    Raises:
        DataError: It cannot be read.
    """
    lineage, epoch = "", 0
    order: dict[str, None] = {}
    rows: dict[str, str | None] = {}
    try:
        for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
            if not line.endswith(b"\n"):
                break
            found = json.loads(line)
            if found["restarted"]:
                order, rows = {}, {}
            lineage, epoch = found["lineage"], found["epoch"]
            order |= dict.fromkeys(found["order"])
            rows |= found["rows"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} cannot be read", value=str(error), mend="delete it: it is written anew"
        ) from error
    return ItemChanges(lineage, epoch, True, list(order), rows)


def _whole(file: Any) -> int:
    """Bytes up to the end of the last whole line."""
    end = int(file.seek(0, os.SEEK_END))
    while end:
        start = max(0, end - 65_536)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + int(found) + 1
        end = start
    return 0
