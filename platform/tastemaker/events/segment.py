"""One file of a spool: frames appended and flushed to disk, read back after a crash up to the first torn one.

A file is `MAGIC`, then frames: length and CRC-32 of the payload (both uint32, little-endian), and the payload.
"""

import os
import struct
import zlib
from pathlib import Path
from typing import Final

from tastemaker.errors import StateError

SUFFIX: Final = ".spool"
MAGIC: Final = b"TMSPOOL1"
"""The last byte is the layout's version."""
_HEAD: Final = struct.Struct("<II")


def framed(payload: bytes) -> bytes:
    """A frame around a payload, which must not be empty: nothing but zeros would pass for an empty frame."""
    assert payload
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


class Segment:
    """A file of frames. One thread may append while another reads what was appended."""

    def __init__(self, path: Path, file: int, size: int) -> None:
        self.path, self._file = path, file
        self.size = size
        """Bytes that are whole frames on disk; what lies behind is not there for anyone."""

    @classmethod
    def create(cls, path: Path) -> "Segment":
        """A new file without frames. Its name is on disk before the first frame can be.

        Raises:
            OSError: It cannot be made; nothing is left of it then.
        """
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        segment = cls(path, file, 0)
        try:
            segment.append(MAGIC)
            sync_folder(path.parent)
        except OSError:
            segment.remove()
            raise
        return segment

    @classmethod
    def recover(cls, path: Path) -> tuple["Segment", int]:
        """A file that an earlier process left, cut behind its last whole frame; and how many bytes that cost.

        Raises:
            StateError: It is no file of ours; it stays as it is.
        """
        content = path.read_bytes()
        head = content[: len(MAGIC)]
        if head.strip(b"\0") and not MAGIC.startswith(head):
            raise StateError(
                f"spool file {path}", value=head.hex(), limit=MAGIC.hex(),
                mend="start the release that wrote it, or move the file away",
            )  # fmt: skip
        size = _whole_bytes(content) if head == MAGIC else 0
        segment = cls(path, os.open(path, os.O_RDWR | os.O_CLOEXEC), size)
        os.ftruncate(segment._file, size)
        return segment, len(content) - size

    def append(self, frames: bytes) -> None:
        """Returns once the frames are on disk.

        Raises:
            OSError: They are not, and this file must not be appended to again: a disk that failed a flush may
                report the next one done although it is not.
        """
        try:
            at = self.size
            while at < self.size + len(frames):
                at += os.pwrite(self._file, frames[at - self.size :], at)
            os.fdatasync(self._file)
        except OSError:
            os.ftruncate(self._file, self.size)
            raise
        self.size = at

    def read(self, start: int, most_bytes: int) -> tuple[list[bytes], int]:
        """Payloads of the frames from `start` on, and where the next one starts.

        Args:
            start: 0, or what the last call gave.
            most_bytes: Size of the answer, by about a frame.
        """
        at = max(start, len(MAGIC))
        payloads: list[bytes] = []
        while at < min(self.size, start + most_bytes):
            length, crc = _HEAD.unpack(os.pread(self._file, _HEAD.size, at))
            payload = os.pread(self._file, length, at + _HEAD.size)
            if zlib.crc32(payload) != crc:
                raise StateError(
                    f"spool file {self.path} changed on disk", value=f"a wrong checksum at byte {at}",
                    mend="check the disk; move the file away to go on without it",
                )  # fmt: skip
            payloads.append(payload)
            at += _HEAD.size + length
        return payloads, at

    def remove(self) -> None:
        """Closes and deletes the file."""
        self.close()
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Closes the file, which stays."""
        os.close(self._file)


def sync_folder(folder: Path) -> None:
    """Puts a folder's names on disk."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _whole_bytes(content: bytes) -> int:
    """Where the first frame starts that is cut short or does not match its checksum, or the end."""
    at = len(MAGIC)
    while at + _HEAD.size <= len(content):
        length, crc = _HEAD.unpack_from(content, at)
        end = at + _HEAD.size + length
        if not length or end > len(content) or zlib.crc32(memoryview(content)[at + _HEAD.size : end]) != crc:
            break
        at = end
    return at
