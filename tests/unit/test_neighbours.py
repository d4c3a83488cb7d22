"""Requests of a machine's processes: seen by whoever loads, also of another process, and not of one that is gone."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from tastemaker_services.versions import neighbours
from tastemaker_services.versions.giving_way import UnderWay
from tastemaker_services.versions.neighbours import Neighbours, page_of

HOUR = 3600.0


class Time:
    """Passes where something sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    clock = Time()
    monkeypatch.setattr(neighbours, "time", clock)
    return clock


@pytest.fixture
def both(tmp_path: Path, clock: Time, monkeypatch: pytest.MonkeyPatch) -> tuple[UnderWay, Neighbours]:
    """Another process's requests, and what a loader here sees of the machine."""
    other = UnderWay()
    monkeypatch.setattr("os.getpid", lambda: 4711)
    Neighbours(tmp_path / "page", other)
    monkeypatch.setattr("os.getpid", lambda: 4712)
    return other, Neighbours(tmp_path / "page", UnderWay())


def test_a_loader_sees_the_requests_of_other_processes(both: tuple[UnderWay, Neighbours]) -> None:
    other, machine = both
    assert not machine.any
    with other:
        assert machine.any
        with other:
            pass
        assert machine.any
    assert not machine.any
    assert machine.wait(HOUR)


def test_it_waits_for_them_no_longer_than_it_may(both: tuple[UnderWay, Neighbours], clock: Time) -> None:
    other, machine = both
    with other:
        assert not machine.wait(0.1)
    assert 1000.1 <= clock.now < 1000.1 + 2 * neighbours.AGAIN_SECONDS


def test_who_was_killed_amid_a_request_holds_up_nobody_for_long(
    both: tuple[UnderWay, Neighbours], clock: Time
) -> None:
    other, machine = both
    other.__enter__()
    assert machine.wait(HOUR)
    assert clock.now < 1000.0 + neighbours.AT_MOST_SECONDS + 2 * neighbours.AGAIN_SECONDS


def test_what_was_told_before_the_machine_started_anew_counts_for_nothing(
    both: tuple[UnderWay, Neighbours], clock: Time
) -> None:
    other, machine = both
    with other:
        clock.now = 3.0  # clocks of machines begin at their start
        assert not machine.any


def test_own_requests_count_too(tmp_path: Path) -> None:
    own = UnderWay()
    machine = Neighbours(tmp_path / "page", own)
    with own:
        assert machine.any
        assert not machine.wait(0.0)
    assert machine.wait(0.0)


def test_processes_share_one_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "AT_MOST_SECONDS", HOUR)
    code = (
        "import sys, pathlib; from tastemaker_services.versions import neighbours as n; n.AT_MOST_SECONDS = 3600.0;"
        "u = n.UnderWay(); n.Neighbours(pathlib.Path(sys.argv[1]), u); u.__enter__(); print('busy', flush=True); sys.stdin.read()"
    )
    machine = Neighbours(tmp_path / "page", UnderWay())
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "page")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "busy\n"
        assert machine.any
        assert process.stdin is not None
        process.stdin.close()


def test_a_page_that_is_there_keeps_what_others_said(
    both: tuple[UnderWay, Neighbours], tmp_path: Path
) -> None:
    other, _ = both
    with other:
        assert Neighbours(tmp_path / "page", UnderWay()).any


def test_each_home_has_a_page_of_the_machine_outside_of_it(tmp_path: Path) -> None:
    """A home may be on a volume that machines share, whose clocks are not the same."""
    one, two = page_of(tmp_path / "one" / "run"), page_of(tmp_path / "two" / "run")
    assert one != two
    assert one == page_of(tmp_path / "one" / "x" / ".." / "run")
    assert not one.is_relative_to(tmp_path)


def test_a_page_behind_a_link_is_not_written_to(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "theirs").write_bytes(b"theirs")
    (tmp_path / "page").symlink_to(tmp_path / "theirs")
    with caplog.at_level(logging.WARNING):
        Neighbours(tmp_path / "page", UnderWay())
    assert "give way to no other process" in caplog.text
    assert (tmp_path / "theirs").read_bytes() == b"theirs"


def test_only_its_user_reads_a_page(tmp_path: Path) -> None:
    Neighbours(tmp_path / "page", UnderWay())
    assert (tmp_path / "page").stat().st_mode & 0o777 == 0o600


def test_without_a_place_for_the_page_a_process_knows_its_own_requests(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = UnderWay()
    with caplog.at_level(logging.WARNING):
        machine = Neighbours(tmp_path / "nowhere" / "page", own)
    assert "give way to no other process" in caplog.text
    with own:
        assert machine.any
    assert not machine.any
