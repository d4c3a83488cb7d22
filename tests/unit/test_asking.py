"""Sources side by side: who is late or fails is missing, and nobody else."""

import threading
from collections import Counter
from functools import partial

import numpy as np
import pytest

from tastemaker.stages.asking import InTurn, Outcome, SideBySide
from tastemaker.stages.merging import SourceConfig
from tastemaker.stages.retrieval import Retrieval, RetrievalConfig
from tastemaker.stages.source import AskedLists, Source
from tastemaker.types import Query

NOBODY = Query(np.empty(0, np.int32), k=3)


class Listed(Source):
    """Proposes some rows, after `wait`."""

    needs_history = False

    def __init__(self, name: str, rows: list[int]) -> None:
        self.name, self.rows = name, np.array(rows, np.int32)
        self.go_on, self.num_asked = threading.Event(), 0
        self.go_on.set()
        self.fails_at = ""

    def ask(self, queries):
        self.num_asked += 1
        self.go_on.wait(30)
        if self.fails_at == "ask":
            raise RuntimeError("broken")
        asked = AskedLists(queries, [(self.rows, np.ones(len(self.rows), np.float32))] * len(queries))
        if self.fails_at == "score":
            asked.score = lambda _: 1 / 0  # type: ignore[method-assign]
        return asked


class Counted:
    def __init__(self) -> None:
        self.calls: Counter[tuple[str, Outcome]] = Counter()

    def __call__(self, name: str, outcome: Outcome) -> None:
        self.calls[name, outcome] += 1


def made(*sources: Source, seconds: float = 0.2) -> tuple[Retrieval, Counted]:
    counted = Counted()
    config = RetrievalConfig(sources=tuple(SourceConfig(name=source.name) for source in sources))
    asking = SideBySide(seconds, counted)
    return Retrieval({source.name: source for source in sources}, config, asking=asking), counted


def test_side_by_side_gives_what_in_turn_does() -> None:
    sources = Listed("a", [1, 2]), Listed("b", [2, 3])
    beside, counted = made(*sources, seconds=30)
    in_turn = Retrieval({s.name: s for s in sources}, beside.config, asking=InTurn())
    for found, expected in zip(beside([NOBODY]), in_turn([NOBODY]), strict=True):
        assert found.item_index.tolist() == expected.item_index.tolist() == [2, 1, 3]
        np.testing.assert_array_equal(found.source_score_KS, expected.source_score_KS)
        assert found.missing_sources == 0
    assert counted.calls == {("a", "ok"): 1, ("b", "ok"): 1}


def test_a_source_that_hangs_is_missing_and_left_alone_until_it_returns() -> None:
    hangs, answers = Listed("hangs", [1, 2]), Listed("answers", [7, 8])
    retrieval, counted = made(hangs, answers)
    hangs.go_on.clear()
    for _ in range(3):
        (found,) = retrieval([NOBODY])
        assert found.item_index.tolist() == [7, 8]
        assert found.missing_sources == 1
        assert found.take([0]).missing_sources == 1
        assert np.isnan(found.source_score_KS[:, 0]).all()
    assert hangs.num_asked == 1
    assert counted.calls == {("hangs", "late"): 3, ("answers", "ok"): 3}
    hangs.go_on.set()
    ends = threading.Event()
    for _ in range(100):
        (found,) = retrieval([NOBODY])
        if not found.missing_sources:
            break
        ends.wait(0.05)
    assert found.item_index.tolist() == [1, 2, 7, 8]


@pytest.mark.parametrize("fails_at", ["ask", "score"])
@pytest.mark.parametrize("is_light", [False, True])
def test_a_source_that_fails_is_missing_and_warns_once(
    caplog: pytest.LogCaptureFixture, fails_at: str, is_light: bool
) -> None:
    breaks, answers = Listed("breaks", [1, 2]), Listed("answers", [7, 8])
    breaks.fails_at, breaks.is_light = fails_at, is_light
    retrieval, counted = made(answers, breaks, seconds=30)
    for _ in range(2):
        (found,) = retrieval([NOBODY])
        assert found.missing_sources == 2
        assert set(found.item_index.tolist()) >= {7, 8}
    assert counted.calls["breaks", "failed"] == 2
    assert caplog.text.count("source breaks failed") == 1


class Clock:
    """Moves on by what is added to it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Asked:
    """Jobs that take some seconds of a clock, and which of them ran in the caller's thread."""

    def __init__(self, seconds: float, names: str) -> None:
        self.clock, self.counted = Clock(), Counted()
        self.takes = dict.fromkeys(names, 0.0)
        self.asking = SideBySide(seconds, self.counted, clock=self.clock)
        self.here: set[str] = set()

    def _job(self, name: str) -> str:
        self.clock.now += self.takes[name]
        if threading.current_thread() is threading.main_thread():
            self.here.add(name)
        return name.upper()

    def once(self, *names: str) -> dict[str, str]:
        self.here.clear()
        return self.asking.all({name: partial(self._job, name) for name in names}, frozenset())

    def until_quick(self, *names: str) -> None:
        """One by one, so that only its own job moves the clock of a call."""
        for name in names:
            for _ in range(100):
                self.once(name)


def test_a_source_that_has_been_quick_for_a_while_is_asked_in_the_callers_thread() -> None:
    asked = Asked(30.0, "a")
    first = next(number for number in range(100) if asked.once("a") == {"a": "A"} and asked.here)
    # Its mean time is 30 * 0.95^n after n calls that took none: 10 or less from the 22nd on.
    assert first == 22
    assert asked.counted.calls == {("a", "ok"): 23}


def test_the_quickest_are_asked_in_the_callers_thread_as_long_as_they_take_a_third_together() -> None:
    asked = Asked(30.0, "abc")
    asked.takes = {"a": 1.0, "b": 8.0, "c": 2.0}
    asked.until_quick("a", "b", "c")
    assert asked.once("a", "b", "c") == {"a": "A", "b": "B", "c": "C"}
    assert asked.here == {"a", "c"}


def test_a_quick_source_that_turns_slow_costs_one_answer_and_is_asked_in_threads_from_then_on() -> None:
    asked = Asked(30.0, "ab")
    asked.until_quick("a", "b")
    asked.takes["a"] = 31.0
    assert asked.once("a", "b") == {"a": "A"}, "b would have been asked when the time was over"
    assert asked.here == {"a"}
    assert asked.counted.calls["b", "late"] == 1
    asked.takes["a"] = 0.0
    assert asked.once("a", "b") == {"a": "A", "b": "B"}
    assert asked.here == {"b"}
    asked.until_quick("a")
    asked.once("a")
    assert asked.here == {"a"}, "it has been quick again for a while"


def test_in_turn_a_fault_is_the_callers() -> None:
    breaks = Listed("breaks", [1])
    breaks.fails_at = "ask"
    retrieval = Retrieval({"breaks": breaks}, RetrievalConfig(sources=(SourceConfig(name="breaks"),)))
    with pytest.raises(RuntimeError, match="broken"):
        retrieval([NOBODY])
