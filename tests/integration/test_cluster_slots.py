"""Slots of a Redis Cluster that move to other nodes while they are used."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import redis
from clustered import ITEMS, USERS, State, clicks, run_async, some_events
from redis.crc import key_slot
from redis.exceptions import TryAgainError
from streams import NOW_MS, event, make_consumer, user_state
from valkey_cluster import NUM_NODES, ValkeyCluster

from tastemaker import telemetry
from tastemaker.errors import StateError
from tastemaker.events.archive import EVENT_SCHEMA, read_days
from tastemaker.events.log import append
from tastemaker.events.schema import Event
from tastemaker.features.counters import row_of
from tastemaker_services.gateway.users import read_user


@pytest.fixture
def state(clustered: State) -> State:
    return clustered


def test_a_slot_that_moves_is_followed_and_what_is_written_there_is_on_disk(
    state: State, cluster: ValkeyCluster
) -> None:
    user = USERS[0]
    partition = state.keys.partition(user)
    slot = key_slot(state.keys.events(partition).encode())
    owners = [cluster.node(number) for number in range(NUM_NODES)]
    ids = [owner.execute_command("CLUSTER MYID") for owner in owners]
    from_ = next(n for n, owner in enumerate(owners) if owns(owner, slot))
    to = (from_ + 1) % NUM_NODES

    async def use(client: Any) -> Any:
        async with asyncio.timeout(10):
            before = await read_user(client, state.keys, user)
            move(owners, ids, slot, from_, to)
            return before, await read_user(client, state.keys, user)

    try:
        assert [found.history for found in run_async(state, use)] == [[], []]
        append(state.client, state.keys, [event(user, "i1")], state.settings.state, NOW_MS)
        assert owners[to].xlen(state.keys.events(partition)) == 1
        assert state.client.xlen(state.keys.events(partition)) == 1
    finally:
        owners[to].delete(*owners[to].scan_iter(match=f"tm:{{{state.keys.catalogue}:{partition}}}:*"))
        move(owners, ids, slot, to, from_)
        for owner in owners:
            owner.close()


def owns(node: redis.Redis, slot: int) -> bool:
    try:
        node.execute_command("CLUSTER COUNTKEYSINSLOT", slot)
        node.execute_command("GET", f"{{{name_in(slot)}}}")
    except redis.ResponseError:
        return False
    return True


def name_in(slot: int) -> str:
    """A name of that slot."""
    return next(name for name in map(str, range(1_000_000)) if key_slot(name.encode()) == slot)


def move(nodes: list[redis.Redis], ids: list[str], slot: int, from_: int, to: int) -> None:
    for number in (to, from_, *({*range(NUM_NODES)} - {from_, to})):
        nodes[number].execute_command("CLUSTER SETSLOT", slot, "NODE", ids[to])


class Migration:
    """A slot of a catalogue that goes to the next node key by key, as `redis-cli --cluster reshard` does it."""

    def __init__(self, cluster: ValkeyCluster, slot: int) -> None:
        self.slot = slot
        self.nodes = [cluster.node(number) for number in range(NUM_NODES)]
        self.ids = [node.execute_command("CLUSTER MYID") for node in self.nodes]
        self.from_ = next(n for n, node in enumerate(self.nodes) if owns(node, slot))
        self.to = (self.from_ + 1) % NUM_NODES

    def begin(self) -> None:
        self.nodes[self.to].execute_command("CLUSTER SETSLOT", self.slot, "IMPORTING", self.ids[self.from_])
        self.nodes[self.from_].execute_command("CLUSTER SETSLOT", self.slot, "MIGRATING", self.ids[self.to])

    def carry(self, most: int) -> int:
        """Moves some keys; gives how many."""
        source, port = self.nodes[self.from_], self.nodes[self.to].connection_pool.connection_kwargs["port"]
        keys = source.execute_command("CLUSTER GETKEYSINSLOT", self.slot, most)
        if keys:
            source.execute_command("MIGRATE", "127.0.0.1", port, "", 0, 5000, "KEYS", *keys)
        return len(keys)

    def end(self) -> None:
        while self.carry(100):
            pass
        move(self.nodes, self.ids, self.slot, self.from_, self.to)

    def back(self) -> None:
        """The slot is empty and where it was; connections are closed."""
        for node in self.nodes:
            with suppress(redis.ResponseError):
                for key in node.execute_command("CLUSTER GETKEYSINSLOT", self.slot, 10_000):
                    node.execute_command("DEL", key)
        move(self.nodes, self.ids, self.slot, self.to, self.from_)
        for node in self.nodes:
            node.close()


@pytest.fixture
def migration(state: State, cluster: ValkeyCluster) -> Iterator[Migration]:
    """Of the slot of partition 0."""
    found = Migration(cluster, key_slot(state.keys.events(0).encode()))
    yield found
    found.back()


def local(state: State, number: int) -> str:
    """A key of partition 0."""
    return state.keys.offsets(0) + f":{number}"


def fill(state: State, numbers: Iterable[int]) -> None:
    for n in numbers:
        state.client.set(local(state, n), n)


@pytest.mark.parametrize("transaction", [False, True])
def test_keys_on_their_way_are_followed_by_single_calls_pipelines_and_scripts(
    state: State, migration: Migration, transaction: bool
) -> None:
    fill(state, range(20))
    migration.begin()
    assert migration.carry(10) == 10
    assert [state.client.get(local(state, n)) for n in range(20)] == [str(n) for n in range(20)]

    def queue(pipe: Any) -> None:
        for n in range(0, 20, 2):
            pipe.incrby(local(state, n), 100)
        pipe.set(state.keys.offsets(1), "elsewhere")
        pipe.execute_command("WAITAOF", 1, 0, 2000)

    def told(replies: list[Any]) -> tuple[list[int], Any, Any]:
        return replies[:10], replies[10], replies[11]

    pipe = state.client.pipeline(transaction=False)
    queue(pipe)
    assert told(pipe.execute()) == ([n + 100 for n in range(0, 20, 2)], True, [1, 0])

    async def use(client: Any) -> Any:
        pipe = client.pipeline(transaction=False)
        queue(pipe)
        return told(await pipe.execute()), await client.get(local(state, 3))

    assert run_async(state, use) == (([n + 200 for n in range(0, 20, 2)], True, [1, 0]), b"3")
    add = "return redis.call('INCRBY', KEYS[1], ARGV[1])"
    found = [state.client.eval(add, 1, local(state, n), 1000) for n in range(20)]
    assert found == [n + 1000 + 200 * (n % 2 == 0) for n in range(20)]
    new = state.client.pipeline(transaction=transaction)
    new.set(local(state, 50), "new")
    new.get(local(state, 50))
    assert new.execute() == [True, "new"]  # keys that are nowhere yet are made where the slot goes
    assert migration.nodes[migration.from_].execute_command("CLUSTER COUNTKEYSINSLOT", migration.slot) == 10

    async def write(client: Any) -> list[Any]:
        pipe = client.pipeline(transaction=transaction)
        pipe.set(local(state, 51), "new")
        pipe.get(local(state, 51))
        return list(await pipe.execute())

    assert run_async(state, write) == [True, b"new"]
    migration.end()
    assert state.client.get(local(state, 50)) == "new"


def test_keys_of_which_some_have_gone_are_asked_for_again(state: State, migration: Migration) -> None:
    fill(state, range(20))
    migration.begin()
    migration.carry(10)
    with pytest.raises(TryAgainError, match=r"TRYAGAIN|[Mm]ultiple keys"):
        state.client.mget([local(state, n) for n in range(20)])
    migration.end()
    assert state.client.mget([local(state, n) for n in range(20)]) == [str(n) for n in range(20)]


def test_while_a_slot_moves_key_by_key_every_event_is_counted_once_and_other_partitions_go_on(
    state: State, migration: Migration
) -> None:
    accepted: list[Event] = []
    worker = make_consumer(state)
    name = next(name for name in map(str, range(10_000)) if state.keys.partition(name) == 0)
    stranger = event(name, ITEMS[0], event_id="stranger")
    set_back = telemetry.SET_BACK.labels(state.keys.catalogue)

    def step() -> None:
        with suppress(StateError):  # the first that fails; then the partitions are stepped one by one
            worker.step()

    for turn in range(12):
        batch = some_events(60, start=60 * turn)
        own = [one for one in batch if state.keys.partition(one.user_id) == 0]
        rest = [one for one in batch if one not in own]
        append(state.client, state.keys, rest, state.settings.state, NOW_MS)
        accepted += rest
        with suppress(StateError):  # its stream, or the ids beside it, are on their way: it is sent again
            append(state.client, state.keys, own, state.settings.state, NOW_MS)
            accepted += own
        if turn == 3:  # with an event still to be applied that makes keys which are nowhere yet
            append(state.client, state.keys, [stranger], state.settings.state, NOW_MS)
            migration.begin()
        if 3 <= turn < 9:
            migration.carry(2)
            step()
        step()
        if 3 <= turn < 9:
            done = sum(
                round(float(user_state(state, user).counters.value_NKW[0, row_of("click"), -1]))
                for user in USERS
                if state.keys.partition(user)
            )
            assert done == sum(state.keys.partition(one.user_id) > 0 for one in accepted)
        if turn == 9:
            assert set_back._value.get() > 0  # partition 0 had to wait
            migration.end()
    again = append(state.client, state.keys, some_events(720), state.settings.state, NOW_MS)
    assert again[0] + len(accepted) == 720
    assert worker.drain()
    worker.close()
    assert clicks(state) == Counter(one.item_id for one in [stranger, *some_events(720)])
    table = read_days(state.home / "events" / state.keys.catalogue, EVENT_SCHEMA, "event_id")
    assert sorted(table["event_id"].to_pylist()) == sorted(["stranger", *(f"e{n}" for n in range(720))])
