"""What a run of `tastemaker gc` leaves written, however it ends."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tastemaker.errors import DataError
from tastemaker.home import Home
from tastemaker.retention.gone import Gone
from tastemaker.retention.receipts import JOURNAL, RECEIPTS, Journal, append_receipt, killed_run, settle

BLOBS = [Gone("blob", f"blobs/{n}", "no manifest names it", n) for n in range(4)]
KILLED = """
import os, signal, sys
from pathlib import Path
from tastemaker.home import Home
from tastemaker.retention.gone import Gone
from tastemaker.retention.receipts import Journal
journal = Journal(Home.open(Path(sys.argv[1])), "shop")
blobs = [Gone("blob", f"blobs/{n}", "no manifest names it", n) for n in range(4)]
for one in blobs[:3]:
    journal.removes(one)
    if one.num_bytes == 1:
        journal.stays(one)
    if one.num_bytes == 2:
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.make(tmp_path / "home")


def receipts(home: Home) -> list[dict[str, Any]]:
    path = home / "logs" / RECEIPTS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def begun(home: Home, *gone: Gone) -> Journal:
    journal = Journal(home, "shop")
    for one in gone:
        journal.removes(one)
    return journal


def written(home: Home, *gone: Gone) -> bytes:
    """The journal of a run that is removing the last of these."""
    journal = begun(home, *gone)
    content = (home / "logs" / JOURNAL).read_bytes()
    journal.end(None)
    return content


def test_a_run_that_was_killed_is_told_once_by_the_next(home: Home) -> None:
    child = subprocess.run([sys.executable, "-c", KILLED, str(home.root)], check=False)
    assert child.returncode == -signal.SIGKILL
    told = killed_run(home)  # a dry run only looks
    assert receipts(home) == []
    assert settle(home) == told
    assert told is not None
    assert told["removed"] == [BLOBS[0].as_dict()]  # 1 stayed, 2 was being removed
    assert (told["cut_off"], told["failed"]) == (BLOBS[2].as_dict(), "killed")
    assert receipts(home) == [told]
    assert settle(home) is None
    assert receipts(home) == [told]


def test_what_is_announced_waits_for_the_disk_once(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, synced = begun(home, Gone("manifest", "m", "", 0)), []
    monkeypatch.setattr("os.fsync", synced.append)
    for some in (BLOBS[:2], BLOBS[2:]):
        journal.announces(some)
        for one in some:
            journal.removes(one)
    assert len(synced) == 2
    journal.removes(Gone("run", "r", "", 0))
    assert len(synced) == 3
    monkeypatch.undo()
    journal.end(None)


def test_what_was_announced_and_not_begun_is_told_apart(home: Home) -> None:
    """Of two batches, cut off behind each line."""
    journal, path = begun(home), home / "logs" / JOURNAL
    told = []

    def keep() -> None:
        found = killed_run(home)
        assert found is not None
        names = [[one["num_bytes"] for one in found[kind]] for kind in ("removed", "announced")]
        told.append((names[0], found["cut_off"] and found["cut_off"]["num_bytes"], names[1]))

    for some in (BLOBS[:2], BLOBS[2:]):
        journal.announces(some)
        keep()
        for one in some:
            journal.removes(one)
            keep()
    journal.stays(BLOBS[3])
    keep()
    assert told == [
        ([], None, [0, 1]), ([], 0, [1]), ([0], 1, []), ([0, 1], None, [2, 3]), ([0, 1], 2, [3]), ([0, 1, 2], 3, []),
        ([0, 1, 2], None, []),
    ]  # fmt: skip
    journal.end(None)
    assert not path.exists()


def test_a_run_that_ends_leaves_its_receipt_alone(home: Home) -> None:
    journal = begun(home, *BLOBS[:2])
    journal.end({"removed": [one.as_dict() for one in BLOBS[:2]]})
    assert not (home / "logs" / JOURNAL).exists()
    (line,) = receipts(home)
    assert (line["catalogue"], line["removed"][1]) == ("shop", BLOBS[1].as_dict())
    assert killed_run(home) is None


def test_a_run_that_removed_nothing_leaves_nothing(home: Home) -> None:
    journal = begun(home, BLOBS[0])
    journal.stays(BLOBS[0])
    journal.end(None)
    assert list((home / "logs").iterdir()) == []


def test_a_run_that_was_killed_after_its_receipt_is_not_told_twice(home: Home) -> None:
    content = written(home, BLOBS[0])
    append_receipt(home, {"run": json.loads(content.splitlines()[0])["run"], "removed": []})
    append_receipt(home, {"run": "another", "removed": []})
    (home / "logs" / JOURNAL).write_bytes(content)
    assert settle(home) is None
    assert len(receipts(home)) == 2
    assert not (home / "logs" / JOURNAL).exists()


def test_what_a_power_loss_left_of_the_journal_counts_line_by_line(home: Home) -> None:
    """What a line says that was cut short was not begun."""
    content = written(home, *BLOBS[:3])
    ends = [n for n in range(len(content)) if content[n : n + 1] == b"\n"]  # a newline alone may be missing
    for length in range(len(content) + 1):
        (home / "logs" / JOURNAL).write_bytes(content[:length])
        num_begun = sum(end <= length for end in ends) - 1
        told = killed_run(home)
        if num_begun < 0:
            assert told is None
        else:
            assert told is not None
            last = [one.as_dict() for one in BLOBS[:num_begun]]
            assert [*told["removed"], *([told["cut_off"]] if told["cut_off"] else [])] == last
            assert len(told["removed"]) == max(0, num_begun - 1)


def test_a_receipt_that_was_cut_short_spoils_no_other(home: Home) -> None:
    path = home / "logs" / RECEIPTS
    path.write_bytes(b'{"run": "a"}\n{"run": "b", "rem')
    append_receipt(home, {"run": "c"})
    assert path.read_bytes() == b'{"run": "a"}\n{"run": "b", "rem\n{"run": "c"}\n'


def test_nothing_is_to_go_that_cannot_be_written_down(home: Home) -> None:
    (home / "logs" / JOURNAL).mkdir()
    with pytest.raises(DataError, match="make room, or mend its rights"):
        Journal(home, "shop").removes(BLOBS[0])
