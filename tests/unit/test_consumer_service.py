"""What the process around a stream consumer does beside stepping it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tastemaker_services.gauges import forget_dead_gauges


def test_gauges_of_killed_processes_leave_the_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    of_dead, of_living = (tmp_path / f"gauge_livesum_{pid}.db" for pid in (ended.pid, os.getpid()))
    counter = tmp_path / f"counter_{ended.pid}.db"
    for file in (of_dead, of_living, counter):
        file.touch()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    forget_dead_gauges()
    assert sorted(tmp_path.iterdir()) == sorted([of_living, counter])
