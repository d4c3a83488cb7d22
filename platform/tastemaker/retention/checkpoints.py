"""What trainings left in the home: folders that no training has used for long."""

import os
import shutil
from collections.abc import Iterator, Set
from contextlib import suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

from tastemaker.errors import DataError
from tastemaker.home import Home
from tastemaker.retention.gone import Gone, Limits

_NESTED: Final = ("runs", "tune")
"""Folders below `checkpoints` that hold a folder for each catalogue, and in it one for each run or study."""
_FLAT: Final = "indexes"
_LEAVING: Final = ".leaving-"


def doomed_checkpoints(home: Home, catalogue: str, kept: Set[str], limits: Limits) -> Iterator[Gone]:
    """Folders below `checkpoints` that were last used long ago; none unless `retention.checkpoint_days` is set.

    Trainings are named by what they were made from, and catalogues share them; runs and studies are the catalogue's own. A folder is
    used when it is made, and whenever a training takes it up again.

    Args:
        home: Whose.
        catalogue: Whose runs and studies.
        kept: Names of folders that stay: trainings that the next one may begin from, and runs of versions that stay.
        limits: How long they are kept.
    """
    days = limits.settings.checkpoint_days
    if days is None:
        return
    since = limits.since(days)
    for folder in sorted(_folders(home / "checkpoints", catalogue)):
        last, num_bytes = _last_use(folder)
        if folder.name not in kept and last < since:
            name = str(folder.relative_to(home.root))
            yield Gone("checkpoint", name, f"last used over {days} days ago", num_bytes)


def remove_checkpoint(home: Home, name: str) -> bool:
    """Removes a folder, which is gone at once for whoever looks for it. Hold the home's lock `training`.

    Raises:
        DataError: It cannot be removed.
    """
    folder = home / name
    aside = home / "checkpoints" / f"{_LEAVING}{uuid4().hex[:12]}"
    try:
        folder.rename(aside)
        shutil.rmtree(aside)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise DataError(
            f"cannot remove {folder}: {error}", mend="see to its rights, then run this again"
        ) from error
    return True


def remove_leavings(home: Home) -> None:
    """Ends removals that were cut off."""
    for folder in (home / "checkpoints").glob(f"{_LEAVING}*"):
        shutil.rmtree(folder, ignore_errors=True)


def _folders(root: Path, catalogue: str) -> Iterator[Path]:
    nested = {root / name for name in (*_NESTED, _FLAT)}
    yield from (path for path in _subfolders(root) if path not in nested)
    yield from _subfolders(root / _FLAT)
    for name in _NESTED:
        yield from _subfolders(root / name / catalogue)


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(_LEAVING)]


def _last_use(folder: Path) -> tuple[float, int]:
    """When anything in a folder was written last, in seconds since 1970 UTC, and the size of it all."""
    last, num_bytes = 0.0, 0
    for parent, _, files in os.walk(folder):
        for path in (Path(parent), *(Path(parent) / name for name in files)):
            with suppress(FileNotFoundError):
                status = path.stat()
                last = max(last, status.st_mtime)
                num_bytes += status.st_size if path.name in files else 0
    return last, num_bytes
