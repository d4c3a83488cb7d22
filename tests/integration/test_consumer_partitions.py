"""Several stream consumers share a catalogue's partitions, on a real Valkey."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from streams import event, make_consumer, records, send
from waiting import until

from tastemaker.events.attribution import Outcome
from tastemaker.events.history import read_history
from tastemaker.events.partitions import PartitionLeases, fair_share
from tastemaker.experiments.definition import Experiment, Fixed, Variant
from tastemaker.experiments.posterior import read_posterior
from tastemaker.experiments.reward_joiner import RewardJoiner
from tastemaker.experiments.store import ExperimentStore
from tastemaker.state.lease import queue_commit

CONSUME = Path(__file__).parents[1] / "support" / "consume.py"


def leases(state: Any, count: int, seconds: float = 15.0) -> list[PartitionLeases]:
    return [PartitionLeases(state.client, state.keys, seconds) for _ in range(count)]


def settle(members: list[PartitionLeases]) -> list[dict[int, int]]:
    for _ in range(3):
        for member in members:
            member.doubt()
            member.hold()
    return [member.hold() for member in members]


def held_partitions(state: Any) -> list[int]:
    return [p for p in range(4) if state.client.exists(state.keys.partition_lease(p))]


@given(st.integers(1, 1024), st.integers(1, 100))
def test_fair_shares_add_up_and_differ_by_one_at_most(partitions: int, alive: int) -> None:
    shares = [fair_share(partitions, place, alive) for place in range(alive)]
    assert sum(shares) == partitions
    assert max(shares) - min(shares) <= 1


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6])
def test_partitions_are_shared_fairly_and_each_has_one_reader(state: Any, count: int) -> None:
    held = settle(leases(state, count))
    assert sorted(p for own in held for p in own) == [0, 1, 2, 3]
    assert max(map(len, held)) - min(map(len, held)) <= 1
    assert held_partitions(state) == [0, 1, 2, 3]


def test_who_comes_is_given_its_share_and_who_goes_leaves_it(state: Any) -> None:
    one, two = leases(state, 2)
    assert len(one.hold()) == 4
    assert two.hold() == {}
    first, second = settle([one, two])
    assert (len(first), len(second)) == (2, 2)
    assert all(fence == 2 for fence in second.values())  # the second lease of each
    one.release()
    assert len(settle([two])[0]) == 4
    two.release()
    assert held_partitions(state) == []
    assert state.client.exists(state.keys.consumers) == 0


def test_leases_that_were_lost_are_forgotten_and_those_of_others_never_renewed(state: Any) -> None:
    one, two = leases(state, 2)
    one.hold()
    state.client.delete(state.keys.partition_lease(1), state.keys.consumers)
    two.hold()
    assert list(two.hold()) == [1]
    one.doubt()
    assert sorted(one.hold()) == [0, 2]  # the first two of the three that it still had


def test_renewal_of_all_leases_is_one_round_trip(state: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = leases(state, 1)
    one.hold()
    sent: list[int] = []
    connection = state.client.connection_pool.get_connection()
    send_packed = type(connection).send_packed_command
    state.client.connection_pool.release(connection)
    monkeypatch.setattr(
        type(connection), "send_packed_command", lambda c, *a, **k: sent.append(1) or send_packed(c, *a, **k)
    )
    one.doubt()
    assert len(one.hold()) == 4
    assert len(sent) == 1


def test_leases_of_one_that_stands_still_run_out_and_are_taken_over(state: Any) -> None:
    first, second = make_consumer(state, lease_seconds=0.3), make_consumer(state, lease_seconds=0.3)
    send(state, event("ann", "a"))
    first.step()
    assert second.step().partitions == 0
    send(state, event("ann", "b"))
    until(lambda: second.step().partitions == 4, "the leases to run out")
    assert second.drain(10)
    assert read_history(state.client, state.keys, "ann") == ["a", "b"]


def test_two_consumers_work_side_by_side(state: Any) -> None:
    pair = [make_consumer(state, lease_seconds=2.0) for _ in range(2)]

    def both() -> list[int]:
        return [consumer.step().partitions for consumer in pair]

    until(lambda: both() == [2, 2], "each to have its half")
    send(state, *(event(f"u{n}", "a") for n in range(40)))
    until(lambda: sum(consumer.step().events for consumer in pair) == 0, "both to have read all")
    assert all(read_history(state.client, state.keys, f"u{n}") == ["a"] for n in range(40))
    pair[0].close()
    assert pair[1].drain(10)


def test_totals_of_rewards_never_go_back_whoever_sums_them_up(
    state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = (Variant(name="a", alias="champion"), Variant(name="b", alias="challenger"))
    experiment = Experiment(
        name="exp", hypothesis="h", salt="s", variants=arms, allocation=Fixed(weights=(0.5, 0.5))
    )
    ExperimentStore(state.client, state.keys).create(experiment)
    slow, quick = RewardJoiner(state.client, state.keys), RewardJoiner(state.client, state.keys)
    write = RewardJoiner._write

    def reward(partition: int) -> None:
        for command in quick.commands(partition, [Outcome("exp", "a", 1)]):
            state.client.execute_command(*command)

    def stand_still(self: RewardJoiner, name: str, totals: Any) -> None:
        monkeypatch.setattr(RewardJoiner, "_write", write)
        reward(1)
        quick.roll_up(None)
        write(self, name, totals)  # of before that reward

    reward(0)
    monkeypatch.setattr(RewardJoiner, "_write", stand_still)
    slow.roll_up(None)
    found = read_posterior(state.client, state.keys, "exp")
    assert (found.successes, found.version) == ({"a": 2.0}, 2)


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=9), st.binary(max_size=9)), min_size=1, max_size=5))
def test_what_is_committed_keeps_its_order_and_its_bytes(words: list[tuple[bytes, bytes]]) -> None:
    sent: list[Any] = []

    class Pipe:
        def eval(self, _: str, num_keys: int, *rest: Any) -> None:
            sent.extend(rest[num_keys:])

    queue_commit(Pipe(), "guard", 3, [("HSET", "key", *pair) for pair in words], before="b", after="a")
    fields = [word for pair in words for word in ("4", "HSET", "key", *pair)]
    assert sent == ["3", "b", "a", *fields]


def test_a_commit_carries_bytes_and_thousands_of_words(state: Any) -> None:
    key, guard = state.keys.item_counters(0), state.keys.offsets(0)
    fields = {f"i{n}": bytes([n % 256, 255, 0]) for n in range(3_000)}
    pipe = state.client.pipeline(transaction=False)
    queue_commit(pipe, guard, 1, [("HSET", key, *(word for pair in fields.items() for word in pair))])
    assert pipe.execute() == [1]
    assert records(state, key, list(fields)) == list(fields.values())


@pytest.mark.slow
def test_a_killed_process_is_replaced_by_the_one_that_lives(tmp_path: Path) -> None:
    """Two processes; one is killed with kill -9, and the other takes over its partitions within a lease."""
    from tastemaker.config import Settings
    from tastemaker.home import Home
    from tastemaker.state.connection import open_keys, open_state

    home = Home.make(tmp_path / "home")
    settings = Settings(home=home.root, catalogue="pair")
    with open_state(settings, home) as client:
        keys = open_keys(client, settings)
        command = [sys.executable, str(CONSUME), str(home.root), "pair", "1.0"]
        processes = [subprocess.Popen(command) for _ in range(2)]
        try:
            owners = lambda: [client.get(keys.partition_lease(p)) for p in range(64)]  # noqa: E731
            until(lambda: sorted(map(owners().count, set(owners()))) == [32, 32], "each to have its half")
            processes[0].send_signal(signal.SIGKILL)
            until(lambda: len(set(owners())) == 1 and None not in owners(), "the other to take over")
        finally:
            for process in processes:
                process.kill()
                process.wait()
