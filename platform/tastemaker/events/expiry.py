"""Takes the oldest days out of the archive: their rows no longer count from one moment on, then their files go.

A file that a frozen log names stays on disk until that log goes, as after a compaction: a training that is under way, and what is
published of it, still read what they began with.
"""

from datetime import date
from pathlib import Path
from typing import Final

from tastemaker.errors import DataError
from tastemaker.events.archive import parts_of
from tastemaker.events.compaction import keep_manifest, sweep_merged
from tastemaker.events.manifest import Manifest, read_manifest, undisturbed

_WAIT_SECONDS: Final = 600.0


def expired_parts(folder: Path, first_kept: date) -> list[Path]:
    """The files that count and lie in a day before `first_kept`, sorted; those of days under `folder`, which may be absent.

    Raises:
        DataError: The manifest cannot be read.
    """
    if not folder.is_dir():
        return []
    oldest = first_kept.isoformat()
    return [path for path in parts_of(folder) if path.parent.name.removeprefix("day=") < oldest]


def expire_day(folder: Path, day: str) -> int:
    """Takes a day out of the archive; gives the number of files whose rows no longer count.

    What is cut off is run again: files that no longer count are deleted by the next compaction as well. The day's folder stays,
    for a late record may be on its way into it.

    Args:
        folder: Of events or decisions.
        day: Of the rows' own time, `YYYY-MM-DD`.

    Raises:
        UsageError: A compaction takes longer than ten minutes.
        DataError: A file cannot be removed, or a frozen log cannot be read.
    """
    with undisturbed(folder, _WAIT_SECONDS):
        names = [
            str(path.relative_to(folder)) for path in parts_of(folder) if path.parent.name == f"day={day}"
        ]
        try:
            if names:
                manifest = read_manifest(folder)
                left = {name: file for name, file in manifest.files.items() if name not in names}
                keep_manifest(folder, Manifest(files=left, merged=(*manifest.merged, *names)))
            sweep_merged(folder)
        except OSError as error:
            raise DataError(
                f"cannot remove day {day} of {folder}: {error}", mend="see to its rights, then run this again"
            ) from error
    return len(names)
