"""What `tastemaker gc` leaves written of each run, also of one that was killed.

While a run is under way a journal says what it is about to remove, on disk before it goes. At the end a line of the receipts takes
the journal's place. A run that was killed leaves its journal, and the next one makes the line of it.
"""

import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final
from uuid import uuid4

from tastemaker.errors import DataError
from tastemaker.home import Home
from tastemaker.retention.gone import Gone

RECEIPTS: Final = "gc.jsonl"
"""Below the home's `logs/`: a line for each run that removed something, or failed."""
JOURNAL: Final = "gc.under-way.jsonl"
"""Beside it: who runs, then what is removed, thing by thing; a line `stays` follows on one that then was not. Of many small things a line
`announces` some at once before they go, so that the disk is waited for once: theirs may be lost with the power, but not with the process."""


class Journal:
    """What one run does, written as it goes. Hold the home's lock `gc`.

    Raises:
        DataError: From every method, where it cannot be written.
    """

    def __init__(self, home: Home, catalogue: str) -> None:
        self._home, self._path = home, _path(home, JOURNAL)
        self._head = {"run": uuid4().hex, "at": datetime.now(UTC).isoformat(), "catalogue": catalogue}
        self._started = time.monotonic()
        self._file: BinaryIO | None = None
        self._announced: frozenset[str] = frozenset()

    def announces(self, some: Sequence[Gone]) -> None:
        """Says what is about to go, one after the other; it is on disk then."""
        self._write({"announces": [one.as_dict() for one in some]}, is_synced=True)
        self._announced = frozenset(one.name for one in some)

    def removes(self, one: Gone) -> None:
        """Says what goes now; it is on disk then, unless that it would go was announced."""
        self._write({"removes": one.as_dict()}, is_synced=one.name not in self._announced)

    def stays(self, one: Gone) -> None:
        """What was said last did not go: it came into use, or somebody else was first."""
        self._write({"stays": one.name}, is_synced=False)

    def end(self, receipt: dict[str, Any] | None) -> None:
        """Lets the receipt take the journal's place; without one nothing was to be told."""
        if self._file is not None:
            with suppress(OSError):  # of a line that had no room, which was told
                self._file.close()
        if receipt is not None:
            seconds = round(time.monotonic() - self._started, 2)
            append_receipt(self._home, {**self._head, **receipt, "seconds": seconds})
        if self._file is not None:
            self._path.unlink(missing_ok=True)

    def _write(self, line: dict[str, Any], *, is_synced: bool) -> None:
        try:
            if self._file is None:
                self._file = self._path.open("wb")
                self._file.write(_encode(self._head))
                _sync_folder(self._path.parent)
            self._file.write(_encode(line))
            self._file.flush()
            if is_synced:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise _unwritable(self._path, error) from error


def killed_run(home: Home) -> dict[str, Any] | None:
    """The receipt of a run that was killed, of which none is written yet; None where there is no such run.

    `removed` is what went. `cut_off` is what was being removed: it may be gone or not. `announced` would have followed: some of it may be gone
    if the machine lost its power, none if the process was killed.

    Raises:
        DataError: Journal or receipts cannot be read.
    """
    lines = _whole_lines(_path(home, JOURNAL))
    if not lines or _is_told(_path(home, RECEIPTS), lines[0]):
        return None
    removed: list[dict[str, Any]] = []
    announced: list[dict[str, Any]] = []
    cut_off: dict[str, Any] | None = None
    for line in lines[1:]:
        if cut_off is not None and "stays" not in line:
            removed.append(cut_off)
        cut_off = line.get("removes")
        announced = line.get("announces", announced)
        if announced[:1] == [cut_off]:
            announced = announced[1:]
    told = {"dry_run": False, "removed": removed, "kept_versions": {}, "skipped": []}
    return {
        **lines[0],
        **told,
        "cut_off": cut_off,
        "announced": announced,
        "failed": "killed",
        "seconds": None,
    }


def settle(home: Home) -> dict[str, Any] | None:
    """Writes the receipt of a run that was killed, and gives it; see `killed_run`. Hold the home's lock `gc`.

    Raises:
        DataError: A file cannot be read or written.
    """
    if (receipt := killed_run(home)) is not None:
        append_receipt(home, receipt)
    _path(home, JOURNAL).unlink(missing_ok=True)
    return receipt


def append_receipt(home: Home, receipt: dict[str, Any]) -> None:
    """Adds a line to the receipts; it is on disk then. A line that a power loss cut short stays on its own.

    Raises:
        DataError: It cannot be written.
    """
    path = _path(home, RECEIPTS)
    try:
        with path.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(_encode(receipt))
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """What was written up to a line that was cut short, if one was; nothing where there is no file."""
    found: list[dict[str, Any]] = []
    with _reading(path) as lines, suppress(ValueError):
        for line in lines:
            found.append(json.loads(line))
    return found


def _is_told(receipts: Path, head: dict[str, Any]) -> bool:
    """Whether there is a receipt of a run: it was killed after it had written that."""
    begin = json.dumps({"run": head["run"]}).encode().removesuffix(b"}")
    with _reading(receipts) as lines:
        return any(line.startswith(begin) for line in lines)


@contextmanager
def _reading(path: Path) -> Iterator[Iterable[bytes]]:
    try:
        with path.open("rb") as file:
            yield file
    except FileNotFoundError:
        yield ()
    except OSError as error:
        raise DataError(f"{path} cannot be read", value=str(error), mend="mend its rights") from error


def _encode(line: dict[str, Any]) -> bytes:
    return json.dumps(line).encode() + b"\n"


def _path(home: Home, name: str) -> Path:
    return home / "logs" / name


def _sync_folder(folder: Path) -> None:
    """So that a new file's name outlives a power loss too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unwritable(path: Path, error: OSError) -> DataError:
    return DataError(f"cannot write {path}: {error}", mend="make room, or mend its rights")
