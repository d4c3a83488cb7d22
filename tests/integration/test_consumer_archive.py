"""Parquet is written beside the consumer's steps: nothing leaves a stream before it is on disk, nothing is read twice."""

import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import pytest
from streams import event, send
from waiting import until

from tastemaker.errors import DataError
from tastemaker.events import archive, archiver
from tastemaker.events.archive import EVENT_SCHEMA, erase_user, read_days
from tastemaker.events.consumer import StreamConsumer
from tastemaker.events.drained import is_drained
from tastemaker.events.erasure import erase_online
from tastemaker.events.history import read_history
from tastemaker.events.progress import Progress
from tastemaker.experiments.reward_joiner import RewardJoiner
from tastemaker.features.stream import StreamFeatures


class Later(Executor):
    """Does what was submitted when the test says so."""

    def __init__(self) -> None:
        self._waiting: list[Callable[[], None]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def work() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except Exception as error:  # noqa: BLE001 (as executors do)
                future.set_exception(error)

        self._waiting.append(work)
        return future

    def work(self) -> None:
        assert self._waiting, "nothing was submitted"
        while self._waiting:
            self._waiting.pop()()


def make_consumer(state: Any, writer: Executor | None) -> StreamConsumer:
    rewards = RewardJoiner(state.client, state.keys)
    effects = StreamFeatures(state.client, state.keys, state.home)
    return StreamConsumer(
        state.client, state.keys, state.home, state.settings, rewards, effects, writer=writer
    )


def waiting(state: Any) -> int:
    return sum(state.client.xlen(state.keys.events(p)) for p in range(state.keys.partitions))


def archived(state: Any) -> list[str]:
    table = read_days(state.home / "events" / state.keys.catalogue, EVENT_SCHEMA, "event_id")
    item_ids: list[Any] = table["item_id"].to_pylist()
    return sorted(item_ids)


def progress(state: Any, user: str) -> Progress:
    return Progress.decode(state.client.hget(state.keys.offsets(state.keys.partition(user)), "progress"))


def test_events_count_while_parquet_is_written_and_only_what_was_written_is_trimmed(state: Any) -> None:
    writer = Later()
    worker = make_consumer(state, writer)
    send(state, event("ann", "a"))
    assert worker.step().archived == 0
    send(state, event("ann", "b"))
    assert worker.step().archived == 0
    assert read_history(state.client, state.keys, "ann") == ["a", "b"]
    assert waiting(state) == 2
    writer.work()
    assert waiting(state) == 2  # the consumer alone trims
    assert worker.step().archived == 1
    assert (archived(state), waiting(state)) == (["a"], 1)
    at = progress(state, "ann")
    assert at.archived_events < at.events


def test_what_another_consumer_archived_meanwhile_is_left_as_it_is(state: Any) -> None:
    writer = Later()
    first = make_consumer(state, writer)
    send(state, event("ann", "a"))
    first.step()
    first._leases.release()  # as if they had run out
    second = make_consumer(state, None)
    send(state, event("ann", "b"))
    assert second.drain(10)
    second.close()
    before = progress(state, "ann")
    first._leases.doubt()
    writer.work()
    first.step()
    assert progress(state, "ann") == before
    assert (archived(state), waiting(state)) == (["a", "b"], 0)


def test_closing_ends_the_writing_under_way(state: Any) -> None:
    with ThreadPoolExecutor(1) as writer:
        worker = make_consumer(state, writer)
        send(state, event("ann", "a"))
        worker.step()
        worker.close()
    assert (archived(state), waiting(state)) == (["a"], 0)


def test_a_thread_archives_all(state: Any) -> None:
    with ThreadPoolExecutor(1) as writer:
        worker = make_consumer(state, writer)
        for n in range(50):
            send(state, event(f"u{n % 7}", f"{n:02}"))
            worker.step()
        assert worker.drain(10)
        assert is_drained(state.client, state.keys)
        worker.close()
    assert archived(state) == [f"{n:02}" for n in range(50)]


def test_a_failure_in_the_thread_is_told_by_a_step_and_nothing_is_trimmed(
    state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    writer = Later()
    worker = make_consumer(state, writer)
    send(state, event("ann", "a"))
    worker.step()
    with monkeypatch.context() as broken:
        broken.setattr(archive, "write_bytes", full)
        writer.work()
    with pytest.raises(DataError, match="No space"):
        worker.step()
    assert waiting(state) == 1
    worker._archive_at = 0.0
    worker.step()
    writer.work()
    until(lambda: worker.step().archived == 1, "what failed to be written")
    assert (archived(state), waiting(state)) == (["a"], 0)


def test_who_is_erased_between_reading_the_stream_and_writing_the_file_is_in_no_file(
    state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = state.home / "events" / state.keys.catalogue

    def erased_first(folder: Any, rows: Any) -> int:
        erase_online(state.client, state.client, state.keys, "ann", time.time_ns() // 1_000_000)
        assert erase_user(days, "ann").rows == 0  # it searches the files before the row is there
        return archive.write_days(folder, rows)

    writer = Later()
    worker = make_consumer(state, writer)
    send(state, event("ann", "a"), event("ben", "b"))
    worker.step()
    with monkeypatch.context() as unlucky:
        unlucky.setattr(archiver, "write_days", erased_first)
        writer.work()
    assert archived(state) == ["b"]


def test_who_came_back_after_an_erasure_is_archived(state: Any) -> None:
    worker = make_consumer(state, None)
    long_ago_ms = time.time_ns() // 1_000_000 - 60_000
    erase_online(state.client, state.client, state.keys, "ann", long_ago_ms)
    send(state, event("ann", "a", timestamp_ms=long_ago_ms + 50_000))
    assert worker.drain(10)
    assert archived(state) == ["a"]
