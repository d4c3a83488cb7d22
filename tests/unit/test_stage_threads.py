"""Which thread of a stage's process does what: requests wait for one, and not for the other."""

import asyncio
import threading
from typing import Any

from tastemaker_services.replicas.answering import Answering
from tastemaker_services.replicas.calls import Failed


def thread(version: str, rest: list[Any]) -> str:
    return f"{version} {rest} {threading.current_thread().name.rpartition('_')[0]}"


def test_no_request_waits_for_what_is_done_aside() -> None:
    ranker = Answering("ranker", {"sha": "one"})
    assert asyncio.run(ranker.do(thread, [("sha", 1), ("sha", 2)])) == ["one [1] ranker", "one [2] ranker"]
    assert asyncio.run(ranker.do(thread, [("sha", 1)], aside=True)) == ["one [1] ranker-aside"]


def test_a_call_that_fails_concerns_no_other_of_its_message() -> None:
    def half(version: int, rest: list[Any]) -> float:
        return version / rest[0]

    answers = Answering("ranker", {"a": 6, "b": 8}).each(half, [("a", 2), ("a", 0), ("c", 1), ("b", 2)])
    assert answers == [
        3.0,
        Failed("ZeroDivisionError: division by zero"),
        Failed("bundle c is not loaded here"),
        4.0,
    ]
