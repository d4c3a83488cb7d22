"""The event log's scripts and leases, on a real Valkey."""

import asyncio
import json
from typing import Any

import pytest
from waiting import until

from tastemaker.config import StateSettings
from tastemaker.errors import StateError
from tastemaker.events.log import append, append_records_async, read, record_of
from tastemaker.events.schema import Event
from tastemaker.experiments.decision_log import Decision, append_decision, append_decision_async
from tastemaker.state.connection import connect_async
from tastemaker.state.lease import Lease, queue_commit

NOW_MS = 1_750_000_000_000
DAY_MS = 86_400_000


def events(*ids: str, user: str = "u") -> list[Event]:
    return [Event(event_id=i, user_id=user, item_id="i", kind="click", timestamp_ms=NOW_MS) for i in ids]


# The event log


def test_an_event_is_taken_once(state: Any) -> None:
    settings = state.settings.state
    assert append(state.client, state.keys, events("a", "b"), settings, NOW_MS) == (2, 0)
    assert append(state.client, state.keys, events("b", "c"), settings, NOW_MS) == (1, 1)
    # Remembered through the next window as well.
    later = NOW_MS + settings.dedup_window_seconds * 1000
    assert append(state.client, state.keys, events("a"), settings, later) == (0, 1)
    stream = state.keys.events(state.keys.partition("u"))
    assert [json.loads(entry.json)["event_id"] for entry in read(state.client, stream)] == ["a", "b", "c"]
    assert append(state.client, state.keys, [], settings, NOW_MS) == (0, 0)


def test_the_memory_of_event_ids_runs_out(state: Any) -> None:
    append(state.client, state.keys, events("a"), state.settings.state, NOW_MS)
    window = NOW_MS // (state.settings.state.dedup_window_seconds * 1000)
    ttl = state.client.ttl(state.keys.dedup(state.keys.partition("u"), window))
    assert 0 < ttl <= 2 * state.settings.state.dedup_window_seconds


def test_users_keep_to_their_partition_and_their_order(state: Any) -> None:
    batch = [one for i in range(20) for one in events(f"e{i}", user=f"u{i % 5}")]
    assert append(state.client, state.keys, batch, state.settings.state, NOW_MS).accepted == 20
    for user in (f"u{i}" for i in range(5)):
        entries = read(state.client, state.keys.events(state.keys.partition(user)))
        found = [json.loads(entry.json) for entry in entries]
        assert [f["event_id"] for f in found if f["user_id"] == user] == [
            e.event_id for e in batch if e.user_id == user
        ]


def test_a_full_stream_refuses_and_loses_nothing(state: Any) -> None:
    settings = StateSettings(partitions=4, stream_max_length=1000)
    full = events(*(f"e{i}" for i in range(999)))
    append(state.client, state.keys, full, settings, NOW_MS)
    with pytest.raises(StateError, match="event stream is full, must be at most 1000 entries"):
        append(state.client, state.keys, events("x", "y"), settings, NOW_MS)
    assert append(state.client, state.keys, events("x"), settings, NOW_MS).accepted == 1
    decision = Decision(
        decision_id="d", request_id="r", timestamp_ms=1, catalogue="c", origin="live", unit="u", user_id="u",
        bundle="b",
    )  # fmt: skip
    for _ in range(1000):
        append_decision(state.client, state.keys, decision, settings)
    with pytest.raises(StateError, match="decision stream is full"):
        append_decision(state.client, state.keys, decision, settings)


def test_the_asynchronous_functions_do_the_same(state: Any) -> None:
    async def both() -> tuple[Any, Any]:
        client = connect_async(state.url)
        try:
            records = [record_of(event, NOW_MS) for event in events("a", "b")]
            first = await append_records_async(client, state.keys, records[:1], state.settings.state)
            second = await append_records_async(client, state.keys, records, state.settings.state)
            decision = Decision(
                decision_id="d", request_id="r", timestamp_ms=1, catalogue="c", origin="live", unit="u",
                user_id="u", bundle="b",
            )  # fmt: skip
            await append_decision_async(client, state.keys, decision, state.settings.state)
            return first, second
        finally:
            await client.aclose()

    assert asyncio.run(both()) == ((1, 0), (1, 1))
    assert state.client.xlen(state.keys.decisions(state.keys.partition("u"))) == 1


# Leases and commits


def test_one_lease_at_a_time_and_a_larger_fence_each(state: Any) -> None:
    one = Lease(state.client, state.keys.lease, state.keys.fence)
    two = Lease(state.client, state.keys.lease, state.keys.fence)
    assert one.hold()
    assert one.hold()
    assert not two.hold()
    assert (one.fence, two.fence) == (1, 0)
    one.release()
    assert two.hold()
    assert two.fence == 2
    assert not one.hold()
    one.release()  # not its own: nothing happens
    assert two.hold()


def test_a_lease_runs_out_unless_it_is_renewed(state: Any) -> None:
    one = Lease(state.client, state.keys.lease, state.keys.fence, seconds=0.05)
    two = Lease(state.client, state.keys.lease, state.keys.fence)
    assert one.hold()
    until(two.hold, "the lease")
    assert not one.hold()


def test_a_commit_is_made_once_and_never_under_an_older_fence(state: Any) -> None:
    guard, counter = state.keys.offsets(0), state.keys.posterior_part(0, "x")

    def commit(fence: int, before: str, after: str) -> int:
        pipe = state.client.pipeline(transaction=False)
        commands = [("HINCRBY", counter, "ä", "1")]
        queue_commit(pipe, guard, fence, commands, before=before, after=after)
        return int(pipe.execute()[0])

    assert commit(2, "", "1-0") == 1
    assert commit(2, "", "1-0") == 1  # a client's retry of a commit that went through
    assert state.client.hgetall(counter) == {"ä": "1"}
    assert commit(1, "1-0", "2-0") == 0  # an older holder
    assert commit(2, "0-9", "2-0") == 0  # someone else has gone on
    assert commit(3, "1-0", "2-0") == 1
    assert state.client.hgetall(counter) == {"ä": "2"}
