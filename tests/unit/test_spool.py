"""The spool: what was put and flushed is delivered, in order, whatever dies; what has no room is refused whole."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event, Lock

import pytest
from tiny_disk import tiny_disk
from waiting import WAIT_SECONDS, until

from tastemaker.errors import StateError
from tastemaker.events import spool as spool_module
from tastemaker.events.forwarding import Forwarder
from tastemaker.events.log import Record
from tastemaker.events.segment import Segment
from tastemaker.events.spool import Spool

LARGE = 2**26


def record(number: int, size: int = 20) -> Record:
    return Record(f"e{number}", "ü", "x" * size, 1_750_000_000_000)


def ids(records: Sequence[Record]) -> list[str]:
    return [one.event_id for one in records]


class Log:
    """Takes deliveries, or refuses them while `broken`."""

    def __init__(self) -> None:
        self.broken = False
        self.records: list[Record] = []
        self._lock = Lock()

    def deliver(self, records: Sequence[Record]) -> None:
        if self.broken:
            raise StateError("cannot append events")
        with self._lock:
            self.records += records


@pytest.fixture
def open_spool(tmp_path: Path) -> Iterator[Callable[..., Spool]]:
    opened: list[Spool] = []

    def start(folder: Path = tmp_path / "spool", max_bytes: int = LARGE) -> Spool:
        spool = Spool(folder, max_bytes, "test")
        spool.start()
        opened.append(spool)
        return spool

    yield start
    for spool in opened:
        spool.stop()


@pytest.fixture
def forward() -> Iterator[Callable[[Spool, Log], Forwarder]]:
    running: list[Forwarder] = []

    def start(spool: Spool, log: Log) -> Forwarder:
        forwarder = Forwarder(spool, log.deliver, "test")
        forwarder.start()
        running.append(forwarder)
        return forwarder

    yield start
    for forwarder in running:
        forwarder.stop()


def put(spool: Spool, *records: Record) -> None:
    spool.put(records).result(WAIT_SECONDS)


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.spool"))


# A process's spool


def test_what_was_put_is_on_disk_and_comes_back_after_a_restart_in_order(
    tmp_path: Path, open_spool: Callable[..., Spool]
) -> None:
    spool = open_spool()
    for n in range(0, 6, 2):
        put(spool, record(n), record(n + 1))
    (file,) = files(tmp_path)
    found, torn = Segment.recover(file)  # as a reader after a crash would: the first holder still runs
    assert (len(found.read(0, LARGE)[0]), torn) == (3, 0)
    found.close()
    spool.stop()
    chunk = open_spool().next(LARGE, 0)
    assert chunk is not None
    assert chunk.records == [record(n) for n in range(6)]


def test_all_is_delivered_in_order_once_the_log_takes_it_and_the_files_go(
    tmp_path: Path,
    open_spool: Callable[..., Spool],
    forward: Callable[[Spool, Log], Forwarder],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tastemaker.events.forwarding.TROUBLED_SECONDS", 0.01)
    monkeypatch.setattr(spool_module, "RETIRE_SECONDS", 0.0)
    log = Log()
    log.broken = True
    spool = open_spool()
    forward(spool, log)
    for n in range(10):
        put(spool, record(n))
    assert not spool.is_empty
    log.broken = False
    until(lambda: spool.is_empty, "the spool to be emptied")
    assert ids(log.records) == [f"e{n}" for n in range(10)]
    until(lambda: not files(tmp_path), "its files to go")
    until(lambda: spool.held_bytes == 0, "its bytes to be given back")
    put(spool, record(10))
    until(lambda: len(log.records) == 11, "what was delivered")


def test_a_batch_without_room_is_refused_whole_and_room_comes_back(
    open_spool: Callable[..., Spool], forward: Callable[[Spool, Log], Forwarder]
) -> None:
    spool = open_spool(max_bytes=2000)
    put(spool, record(0, 1000))
    held = spool.held_bytes
    with pytest.raises(StateError, match=rf"the spool is full, is '{held} bytes', must be at most 2000"):
        spool.put([record(n, 400) for n in range(1, 4)])
    assert spool.held_bytes == held
    put(spool, record(4, 400))
    log = Log()
    forward(spool, log)
    until(lambda: spool.is_empty, "the spool to be emptied")
    put(spool, record(5, 400))
    until(lambda: ids(log.records) == ["e0", "e4", "e5"], "what was delivered")


def test_a_small_spool_takes_any_number_of_events_as_long_as_they_are_forwarded(
    open_spool: Callable[..., Spool], forward: Callable[[Spool, Log], Forwarder]
) -> None:
    spool, log = open_spool(max_bytes=2**16), Log()
    forward(spool, log)
    for n in range(200):  # about 200 kB in all, far over the limit of 64
        put(spool, record(n, 1000))
        until(lambda: spool.is_empty, "the spool to be emptied")
        assert spool.held_bytes < 2**15  # a quarter of the limit, and what comes over it
    until(lambda: len(log.records) == 200, "what was delivered")
    assert ids(log.records) == [f"e{n}" for n in range(200)]


def test_one_flush_serves_all_that_wait(
    open_spool: Callable[..., Spool], monkeypatch: pytest.MonkeyPatch
) -> None:
    spool, flushed, gate = open_spool(), [], Event()
    put(spool, record(0))
    flush = os.fdatasync

    def slow_flush(file: int) -> None:
        flushed.append(file)
        assert gate.wait(WAIT_SECONDS)
        flush(file)

    monkeypatch.setattr(os, "fdatasync", slow_flush)
    first = spool.put([record(1)])
    until(lambda: flushed, "the flush")
    others = [spool.put([record(n)]) for n in range(2, 50)]
    assert not first.done()
    gate.set()
    for done in (first, *others):
        done.result(WAIT_SECONDS)
    assert len(flushed) == 2


def test_two_processes_have_a_folder_each_and_one_takes_over_from_the_other(
    tmp_path: Path, open_spool: Callable[..., Spool], forward: Callable[[Spool, Log], Forwarder]
) -> None:
    one, other = open_spool(), open_spool()
    put(one, record(1))
    put(other, record(2))
    assert [path.parent.name for path in files(tmp_path)] == ["0", "1"]
    one.adopt()  # the other lives: its events are its own
    assert len(list((tmp_path / "spool" / "0").glob("*.spool"))) == 1
    other.stop()
    one.adopt()
    log = Log()
    forward(one, log)
    until(lambda: one.is_empty, "the spool to be emptied")
    assert ids(log.records) == ["e1", "e2"]


def test_a_spool_that_takes_over_puts_new_events_behind(
    open_spool: Callable[..., Spool], forward: Callable[[Spool, Log], Forwarder]
) -> None:
    one, other = open_spool(), open_spool()
    put(other, record(1), record(2))
    other.stop()
    one.adopt()
    put(one, record(3))
    log = Log()
    forward(one, log)
    until(lambda: one.is_empty, "the spool to be emptied")
    assert ids(log.records) == ["e1", "e2", "e3"]


def test_a_flush_that_fails_accepts_nothing_and_its_file_is_not_used_again(
    tmp_path: Path, open_spool: Callable[..., Spool], monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = open_spool()
    put(spool, record(1))
    (file,) = files(tmp_path)
    size, held = file.stat().st_size, spool.held_bytes

    def broken(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as disk:
        disk.setattr(os, "fdatasync", broken)
        with pytest.raises(
            StateError, match="cannot write to the spool: Input/output error: free disk space"
        ):
            put(spool, record(2))
    assert (file.stat().st_size, spool.held_bytes) == (size, held)
    put(spool, record(3))
    assert len(files(tmp_path)) == 2
    spool.stop()
    again = open_spool()
    found: list[str] = []
    while (chunk := again.next(LARGE, 0)) is not None:
        found += ids(chunk.records)
        again.forwarded(chunk)
    assert found == ["e1", "e3"]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with tiny_disk(tmp_path / "tiny", "256k") as folder:
        yield folder


def test_a_full_disk_refuses_whole_batches_and_keeps_every_accepted_one(
    disk: Path, open_spool: Callable[..., Spool], forward: Callable[[Spool, Log], Forwarder]
) -> None:
    spool = open_spool(disk / "spool")
    answers = [spool.put([record(n, 10_000)]).exception(WAIT_SECONDS) for n in range(30)]
    accepted = [f"e{n}" for n, error in enumerate(answers) if error is None]
    assert 15 <= len(accepted) <= 26  # of 10 kB on 256 KiB
    refusals = {str(error) for error in answers if error is not None}
    assert refusals == {
        "cannot write to the spool: No space left on device: free disk space, then send the batch again"
    }
    log = Log()
    forward(spool, log)
    until(lambda: spool.is_empty, "the spool to be emptied")
    put(spool, record(100, 10_000))
    until(lambda: ids(log.records) == [*accepted, "e100"], "what was delivered")


_CHILD = """
import sys
from pathlib import Path
from tastemaker.events.log import Record
from tastemaker.events.spool import Spool
spool = Spool(Path(sys.argv[1]), 2**26, "test")
spool.start()
for n in range(10**9):
    spool.put([Record(f"e{n}", "u", "x" * 300, 1)]).result()
    print(n, flush=True)
"""


def test_kill_9_loses_nothing_that_was_accepted(tmp_path: Path, open_spool: Callable[..., Spool]) -> None:
    folder = tmp_path / "spool"
    with subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(folder)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        accepted = [int(next(child.stdout)) for _ in range(200)]
        child.kill()
        accepted += [int(line) for line in child.stdout if line.endswith("\n")]
    spool, found = open_spool(folder), []
    while (chunk := spool.next(2**12, 0)) is not None:
        found += ids(chunk.records)
        spool.forwarded(chunk)
    assert found[: len(accepted)] == [f"e{n}" for n in accepted]
    assert len(found) <= len(accepted) + 1  # one may be on disk whose answer did not get out
