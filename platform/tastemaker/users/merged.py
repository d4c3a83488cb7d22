"""Which ids are one user, as kept on disk for good: a line for each merge. Not how a merge comes about (`merges`).

Rebuilds and trainings read it, so that they see of two ids what serving sees.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from tastemaker.errors import DataError
from tastemaker.events.archive import sync
from tastemaker.home import Home, write_bytes
from tastemaker.types import catalogue_name


@dataclass(frozen=True, slots=True)
class Merge:
    """`from_user` is `into_user` since `at_ms`; its events up to `since_ms` count for nobody, as in `events.owners`."""

    from_user: str
    into_user: str
    at_ms: int
    since_ms: int = -1


class MergedUsers:
    """The merges of a catalogue as the file tells them.

    >>> users = MergedUsers([Merge("a", "b", 1), Merge("b", "c", 2), Merge("x", "c", 3)])
    >>> users.root("a"), users.root("d"), users.family("b")
    ('c', 'd', ['a', 'b', 'x', 'c'])
    """

    def __init__(self, merges: Iterable[Merge]) -> None:
        self.merges: dict[str, Merge] = {}
        for merge in merges:
            self.merges.setdefault(merge.from_user, merge)
        self._roots: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self.merges)

    def root(self, user_id: str) -> str:
        """The user that an id is by now."""
        passed: list[str] = []
        at = user_id
        while at not in self._roots and at in self.merges and len(passed) <= len(self.merges):
            passed.append(at)
            at = self.merges[at].into_user
        at = self._roots.get(at, at)
        self._roots |= dict.fromkeys(passed, at)
        return at

    def family(self, user_id: str) -> list[str]:
        """All ids that are one user with an id, the one that they are merged into last."""
        root = self.root(user_id)
        return [*(other for other in self.merges if self.root(other) == root), root]

    def renamed(self, table: pa.Table) -> pa.Table:
        """A table's rows with `user_id` as the users are by now."""
        if not self.merges:
            return table
        users: Any = table["user_id"].combine_chunks().dictionary_encode()
        roots = pa.array([self.root(user) for user in users.dictionary.to_pylist()], pa.string())
        place = table.column_names.index("user_id")
        return table.set_column(place, table.schema.field(place), roots.take(users.indices))


def merges_file(home: Home, catalogue: str) -> Path:
    """Where the merges are kept."""
    return home / "events" / catalogue_name(catalogue) / "merges.jsonl"


def read_merges(home: Home, catalogue: str, until_ms: int | None = None) -> MergedUsers:
    """The merges that were admitted, of those up to a time where one is given. A line cut off by a crash is none.

    Raises:
        DataError: The file cannot be read.
    """
    file = merges_file(home, catalogue)
    try:
        text = file.read_text(encoding="utf-8") if file.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {error}", mend="restore it from a backup") from error
    found = [_merge(line, file) for line in text.split("\n")[:-1] if line]
    return MergedUsers([merge for merge in found if until_ms is None or merge.at_ms <= until_ms])


def note(home: Home, catalogue: str, merge: Merge) -> None:
    """Adds a merge's line to the file; it is on disk on return.

    Raises:
        DataError: It cannot be written.
    """
    file = merges_file(home, catalogue)
    parts = {
        "from": merge.from_user,
        "into": merge.into_user,
        "at_ms": merge.at_ms,
        "since_ms": merge.since_ms,
    }
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab+") as lines:
            if size := lines.seek(0, os.SEEK_END):
                lines.seek(size - 1)
                if (
                    lines.read(1) != b"\n"
                ):  # cut off by a crash: it is no merge, and neither may it spoil this one
                    _cut_off(lines)
            lines.write(json.dumps(parts, ensure_ascii=False).encode() + b"\n")
            lines.flush()
            os.fsync(lines.fileno())
        sync(file.parent)
    except OSError as error:
        raise DataError(f"cannot write {file}: {error}", mend="make room, or mend its rights") from error


def forget_merges(home: Home, catalogue: str, user_ids: frozenset[str]) -> int:
    """Takes the lines of some users out of the file; gives how many there were.

    Raises:
        DataError: It cannot be written.
        UsageError: Merges are being admitted.
    """
    file = merges_file(home, catalogue)
    with home.lock("merges", 10.0):
        if not file.exists():
            return 0
        try:
            lines = file.read_text(encoding="utf-8").split("\n")[:-1]
            kept = [line for line in lines if line and _merge(line, file).from_user not in user_ids]
            kept = [line for line in kept if _merge(line, file).into_user not in user_ids]
            write_bytes(file, "".join(f"{line}\n" for line in kept).encode())
            sync(file.parent)
        except OSError as error:
            raise DataError(f"cannot write {file}: {error}", mend="make room") from error
    return len(lines) - len(kept)


def _merge(line: str, file: Path) -> Merge:
    try:
        found = json.loads(line)
        return Merge(found["from"], found["into"], found["at_ms"], found["since_ms"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"a line of {file} is no merge", value=line[:80], mend="take it out") from error


def _cut_off(lines: Any) -> None:
    lines.seek(0)
    whole = lines.read().rpartition(b"\n")[0]
    lines.truncate(len(whole) + 1 if whole else 0)
