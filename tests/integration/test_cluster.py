"""All that is online on a Redis Cluster of three nodes: what needs one slot has one, and the rest goes to all nodes."""

import asyncio
import time
from collections import Counter
from typing import Any

import numpy as np
import pytest
from clustered import ITEMS, PARTITIONS, USERS, State, apply, clicks, popular, run_async, some_events
from gateway_world import candidates
from redis.crc import key_slot
from streams import NOW_MS, event, make_consumer, records, user_state
from valkey_cluster import NUM_NODES, ValkeyCluster

from tastemaker.data.item_archive import ItemArchiver
from tastemaker.errors import ExperimentError, StateError
from tastemaker.events.archive import EVENT_SCHEMA, read_days
from tastemaker.events.erasure import erase_online
from tastemaker.events.history import read_history
from tastemaker.events.log import append
from tastemaker.experiments.decision_log import Decision, append_decisions_async
from tastemaker.experiments.definition import Experiment, Thompson, Variant
from tastemaker.experiments.posterior import read_posterior
from tastemaker.experiments.store import ExperimentStore
from tastemaker.features.counters import Counters, row_of
from tastemaker.features.feast_repo import apply_repo, open_store, repo_folder, write_repo
from tastemaker.features.feast_rows import FeastRows
from tastemaker.features.item_store import ItemFacts, ItemStore
from tastemaker.features.projection import project_items, project_users
from tastemaker.features.rebuild import rebuild
from tastemaker.features.records import scan_users
from tastemaker.features.view_rows import item_rows
from tastemaker.features.views import VIEW, ViewRows
from tastemaker.features.well_known import WellKnown
from tastemaker.state.connection import connect_async, nodes_of, scan_keys
from tastemaker.state.item_vectors import read_vectors, write_vectors
from tastemaker.state.items import PutItems, Written, write_items, write_items_async
from tastemaker.state.lists import StoredList, read_list_async, write_lists
from tastemaker.users.archive import archive_profiles
from tastemaker.users.merges import admit_merges
from tastemaker.users.rows import parse_users
from tastemaker_services.gateway.cache import Kept, ResultCache
from tastemaker_services.gateway.profiles import Profiles
from tastemaker_services.gateway.users import read_user


@pytest.fixture
def state(clustered: State) -> State:
    return clustered


def test_keys_lie_on_all_nodes_each_where_its_hash_tag_says(state: State, cluster: ValkeyCluster) -> None:
    apply(state, some_events(300))
    prefix = f"tm:{{{state.keys.catalogue}"
    for number, client in enumerate(nodes_of(state.client)):
        own = sorted(client.scan_iter(match=f"{prefix}*"))
        partitions = {key.partition("}")[0].rpartition(":")[2] for key in own if key.startswith(f"{prefix}:")}
        assert len(partitions) > 1, f"node {number} has hardly any partition"
    assert len(nodes_of(state.client)) == NUM_NODES
    slots: dict[str, set[int]] = {}
    for page in scan_keys(state.client, f"{prefix}*", 50):
        for key in page:
            slots.setdefault(key.decode().partition("}")[0], set()).add(key_slot(key))
    assert len(slots) == PARTITIONS + 1
    assert all(len(found) == 1 for found in slots.values())


def test_events_become_records_totals_rankings_and_histories_once(state: State) -> None:
    events = some_events(300)
    apply(state, events)
    again = append(state.client, state.keys, events, state.settings.state, NOW_MS)
    assert again == (0, 300)
    apply(state, [])
    truth = Counter(one.item_id for one in events)
    assert clicks(state) == truth
    assert popular(state, 3) == sorted(truth, key=lambda i: (truth[i], i))[:-4:-1]
    per_user = Counter(one.user_id for one in events)
    for user in USERS:
        assert round(user_state(state, user).counters.value_NKW[0, row_of("click"), -1]) == per_user[user]
        assert set(read_history(state.client, state.keys, user)) == {
            one.item_id for one in events if one.user_id == user
        }
    assert {u for page in scan_users(state.client, state.keys) for u in page} == set(USERS)
    assert len(read_days(state.home / "events" / state.keys.catalogue, EVENT_SCHEMA, "event_id")) == 300


