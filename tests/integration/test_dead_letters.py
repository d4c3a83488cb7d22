"""Events and decisions that nothing can be made of: dead letters, and their neighbours go on; on a real Valkey."""

from typing import Any

import pytest
from streams import NOW_MS, event, make_consumer, records, send, user_state

from tastemaker import telemetry
from tastemaker.events.archive import EVENT_SCHEMA, read_days
from tastemaker.events.history import read_history
from tastemaker.features.counters import Counters, row_of
from tastemaker.state.keys import Keys

ALL = -1
"""The window that never forgets."""


def totals(state: Any, *items: str) -> Counters:
    return Counters.decode(records(state, state.keys.item_totals, items))


def metric(name: Any, *labels: str) -> float:
    return float(name.labels(*labels)._value.get())


POISON = {
    "no JSON": b"{",
    "no UTF-8": b'{"event_id": "\xff"}',
    "no event": b'{"event_id": "x"}',
    "unknown kind": event("ann", "a").model_dump_json().replace("click", "glance").encode(),
    "from the far future": event("ann", "a", timestamp_ms=9 * 10**15).model_dump_json().encode(),
    "no int64": event("ann", "a").model_dump_json().replace(str(NOW_MS), str(10**30)).encode(),
    "a value out of range": event("ann", "a", "rating", value=1e300).model_dump_json().encode(),
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON)
def test_a_poison_event_becomes_a_dead_letter_and_its_neighbours_are_applied(
    state: Any, poison: bytes
) -> None:
    partition = state.keys.partition("ann")
    send(state, event("ann", "before"))
    entry_id = state.client.xadd(state.keys.events(partition), {"e": poison})
    send(state, event("ann", "after"))
    assert make_consumer(state).drain(10)
    assert read_history(state.client, state.keys, "ann") == ["before", "after"]
    ((_, letter),) = state.client.xrange(state.keys.dead_letters(partition))
    assert (letter["stream"], letter["id"]) == ("events", entry_id)
    assert letter["reason"]
    assert letter["record"] == poison.decode(errors="backslashreplace")[:65_536]
    assert metric(telemetry.DEAD_LETTERS, state.keys.catalogue, "events") == 1
    folder = state.home / "events" / state.keys.catalogue
    assert read_days(folder, EVENT_SCHEMA, "event_id")["item_id"].to_pylist() == ["before", "after"]


def test_an_event_of_another_partitions_user_is_a_dead_letter(state: Any) -> None:
    own = state.keys.partition("ann")
    other = (own + 1) % 4
    send(state, event("ann", "a"))
    state.client.xadd(state.keys.events(other), {"e": event("ann", "b").model_dump_json()})
    worker = make_consumer(state)
    assert worker.drain(10)
    assert [one[1] for one in user_state(state, "ann").taken] == ["a"]
    ((_, letter),) = state.client.xrange(state.keys.dead_letters(other))
    assert letter["reason"] == f"its user belongs to partition {own}"
    worker.close()


def test_an_entry_without_a_record_is_a_dead_letter_too(state: Any) -> None:
    state.client.xadd(state.keys.events(1), {"other": "field"})
    assert make_consumer(state).drain(10)
    assert state.client.xlen(state.keys.dead_letters(1)) == 1


DECISION = (
    '{"decision_id":"d","request_id":"r","timestamp_ms":1,"catalogue":"c","origin":"live","unit":"u",'
    '"user_id":"u","bundle":"b"}'
)


@pytest.mark.parametrize(
    "poison",
    [
        "[]", "{}", DECISION.replace('"d"', "7"), DECISION.replace(":1,", ":1e30,"), DECISION.replace(":1,", ":-1,"),
        DECISION.replace(":1,", f":{10**17},"), DECISION[:-1] + ',"experiment":"e"}', DECISION[:-1],
    ],
)  # fmt: skip
def test_a_poison_decision_stops_nothing_either(state: Any, poison: str) -> None:
    for record in (DECISION, poison, DECISION.replace('"r"', '"r2"')):
        state.client.xadd(state.keys.decisions(2), {"e": record})
    assert make_consumer(state).drain(10)
    ((_, letter),) = state.client.xrange(state.keys.dead_letters(2))
    assert (letter["stream"], letter["record"]) == ("decisions", poison)
    assert letter["reason"]


@pytest.mark.parametrize("damage", [b"\x01", b"garbage that is no record", b"\xff" * 60])
def test_a_damaged_record_costs_its_owners_events_and_no_others(state: Any, damage: bytes) -> None:
    keys: Keys = state.keys
    neighbour = next(f"n{n}" for n in range(99) if keys.partition(f"n{n}") == keys.partition("ann"))
    state.client.set(keys.user("ann"), damage)
    state.client.hset(keys.item_counters(keys.partition("ann")), "bad", damage)
    send(state, event("ann", "a"), event(neighbour, "a"), event(neighbour, "bad"))
    assert make_consumer(state).drain(10)
    assert user_state(state, neighbour).counters.value_NKW[0, row_of("click"), ALL] == 1.0
    assert totals(state, "a").value_NKW[0, row_of("click"), ALL] == 1.0
    reasons = [
        letter["reason"] for _, letter in state.client.xrange(keys.dead_letters(keys.partition("ann")))
    ]
    assert ["record of 'ann'" in reasons[0], "record of 'bad'" in reasons[1], len(reasons)] == [True, True, 2]
    folder = state.home / "events" / keys.catalogue
    assert read_days(folder, EVENT_SCHEMA, "event_id").num_rows == 3  # a rebuild will count them
