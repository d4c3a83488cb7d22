"""Events on this machine's disk until the log has them: bounded, flushed before they count as accepted.

A spool is a folder of segments (`segment`) that one process holds by a lock. Whoever puts records waits for a flush;
one flush serves all that wait. `forwarding` takes them to the log in order and has a segment removed once all of it is
there: at least once, and the log's deduplication makes it once, within its window from the records' `received_ms`. A
process that died leaves its segments to the next one that takes the folder, or to a neighbour with nothing to do.
"""

import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgpack
from filelock import FileLock, Timeout

from tastemaker import telemetry
from tastemaker.errors import StateError
from tastemaker.events.log import Record
from tastemaker.events.segment import MAGIC, SUFFIX, Segment, framed, sync_folder

SEGMENT_BYTES: Final = 8 * 2**20
"""Size from which a segment is not appended to; a quarter of a spool that is smaller than four of them."""
RETIRE_SECONDS: Final = 1.0
"""Silence after which a segment that the log has wholly is removed, however small."""
_MOST_FOLDERS: Final = 1000


class Chunk(NamedTuple):
    """Records that are next for the log: `num_frames` frames of `segment`, up to `end`."""

    records: list[Record]
    segment: Segment
    end: int
    num_frames: int


class Spool:
    """One process's spool. Thread-safe.

    Args:
        folder: Of the catalogue; each process has a numbered folder in it.
        max_bytes: Of all segments and of what waits to be written.
        catalogue: For the counts.
    """

    def __init__(self, folder: Path, max_bytes: int, catalogue: str) -> None:
        self._parent, self._max_bytes = folder, max_bytes
        self._segment_bytes = min(SEGMENT_BYTES, max_bytes // 4)
        self._changed = threading.Condition()
        self._files = threading.Lock()  # held while a file is written: never taken by an event loop
        self._waiting: list[tuple[bytes, Future[None]]] = []
        self._segments: deque[Segment] = deque()
        self._active: Segment | None = None
        self._offset = 0
        self._number = 0
        self._written_at = 0.0
        self._held_bytes = 0
        self._num_frames = 0
        self._stopping = False
        self._bytes_held = telemetry.SPOOL_BYTES.labels(catalogue)
        self._torn = telemetry.SPOOL_TORN.labels(catalogue)
        self._writer = threading.Thread(target=self._write, daemon=True, name="spool")

    def start(self) -> None:
        """Takes a folder, with what an earlier process left in any that nobody holds.

        Raises:
            StateError: No folder can be held, or one holds a file of another release.
        """
        self._folder, self._lock = self._claim()
        self._take_up(self._folder)
        self.adopt()
        self._writer.start()

    def stop(self) -> None:
        """Writes what waits, and leaves the segments to the next process."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._writer.is_alive():
            self._writer.join()
        with self._files:
            for segment in self._segments:
                segment.close()
            self._segments.clear()
        self._lock.release()

    @property
    def is_empty(self) -> bool:
        """Whether the log has all that was put."""
        return self._num_frames == 0

    @property
    def held_bytes(self) -> int:
        """Bytes on disk or on their way there."""
        return self._held_bytes

    def put(self, records: Sequence[Record]) -> Future[None]:
        """Takes records as one frame; the future is done once they are on disk, and fails with StateError else.

        Raises:
            StateError: There is no room for all of them, or the spool is stopping; none is taken.
        """
        frame = framed(msgpack.packb([tuple(record) for record in records]))
        done: Future[None] = Future()
        done.set_running_or_notify_cancel()  # a client that goes away does not unwrite a frame
        with self._changed:
            if self._stopping:
                raise StateError("the gateway is stopping", mend="send the batch again")
            if self._held_bytes + len(frame) > self._max_bytes:
                raise StateError(
                    "the spool is full", value=f"{self._held_bytes} bytes", limit=f"at most {self._max_bytes}",
                    mend="see that Redis/Valkey and the stream consumer run, then send the batch again",
                )  # fmt: skip
            self._count(len(frame), 1)
            self._waiting.append((frame, done))
            self._changed.notify_all()
        return done

    def next(self, most_bytes: int, timeout_seconds: float) -> Chunk | None:
        """What the log should get next; None where nothing came in time. For one thread."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._has_unread(), timeout_seconds)
            done = self._finished()
            segment = self._segments[0] if self._segments else None
        for old in done:
            old.remove()
        if segment is None or segment.size <= max(self._offset, len(MAGIC)):
            return None
        payloads, end = segment.read(self._offset, most_bytes)
        records = [Record(*fields) for payload in payloads for fields in msgpack.unpackb(payload)]
        return Chunk(records, segment, end, len(payloads))

    def forwarded(self, chunk: Chunk) -> None:
        """The log has a chunk, on its disk: forgets it, and the segment if that was all of it."""
        with self._changed:
            self._offset = chunk.end
            self._count(0, -chunk.num_frames)
            done = self._finished()
        for old in done:
            old.remove()

    def retire(self) -> None:
        """Removes the last segment where the log has all of it and nothing was put for a while."""
        with self._files, self._changed:
            if self.is_empty and time.monotonic() - self._written_at > RETIRE_SECONDS:
                self._active = None
            done = self._finished()
        for old in done:
            old.remove()

    def adopt(self) -> None:
        """Takes over the segments of folders that nobody holds.

        Raises:
            StateError: One holds a file of another release.
        """
        for folder in sorted(self._parent.iterdir()):
            if folder == self._folder or not any(folder.glob(f"*{SUFFIX}")):
                continue
            try:
                with FileLock(folder / "lock", timeout=0):
                    self._take_up(folder)
            except Timeout:
                continue

    def _claim(self) -> tuple[Path, FileLock]:
        for number in range(_MOST_FOLDERS):
            folder = self._parent / str(number)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = FileLock(folder / "lock", timeout=0, thread_local=False)
            try:
                lock.acquire()
            except Timeout:
                continue
            return folder, lock
        raise StateError(f"spools in {self._parent}", limit=f"at most {_MOST_FOLDERS}", mend="stop a gateway")

    def _take_up(self, folder: Path) -> None:
        """Makes the segments in `folder` ours: behind those that we have, in their order."""
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            segment, torn_bytes = Segment.recover(path)
            self._torn.inc(torn_bytes)
            num_frames = len(segment.read(0, segment.size)[0])
            with self._files, self._changed:
                if folder == self._folder:
                    self._number = int(path.stem)
                else:
                    segment.path = path.rename(self._next_path())
                self._active = None
                self._segments.append(segment)
                self._count(segment.size, num_frames)
                self._changed.notify_all()
        sync_folder(self._folder)

    def _next_path(self) -> Path:
        self._number += 1
        return self._folder / f"{self._number:012d}{SUFFIX}"

    def _write(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._stopping:
                    self._changed.wait()
                batch, self._waiting = self._waiting, []
            if not batch:
                return
            self._commit(batch)

    def _commit(self, batch: Sequence[tuple[bytes, Future[None]]]) -> None:
        """One write and one flush for all."""
        error = self._append([frame for frame, _ in batch])
        with self._changed:
            if error is not None:
                self._count(-sum(len(frame) for frame, _ in batch), -len(batch))
            self._changed.notify_all()
        for _, done in batch:
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(_unwritten(error))

    def _append(self, frames: Iterable[bytes]) -> OSError | None:
        with self._files:
            try:
                if self._active is None:
                    segment = Segment.create(self._next_path())
                    with self._changed:
                        self._active = segment
                        self._segments.append(segment)
                        self._count(segment.size, 0)
                self._active.append(b"".join(frames))
            except OSError as error:
                self._active = None
                return error
            self._written_at = time.monotonic()
            if self._active.size >= self._segment_bytes:
                self._active = None
        return None

    def _has_unread(self) -> bool:
        """Whether any segment has a frame on disk that was not given out."""
        read = [self._offset, *(0 for _ in self._segments)]
        return any(
            segment.size > max(at, len(MAGIC)) for segment, at in zip(self._segments, read, strict=False)
        )

    def _finished(self) -> list[Segment]:
        """Takes out the segments that the log has wholly and nobody appends to, oldest first."""
        finished: list[Segment] = []
        while self._segments and self._segments[0] is not self._active:
            segment = self._segments[0]
            if segment.size > max(self._offset, len(MAGIC)):
                break
            finished.append(self._segments.popleft())
            self._offset = 0
            self._count(-segment.size, 0)
        return finished

    def _count(self, num_bytes: int, num_frames: int) -> None:
        self._held_bytes += num_bytes
        self._num_frames += num_frames
        self._bytes_held.set(self._held_bytes)


def _unwritten(error: OSError) -> StateError:
    reason: Any = error.strerror or error
    found = StateError(
        f"cannot write to the spool: {reason}", mend="free disk space, then send the batch again"
    )
    found.__cause__ = error
    return found
