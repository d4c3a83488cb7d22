"""Feast's offline files, and its online rows of all users and items at once, from the records.

A file holds one row for each user or item, as of the moment of writing. Not the history of values: training sets are made
from the events themselves.

Shape letters: N rows.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import redis

from tastemaker.data.schema import Column
from tastemaker.features.counters import Counters
from tastemaker.features.feast_repo import TIME, WRITTEN, offline_file
from tastemaker.features.feast_rows import FeastRows
from tastemaker.features.records import scan_totals, scan_users
from tastemaker.features.user_state import UserState
from tastemaker.features.view_rows import attribute_rows, content_rows, item_rows, profile_rows, user_rows
from tastemaker.features.views import VIEWS, View, ViewRows, join_key
from tastemaker.state.connection import scan_keys
from tastemaker.state.keys import Keys
from tastemaker.users.profile import Profile
from tastemaker.users.profiles import read_parts

_KINDS: Mapping[str, pa.DataType] = {"float64": pa.float64(), "int64": pa.int64(), "string": pa.string()}
_TIME: pa.DataType = pa.timestamp("us", "UTC")
_BATCH = 2000
Batch = tuple[Sequence[str], Sequence[ViewRows]]
"""Ids, and their rows in some views of one entity."""


def materialize(batches: Iterable[Batch], rows: FeastRows, folder: Path, now_ms: int) -> dict[str, int]:
    """Writes rows online, and to the offline files in place of what they had; gives how many each view has.

    Args:
        batches: What `user_batches`, `profile_batches`, `item_batches` and `catalogue_batches` give; no id twice in a view.
        rows: Of the catalogue.
        folder: Of its Feast repo.
        now_ms: When this is.

    Raises:
        StateError: Redis/Valkey cannot be reached. The offline files are as before.
    """
    counts = {view.name: 0 for view in VIEWS}
    with OfflineFiles(folder, now_ms) as files:
        for ids, found in batches:
            rows.write(ids, found)
            for one in found:
                files.write(ids, one)
                counts[one.view.name] += len(ids)
    return counts


def user_batches(client: redis.Redis, keys: Keys) -> Iterator[Batch]:
    """Rows of all users who have records."""
    for records in scan_users(client, keys):
        if records:
            yield list(records), user_rows([UserState.decode(record) for record in records.values()])


def item_batches(client: redis.Redis, keys: Keys) -> Iterator[Batch]:
    """Rows of all items that have totals."""
    seen: set[str] = set()
    for totals in scan_totals(client, keys):
        new = [item_id for item_id in totals if item_id not in seen]
        seen.update(new)
        if new:
            yield new, item_rows(Counters.decode([totals[item_id] for item_id in new]))


def profile_batches(client: redis.Redis, keys: Keys) -> Iterator[Batch]:
    """Rows of all users of whom something was told."""
    for found in scan_keys(client, keys.every_profile, _BATCH):
        names = [key.decode() for key in found]
        ids = [(name, name.partition("}:profile:")[2]) for name in names]
        kept = read_parts(client, keys, [user_id for name, user_id in ids if keys.profile(user_id) == name])
        profiles = {user_id: Profile.decode(parts) for user_id, parts in kept.items() if parts}
        if profiles:
            yield list(profiles), [profile_rows(list(profiles.values()))]


def catalogue_batches(items: pa.Table, said_ms: int, space: str) -> Iterator[Batch]:
    """Rows of what a catalogue says of its items; see `attribute_rows` and `content_rows`."""
    for begin in range(0, len(items), _BATCH):
        part = items.slice(begin, _BATCH)
        item_ids: Any = part[Column.ITEM_ID].to_pylist()
        yield item_ids, [attribute_rows(part, said_ms), content_rows(part, said_ms, space)]


class OfflineFiles:
    """Writes the offline files; they take the old ones' place when the block ends without an error."""

    def __init__(self, folder: Path, now_ms: int) -> None:
        self._now_ms, self._stack = now_ms, ExitStack()
        self._files = {view.name: offline_file(folder, view) for view in VIEWS}
        self._writers: dict[str, pq.ParquetWriter] = {}

    def __enter__(self) -> "OfflineFiles":
        for view in VIEWS:
            path = self._files[view.name]
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            writer = pq.ParquetWriter(_temporary(path), offline_schema(view))
            self._writers[view.name] = self._stack.enter_context(writer)
        return self

    def write(self, ids: Sequence[str], rows: ViewRows) -> None:
        """Adds rows to a view's file."""
        self._writers[rows.view.name].write_table(offline_table(ids, rows, self._now_ms))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stack.close()
        for path in self._files.values():
            if kind is None:
                _temporary(path).replace(path)
            else:
                _temporary(path).unlink()


def offline_schema(view: View) -> pa.Schema:
    """Columns of a view's offline file."""
    features = [pa.field(feature.name, _KINDS[feature.kind]) for feature in view.features]
    head = [pa.field(join_key(view.entity), pa.string()), pa.field(TIME, _TIME), pa.field(WRITTEN, _TIME)]
    return pa.schema([*head, *features])


def offline_table(ids: Sequence[str], rows: ViewRows, now_ms: int) -> pa.Table:
    """Rows as a view's offline file has them."""
    columns: list[Any] = [
        pa.array(ids, pa.string()),
        _times(rows.value_NF[:, 0] * 1000),
        _times(np.full(len(ids), now_ms * 1000.0)),
    ]
    for feature in rows.view.features:
        if feature.kind == "string":
            columns.append(pa.array(rows.texts[feature.name], pa.string()))
        else:
            value_N = rows.value_NF[:, rows.view.position[feature.name]]
            columns.append(pa.array(value_N, from_pandas=True).cast(_KINDS[feature.kind]))
    return pa.table(columns, schema=offline_schema(rows.view))


def _times(time_us: Any) -> Any:
    return pa.array(time_us.astype(np.int64)).cast(_TIME)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")
