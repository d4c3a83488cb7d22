"""Which node gets which commands of a pipeline, and what becomes of their replies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError

from tastemaker.errors import UsageError
from tastemaker.state.keys import Keys
from tastemaker.state.layout import (
    ASKING,
    ClusterUrl,
    Layout,
    Queued,
    Sources,
    Target,
    asked_elsewhere,
    gathered,
    is_cluster,
    merged,
    repeated,
    to_repeat,
    with_asking,
    without_asking,
)

A, B, C = ("a", 1), ("b", 2), ("c", 3)
LAYOUT = Layout.of(
    [[0, 5460, [b"a", 1, "id"], ["replica", 9, "id"]], [10923, 16383, ["c", 3]], [5461, 10922, ["b", 2]]], A
)
WAIT = Queued(("WAITAOF", 1, 0, 2000), {})
MOVED = MovedError("7 c:3")
TO_A, TO_C = Target(A), Target(C)


def get(key: str) -> Queued:
    return Queued(("GET", key), {})


@given(st.lists(st.text(max_size=8), max_size=30))
def test_every_command_goes_to_its_keys_owner_and_its_reply_comes_back_in_place(keys):
    queued = [get(key) for key in keys]
    places = LAYOUT.spread(queued)
    assert sorted(place for own in places.values() for place in own) == list(range(len(keys)))
    for target, own in places.items():
        assert own == sorted(own)
        assert {Target(LAYOUT.owner(key_slot(keys[place].encode()))) for place in own} == {target}
    replies = {target: [f"{keys[place]} at {place}" for place in own] for target, own in places.items()}
    assert gathered(queued, places, replies) == [f"{key} at {n}" for n, key in enumerate(keys)]


@given(st.text(max_size=20), st.integers(0, 63))
def test_keys_of_one_partition_have_one_slot(user_id, partition):
    keys = Keys("shop", 64)
    own = [keys.user(user_id), keys.history(user_id), keys.events(keys.partition(user_id))]
    assert len({Queued(("GET", key), {}).slot for key in own}) == 1
    script = Queued(("EVAL", "return 1", 2, keys.events(partition), keys.offsets(partition), "x"), {})
    assert script.slot == key_slot(keys.events(partition).encode())


def test_who_waits_for_the_disk_waits_for_every_node_that_wrote():
    queued = [get("foo"), get("bar"), WAIT]  # slots 12182 and 5061 [Redis Cluster Specification]
    places = LAYOUT.spread(queued)
    assert places == {TO_C: [0, 2], TO_A: [1, 2]}
    assert gathered(queued, places, {TO_C: ["x", [1, 0]], TO_A: ["y", [0, 0]]}) == ["x", "y", [0, 0]]
    error = ClusterDownError("down")
    assert gathered(queued, places, {TO_C: ["x", [1, 0]], TO_A: [error, error]}) == ["x", error, error]
    assert gathered(queued, places, {TO_C: [error, error], TO_A: ["y", [1, 0]]}) == [error, "y", error]


def test_what_has_moved_is_repeated_with_what_waits_for_it():
    queued = [get("foo"), get("bar"), WAIT]
    assert to_repeat(queued, ["x", "y", [1, 0]]) == []
    assert to_repeat(queued, ["x", MOVED, [1, 0]]) == [1, 2]
    assert to_repeat(queued, ["x", ClusterDownError("down"), [1, 0]]) == []
    assert repeated(MOVED, "y") == "y"
    assert repeated([1, 0], [0, 0]) == [0, 0]
    assert repeated([0, 0], [1, 0]) == [0, 0]


def test_what_is_on_its_way_is_asked_for_where_it_goes_and_so_is_the_disk_there():
    queued = [get("foo"), get("bar"), WAIT]
    asked = AskError(f"{queued[0].slot} b:2")
    replies = [asked, "y", [1, 0]]
    assert to_repeat(queued, replies) == [0, 2]
    assert asked_elsewhere(queued, replies) == {0: B}
    assert LAYOUT.spread(queued, [0, 2], {0: B}) == {Target(B, asking=True): [0, 2]}
    sent = with_asking([queued[0], WAIT])
    assert [one.name for one in sent] == [ASKING, "GET", "WAITAOF"]
    assert without_asking(sent, [True, "x", [0, 0]]) == ["x", [0, 0]]
    assert merged(replies, [0, 2], ["x", [0, 0]]) == ["x", "y", [0, 0]]


def test_of_a_transaction_that_failed_only_what_is_on_its_way_goes_elsewhere():
    queued = [get("foo"), get("{foo}2"), get("elsewhere in the same node")]
    failed = [AskError(f"{queued[0].slot} b:2")] * 3
    assert to_repeat(queued, failed) == [0, 1, 2]
    assert asked_elsewhere(queued, failed) == {0: B, 1: B}


def test_a_wait_before_what_has_moved_is_not_repeated():
    assert to_repeat([get("foo"), WAIT, get("bar")], ["x", [1, 0], MOVED]) == [2]


def test_nodes_that_did_not_answer_are_asked_last_also_by_commands_of_no_slot():
    sources = Sources([A, B])
    sources.doubt(A)
    assert sources.nodes() == [B, A]
    layout = sources.learn([[0, 99, ["a", 1]], [100, 200, ["b", 2]], [201, 16383, ["c", 3]]], B)
    assert sources.nodes() == []  # while it is known
    assert layout.nodes == [C, B, A]
    assert layout.spread([Queued(("TIME",), {})]) == {TO_C: [0]}
    sources.doubt(C)
    sources.forget()
    assert sources.nodes() == [B, A, C]


def test_a_slot_that_nobody_has_is_an_error():
    layout = Layout.of([[0, 99, ["a", 1]], [200, 16383, ["b", 2]]], A)
    assert (layout.owner(99), layout.owner(200)) == (A, B)
    for slot in (100, 199):
        with pytest.raises(ClusterDownError, match=f"no node has slot {slot}"):
            layout.owner(slot)
    with pytest.raises(ClusterDownError, match="no node has slot 16383"):
        Layout.of([[0, 99, ["a", 1]]], A).owner(16383)


@pytest.mark.parametrize(
    "url",
    ["redis+cluster://", "redis+cluster://a,:7000", "redis+cluster://a:x", "redis://a:7000", "redis+cluster://a?db=x"],
)  # fmt: skip
def test_what_is_no_url_of_a_cluster_is_refused(url):
    with pytest.raises(
        UsageError, match=r"the URL of a cluster: .*must be redis\+cluster://host:port,host:port"
    ):
        ClusterUrl.of(url)


def test_a_cluster_has_one_database():
    assert ClusterUrl.of("redis+cluster://a,b/0").nodes == (("a", 6379), ("b", 6379))
    with pytest.raises(UsageError, match="the database of a cluster, is '/3', must be 0: leave it out"):
        ClusterUrl.of("redis+cluster://a,b/3")


def test_urls():
    url = ClusterUrl.of("rediss+cluster://me:a%2C@[::1]:7000,h:7001?ssl_cert_reqs=none")
    assert url.nodes == (("::1", 7000), ("h", 7001))
    assert url.of_node(("::1", 7000)) == "rediss://me:a%2C@[::1]:7000?ssl_cert_reqs=none"
    assert is_cluster("rediss+cluster://h")
    assert not is_cluster("unix:///h")
