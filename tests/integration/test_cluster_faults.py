"""Nodes of a Redis Cluster that die, and a cluster that is away."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from clustered import PARTITIONS, USERS, State, clicks, run_async, some_events
from redis.crc import key_slot
from streams import NOW_MS, make_consumer
from valkey_cluster import NUM_NODES, NUM_SLOTS, ValkeyCluster
from waiting import eventually, until

from tastemaker.errors import StateError
from tastemaker.events.archive import EVENT_SCHEMA, read_days
from tastemaker.events.consumer import StreamConsumer
from tastemaker.events.log import append, append_records, record_of
from tastemaker.events.schema import Event
from tastemaker.features.counters import row_of
from tastemaker.features.user_state import UserState
from tastemaker.state.connection import connect
from tastemaker_services.gateway.intake import Intake


@pytest.fixture
def state(clustered: State) -> State:
    return clustered


def test_a_node_killed_in_the_middle_costs_no_accepted_event(state: State, cluster: ValkeyCluster) -> None:
    accepted: list[Event] = []
    worker: StreamConsumer = make_consumer(state)
    refused = 0
    for turn in range(30):
        batch = some_events(100, start=100 * turn)
        if turn == 10:
            cluster.kill(1)
            for action in (lambda: send(state, batch), worker.step):  # noqa: B023
                with pytest.raises(StateError):
                    action()
                refused += 1
            cluster.start(1)
            cluster.await_whole()
        send(state, batch)
        accepted += batch
        worker.step()
    assert refused == 2
    assert worker.drain()
    worker.close()
    assert clicks(state) == Counter(one.item_id for one in accepted)
    table = read_days(state.home / "events" / state.keys.catalogue, EVENT_SCHEMA, "event_id")
    assert sorted(table["event_id"].to_pylist()) == sorted(one.event_id for one in accepted)


def send(state: State, events: list[Event]) -> None:
    found = [record_of(one, NOW_MS) for one in events]
    append_records(state.client, state.keys, found, state.settings.state)


def test_while_a_node_is_away_the_gateway_spools_and_then_the_log_has_all(
    state: State, cluster: ValkeyCluster
) -> None:
    events = some_events(300)

    async def use(client: Any) -> list[Any]:
        intake = Intake(client, state.url, state.keys, state.settings, state.home)
        await asyncio.to_thread(intake.start)
        try:
            taken = [await intake.append(events[:100])]
            cluster.kill(2)
            taken.append(await intake.append(events[100:200]))
            cluster.start(2)
            await asyncio.to_thread(cluster.await_whole)
            await eventually(lambda: intake._spool.is_empty, "the spool to be emptied")
            return [*taken, await intake.append(events[200:])]
        finally:
            await asyncio.to_thread(intake.stop)

    assert run_async(state, use) == [(100, 0, 0), (100, 0, 100), (100, 0, 0)]
    assert sum(state.client.xlen(state.keys.events(p)) for p in range(PARTITIONS)) == 300


def test_a_cluster_that_is_away_says_so(state: State) -> None:
    with (
        connect("redis+cluster://127.0.0.1:1,127.0.0.1:2") as client,
        pytest.raises(StateError, match=r"cannot append events: .*check that Redis/Valkey is up"),
    ):
        append(client, state.keys, some_events(1), state.settings.state, NOW_MS)


def test_while_a_node_is_away_the_partitions_of_the_others_go_on(
    state: State, cluster: ValkeyCluster
) -> None:
    """Of a cluster that answers for a part of its slots (cluster-require-full-coverage no)."""
    catalogue = owner_of(state.keys.consumers)
    away = next(n for n in range(NUM_NODES) if n != catalogue)
    for number in range(NUM_NODES):
        cluster.node(number).config_set("cluster-require-full-coverage", "no")
    worker = make_consumer(state)
    assert worker.step().partitions == PARTITIONS
    gone = {p for p in range(PARTITIONS) if owner_of(state.keys.events(p)) == away}
    there = [one for one in some_events(600) if state.keys.partition(one.user_id) not in gone]
    lost = [one for one in some_events(600) if one not in there]
    cluster.kill(away)
    try:
        with pytest.raises(StateError):
            worker.step()
        send(state, there)
        until(lambda: worker.step().partitions == PARTITIONS - len(gone), "the others' leases")
        until(lambda: worker.step() and counted(state, gone) == len(there), "events of the others")
        with pytest.raises(StateError):
            send(state, lost)
    finally:
        cluster.start(away)
        cluster.await_whole()
        for number in range(NUM_NODES):
            cluster.node(number).config_set("cluster-require-full-coverage", "yes")
    send(state, lost)
    assert worker.drain()
    worker.close()
    assert clicks(state) == Counter(one.item_id for one in some_events(600))


def owner_of(key: str) -> int:
    """Number of the node that has a key."""
    return int(key_slot(key.encode())) // -(-NUM_SLOTS // NUM_NODES)


def counted(state: State, gone: set[int]) -> int:
    """Clicks in the records of users whose partitions are there."""
    users = [user for user in USERS if state.keys.partition(user) not in gone]
    found = [state.client.execute_command("GET", state.keys.user(user), NEVER_DECODE=True) for user in users]
    return sum(round(UserState.decode(one).counters.value_NKW[0, row_of("click"), -1]) for one in found)
