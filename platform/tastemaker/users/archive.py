"""Profiles on disk, beside the log's days: for a lost server, and for training, which reads no Redis/Valkey.

Changed profiles are marked; `archive_profiles` adds a Parquet file with those, and takes a mark away only where the
profile is still the one that was written. Of several rows of a user the newest counts. Vectors of interests are not kept:
they are made anew from the text.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import redis

from tastemaker.errors import DataError
from tastemaker.events.archive import encode_part, new_name, write_part
from tastemaker.home import Home
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.state.marks import some_marked
from tastemaker.types import catalogue_name
from tastemaker.users.profile import PARTS, SINCE
from tastemaker.users.profiles import read_parts, restore_profiles

_KEPT: Final = (*PARTS, SINCE)
_COLUMNS: Final[dict[str, pa.DataType]] = {
    "user_id": pa.string(),
    "updated_ms": pa.int64(),
    "version": pa.int64(),
    **dict.fromkeys(_KEPT, pa.string()),
}
PROFILE_SCHEMA: Final = pa.schema(list(_COLUMNS.items()), metadata={"schema": "1"})
"""Columns of the files; a part that the user has not is null."""
MOST_AT_ONCE: Final = 2000
MOST_FILES: Final = 64
_MOST_LOOKS: Final = 10
# KEYS: marks, then the profiles. ARGV: of each user the id and the version that was written.
_SETTLE: Final = """
for i = 1, #ARGV, 2 do
  local version = redis.call('HGET', KEYS[(i + 3) / 2], 'version') or ''
  if version == ARGV[i + 1] then redis.call('SREM', KEYS[1], ARGV[i]) end
end
"""


def profiles_folder(home: Home, catalogue: str) -> Path:
    """Where the files lie."""
    return home / "events" / catalogue_name(catalogue) / "profiles"


def archive_profiles(client: redis.Redis, keys: Keys, home: Home) -> int:
    """Writes some thousand changed profiles; gives how many. Call it again while it gives any.

    Raises:
        StateError: Redis/Valkey cannot be reached. Nothing is lost: the marks are still there.
        DataError: The files cannot be written.
        UsageError: Another process is at it.
    """
    sets = [keys.changed_profiles(p) for p in range(keys.partitions)]
    marked = some_marked(client, sets, MOST_AT_ONCE, "profiles")
    if not marked:
        return 0
    with home.lock("profiles"):
        kept = read_parts(client, keys, list(itertools.chain(*marked.values())))
        folder = profiles_folder(home, keys.catalogue)
        if any(kept.values()):
            _write(folder, _table(kept))
        with state_errors("take the marks of profiles away"):
            pipe: Any = client.pipeline(transaction=False)
            for p, users in marked.items():
                touched = [keys.changed_profiles(p), *map(keys.profile, users)]
                words = [word for user in users for word in (user, kept[user].get("version", ""))]
                pipe.eval(_SETTLE, len(touched), *touched, *words)
            pipe.execute()
        if len(files := profile_files(home, keys.catalogue)) > MOST_FILES:
            _write(folder, read_profiles(home, keys.catalogue))
            for file in files:
                file.unlink(missing_ok=True)
    return len(kept)


def profile_files(home: Home, catalogue: str) -> list[Path]:
    """The files that there are, oldest first."""
    return sorted(profiles_folder(home, catalogue).glob("part-*.parquet"))


def read_profiles(home: Home, catalogue: str) -> pa.Table:
    """The archived profiles, one row a user, with `PROFILE_SCHEMA`.

    Raises:
        DataError: A file cannot be read.
    """
    for look in range(_MOST_LOOKS):
        files = profile_files(home, catalogue)
        try:
            tables = [PROFILE_SCHEMA.empty_table(), *(pq.ParquetFile(file).read() for file in files)]
            return _newest(pa.concat_tables(tables, promote_options="default"))
        except (OSError, pa.ArrowException) as error:
            if all(file.exists() for file in files) or look == _MOST_LOOKS - 1:  # else merged meanwhile
                raise DataError(
                    f"archived profiles cannot be read: {error}", mend="move them away"
                ) from error
    raise AssertionError("unreachable")


def opted_out(home: Home, catalogue: str) -> frozenset[str]:
    """The users whose archived profile says that nothing may be personal.

    Raises:
        DataError: See `read_profiles`.
    """
    table = read_profiles(home, catalogue)
    found: Any = table.filter(pc.field("personalise") == "false")["user_id"].to_pylist()
    return frozenset(found)


def restore_archived(
    client: redis.Redis, keys: Keys, home: Home, without: frozenset[str] = frozenset()
) -> int:
    """Puts archived profiles back where nothing is kept of their users; gives how many were read.

    Those of users in `without`, as of merged ones, stay away.

    Raises:
        StateError: Redis/Valkey cannot be reached; it may be run again.
        DataError: See `read_profiles`.
    """
    table = read_profiles(home, keys.catalogue)
    wanted = ((user_id, parts) for user_id, parts in profiles_of(table) if user_id not in without)
    while some := dict(itertools.islice(wanted, MOST_AT_ONCE)):
        restore_profiles(client, keys, some)
    return len(table)


def profiles_of(table: pa.Table) -> Iterator[tuple[str, dict[str, str]]]:
    """Each row's user and parts as kept."""
    for batch in table.to_batches():
        for row in batch.to_pylist():
            user_id = row.pop("user_id")
            yield user_id, {name: str(value) for name, value in row.items() if value is not None}


def _table(kept: dict[str, dict[str, str]]) -> pa.Table:
    known = {user_id: parts for user_id, parts in kept.items() if parts}
    columns: dict[str, Any] = {name: [parts.get(name) for parts in known.values()] for name in _KEPT}
    for name in ("updated_ms", "version"):
        columns[name] = [int(parts.get(name, 0)) for parts in known.values()]
    columns["user_id"] = list(known)
    return pa.table({name: columns[name] for name in PROFILE_SCHEMA.names}, schema=PROFILE_SCHEMA)


def _newest(table: pa.Table) -> pa.Table:
    """Each user's newest row."""
    table = table.select(PROFILE_SCHEMA.names).sort_by(
        [(name, "descending") for name in ("updated_ms", "version")]
    )
    codes: Any = table["user_id"].combine_chunks().dictionary_encode().indices
    rows = pa.table({"user": codes, "row": pa.array(range(len(table)), pa.int64())})
    first: Any = rows.group_by("user").aggregate([("row", "min")])["row_min"]
    return table.take(first.take(pc.sort_indices(first)))


def _write(folder: Path, table: pa.Table) -> None:
    try:
        write_part(folder / new_name(), encode_part(table))
    except OSError as error:
        raise DataError(f"cannot write {folder}: {error}", mend="make room, or mend its rights") from error