def test_a_second_consumer_shares_the_partitions_and_takes_over(state: State) -> None:
    first, second = make_consumer(state, 2.0), make_consumer(state, 2.0)
    assert first.step().partitions == PARTITIONS
    deadline = time.monotonic() + 10
    while (first.step().partitions, second.step().partitions) != (PARTITIONS // 2, PARTITIONS // 2):
        assert time.monotonic() < deadline, "they never shared"
        time.sleep(0.05)
    while second.step().partitions != PARTITIONS:  # the first stands still: its leases run out
        assert time.monotonic() < deadline, "nobody took over"
        time.sleep(0.05)
    append(state.client, state.keys, some_events(50), state.settings.state, NOW_MS)
    assert second.step().events == 50
    first._leases._renew_at = time.monotonic() + 60  # it wakes up and does not know
    with pytest.raises(StateError, match="another process has taken a partition's lease"):
        first.step()
    second.close()


def test_a_rebuild_makes_the_same_of_the_archive(state: State) -> None:
    apply(state, some_events(200))
    before = clicks(state), {user: read_history(state.client, state.keys, user) for user in USERS}
    for user in USERS[:30]:
        state.client.delete(state.keys.user(user), state.keys.history(user))
    state.client.delete(state.keys.item_counters(3))
    state.client.delete(state.keys.ranking("popular"))
    done = rebuild(state.client, state.keys, state.home, state.settings.state)
    assert (done.events, done.users) == (200, len(USERS))
    after = clicks(state), {user: read_history(state.client, state.keys, user) for user in USERS}
    assert after == before
    assert len(popular(state, 100)) == len(before[0])


def test_an_erased_user_is_gone_from_every_node_and_nobody_else_is(state: State) -> None:
    apply(state, some_events(200))
    rows = FeastRows(state.client, state.keys.catalogue)
    while project_users(state.client, state.keys, rows):
        pass
    write_lists(state.client, state.keys, [(user, StoredList("b", NOW_MS, ["i1"])) for user in USERS], 600)
    found = erase_online(state.client, state.client, state.keys, "u7", NOW_MS)
    assert (found["records"], found["lists"]) == (2, 1)
    left = [key for page in scan_keys(state.client, "*", 1000) for key in page if key.endswith(b":u7")]
    assert [key for key in left if state.keys.catalogue.encode() in key] == []
    assert {u for page in scan_users(state.client, state.keys) for u in page} == {*USERS} - {"u7"}


def test_items_columns_and_feasts_rows_are_read_from_all_nodes(state: State) -> None:
    apply(state, some_events(200))
    value_NF = np.tile([float(NOW_MS), np.nan, np.nan], (len(ITEMS), 1))
    categories = {"item_category": ["c"] * len(ITEMS)}
    store = ItemStore(ItemFacts.of(ITEMS, ViewRows(VIEW["item_attributes"], value_NF, categories)))
    assert store.refresh(state.client, state.keys) == len(clicks(state))
    rows = FeastRows(state.client, state.keys.catalogue)
    while project_users(state.client, state.keys, rows) or project_items(state.client, state.keys, rows):
        pass
    assert {user for page in rows.ids("user") for user in page} == set(USERS)
    assert {item for page in rows.ids("item") for item in page} == set(clicks(state))
    read = rows.read(VIEW["item_popularity"], ITEMS)
    expected = item_rows(Counters.decode(records(state, state.keys.item_totals, ITEMS)))[1]
    place = expected.view.position["popularity_all"]
    for item, row, value in zip(ITEMS, read, expected.value_NF[:, place], strict=True):
        assert (row is None) == (item not in clicks(state))
        assert row is None or row["popularity_all"] == value


@pytest.mark.slow
def test_feast_itself_reads_the_rows_of_all_nodes(state: State) -> None:
    apply(state, some_events(100))
    rows = FeastRows(state.client, state.keys.catalogue)
    while project_users(state.client, state.keys, rows):
        pass
    folder = repo_folder(state.home, state.keys.catalogue)
    write_repo(folder, state.keys.catalogue, state.url)
    apply_repo(folder)
    found = open_store(folder).get_online_features(
        features=["user_session:session_length", "user_counters:user_click_1d"],
        entity_rows=[{"user_id": user} for user in USERS],
    ).to_dict()  # fmt: skip
    ours = rows.read(VIEW["user_session"], USERS)
    assert found["session_length"] == [row["session_length"] if row else None for row in ours]
    assert sum(value is not None for value in found["user_click_1d"]) == len(USERS)


def test_what_the_gateway_reads_and_keeps(state: State) -> None:
    apply(state, some_events(100))
    write_lists(state.client, state.keys, [("u7", StoredList("b", NOW_MS, ["i1", "i2"]))], 600)
    kept = Kept(b"v", "r1", NOW_MS, candidates([1, 2, 3]))

    async def use(client: Any) -> tuple[Any, Any, Any, Any]:
        cache = ResultCache(client, state.keys, 600)
        for user in USERS[:10]:
            cache.keep(user, b"q", kept)
        await cache.settle()
        found = [await cache.get(user, b"q", 1, NOW_MS) for user in USERS[:11]]
        users = await asyncio.gather(*(read_user(client, state.keys, user) for user in USERS))
        listed = await read_list_async(client, state.keys, "u7")
        return await client.ping(), found, users, listed

    answers, found, users, listed = run_async(state, use)
    assert answers is True
    assert [one is not None for one in found] == [True] * 10 + [False]
    assert [user.history for user in users] == [read_history(state.client, state.keys, u) for u in USERS]
    assert listed == StoredList("b", NOW_MS, ["i1", "i2"])


def test_experiments_are_made_once_and_rewards_of_all_partitions_are_summed_up(state: State) -> None:
    bandit = Experiment(
        name="front", hypothesis="b is better", salt="s", allocation=Thompson(), attribution_window_seconds=3.0,
        variants=(Variant(name="a", alias="champion"), Variant(name="b", alias="challenger")),
    )  # fmt: skip
    store = ExperimentStore(state.client, state.keys)
    store.create(bandit)
    with pytest.raises(ExperimentError, match="experiment front exists"):
        store.create(bandit)
    decisions = [
        Decision(
            decision_id=f"d{n}", request_id=f"r{n}", catalogue=state.keys.catalogue, origin="live", unit=user,
            user_id=user, timestamp_ms=NOW_MS, experiment="front", variant="ab"[n % 2], propensity=0.5, bundle="b",
        )
        for n, user in enumerate(USERS)
    ]  # fmt: skip
    logged = run_async(
        state, lambda client: append_decisions_async(client, state.keys, decisions, state.settings.state)
    )
    assert logged == len(USERS)
    apply(state, [event(user, "i1", request_id=f"r{n}") for n, user in enumerate(USERS) if n % 4 == 0])
    found = read_posterior(state.client, state.keys, "front")
    assert (found.successes, found.failures) == ({"a": 15}, {"a": 15, "b": 30})


def test_a_user_joins_another_on_another_node(state: State) -> None:
    def slot_owner(user: str) -> int:
        return int(key_slot(state.keys.user(user).encode())) * NUM_NODES // 16384

    known = next(user for user in USERS if slot_owner(user) != slot_owner("anon"))
    append(
        state.client, state.keys, [event("anon", "i1"), event(known, "i2", timestamp_ms=NOW_MS + 1)],
        state.settings.state, NOW_MS,
    )  # fmt: skip

    async def ask() -> None:
        client, raw = connect_async(state.url), connect_async(state.url, text=False)
        profiles = Profiles(client, raw, client, state.keys)
        await profiles.put(parse_users([{"user_id": "anon", "onboarding": {"liked": ["i3"]}}])[0])
        assert (await profiles.merge("anon", known))["state"] == "noted"
        await client.aclose()
        await raw.aclose()

    worker = make_consumer(state)
    assert worker.drain(20)
    asyncio.run(ask())
    assert archive_profiles(state.client, state.keys, state.home) == 1
    assert len(admit_merges(state.client, state.keys, state.home, NOW_MS)) == 1
    append(
        state.client, state.keys, [event("anon", "i4", timestamp_ms=NOW_MS + 2)], state.settings.state, NOW_MS
    )
    assert worker.drain(20)
    worker.close()
    assert read_history(state.client, state.keys, known) == ["i1", "i2", "i4"]
    assert not state.client.exists(state.keys.user("anon"))
    record = user_state(state, known).encode()
    rebuild(state.client, state.keys, state.home, state.settings.state)
    assert user_state(state, known).encode() == record


def test_what_is_put_into_the_catalogue_is_followed_archived_and_restored(state: State) -> None:
    rows = {"a": '{"item_id":"a"}', "b": '{"item_id":"b"}'}
    assert write_items(state.client, state.keys, rows).changed == [True, True]
    reader = PutItems(state.client, state.keys)
    assert reader.poll().order == ["a", "b"]

    async def delete(client: Any) -> Written:
        return await write_items_async(client, state.keys, {"a": None})

    assert run_async(state, delete).changed == [True]
    assert reader.poll().rows == {"a": None}
    write_vectors(state.client, state.keys, "space", {"b": rows["b"]}, np.ones((1, 2), np.float32))
    assert read_vectors(state.client, state.keys, "space", 2, ["a", "b"]).tolist() == [[0, 0], [1, 1]]
    assert list(reader.poll().rows) == ["b"]
    WellKnown(state.client, state.keys).refresh(reader.order)
    archiver = ItemArchiver(state.client, state.keys, state.home)
    assert archiver.archive() == 2
    state.client.delete(
        state.keys.put_items, state.keys.put_order, state.keys.put_changes, state.keys.put_head
    )
    assert archiver.archive() == 2
    assert reader.poll().rows == {"a": None, "b": rows["b"]}
