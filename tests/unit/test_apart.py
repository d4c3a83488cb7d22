"""Partitions are stepped together, and after an error one by one for a while."""

import pytest

from tastemaker.errors import StateError
from tastemaker.events import apart
from tastemaker.events.apart import APART_SECONDS, REST_SECONDS, WAIT_SECONDS, Apart


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(apart.time, "monotonic", lambda: now[0])
    return now


def fail() -> int:
    raise StateError("away")


def test_partitions_that_failed_rest_while_the_others_go_on_one_by_one(clock: list[float]) -> None:
    mode = Apart(in_parts=True)
    assert mode.groups([0, 1, 2]) == [[0, 1, 2]]
    mode.begin()
    assert mode.groups([0, 1, 2]) == [[0], [1], [2]]
    mode.rest([1])
    assert mode.groups([0, 1, 2]) == [[0], [2]]
    clock[0] += REST_SECONDS
    assert mode.groups([0, 1, 2]) == [[0], [1], [2]]
    clock[0] += APART_SECONDS
    assert mode.groups([0, 1, 2]) == [[0, 1, 2]]


def test_what_is_of_the_whole_catalogue_may_fail_only_after_something_had(clock: list[float]) -> None:
    mode = Apart(in_parts=True)
    with pytest.raises(StateError, match="away"):
        mode.attempt(fail, otherwise=0)
    mode.begin()
    clock[0] += APART_SECONDS / 2
    assert mode.attempt(fail, otherwise=0) == 0
    clock[0] += APART_SECONDS / 2  # which began anew
    assert mode.is_on
    assert mode.attempt(lambda: 3, otherwise=0) == 3
    tried: list[float] = []

    def note() -> int:
        tried.append(clock[0])
        return fail()

    for _ in range(4):
        assert mode.attempt(note, otherwise=0) == 0
        clock[0] += WAIT_SECONDS / 2
    assert len(tried) == 2  # it waits in between
    assert mode.is_waiting


def test_what_waited_and_is_done_waits_no_more(clock: list[float]) -> None:
    mode = Apart(in_parts=True)
    mode.begin()
    away = [True]

    def sum_up() -> int:
        return fail() if away[0] else 1

    assert mode.attempt(sum_up, otherwise=0) == 0
    assert mode.is_waiting
    away[0] = False
    clock[0] += WAIT_SECONDS
    assert mode.attempt(sum_up, otherwise=0) == 1
    assert not mode.is_waiting


def test_on_a_single_server_nothing_is_left_to_go_on_with() -> None:
    mode = Apart(in_parts=False)
    mode.begin()
    assert not mode.is_on
    assert mode.groups([0, 1]) == [[0, 1]]
    with pytest.raises(StateError, match="away"):
        mode.attempt(fail, otherwise=0)
