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


def test_it_looks_again_the_sooner_the_more_is_to_be_expected() -> None:
    from tastemaker.errors import StateError
    from tastemaker.events.consumer import Step
    from tastemaker_services.stream import loop as consumer

    outcomes = [
        Step(partitions=4, events=4000, behind=True), Step(partitions=4, events=7), Step(partitions=4),
        StateError("away"),
    ]  # fmt: skip

    class Stepper:
        def __init__(self) -> None:
            self.outcomes = iter(outcomes)

        def step(self) -> Step:
            outcome = next(self.outcomes)
            if isinstance(outcome, StateError):
                raise outcome
            return outcome

        def close(self) -> None: ...

    loop = consumer.ConsumerLoop(Stepper())
    pauses = [loop.step() for _ in outcomes]
    assert pauses == [0.0, consumer.BUSY_SECONDS, consumer.EVERY_SECONDS, consumer.TROUBLED_SECONDS]
    assert pauses == sorted(pauses)
