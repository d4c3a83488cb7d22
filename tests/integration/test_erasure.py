"""A user is forgotten online, and nobody else is; a commit that was under way cannot bring the user back."""

import time
from collections.abc import Iterator

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tastemaker.config import Settings
from tastemaker.errors import StateError
from tastemaker.events.archive import EVENT_SCHEMA, read_days
from tastemaker.events.consumer import StreamConsumer
from tastemaker.events.erasure import erase_online, user_hash
from tastemaker.events.history import read_history
from tastemaker.events.log import FIELD, append
from tastemaker.events.schema import Event
from tastemaker.experiments.reward_joiner import RewardJoiner
from tastemaker.features.stream import StreamFeatures
from tastemaker.features.user_state import UserState
from tastemaker.home import Home
from tastemaker.state.connection import open_keys, open_state
from tastemaker.state.keys import Keys
from tastemaker.state.lease import queue_commit
from tastemaker.state.lists import StoredList, write_lists

NOW_MS = 1_750_000_000_000


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home.make(tmp_path_factory.mktemp("erasure") / "home")


@pytest.fixture
def client(home: Home) -> Iterator[redis.Redis]:
    with open_state(Settings(home=home.root), home) as client:
        client.flushall()
        yield client


def events(user_id: str, number: int) -> list[Event]:
    return [
        Event(event_id=f"{user_id}-{n}", user_id=user_id, item_id="i", kind="click", timestamp_ms=NOW_MS)
        for n in range(number)
    ]


def fill(client: redis.Redis, keys: Keys, settings: Settings, user_id: str) -> None:
    client.set(keys.user(user_id), UserState().encode())
    client.rpush(keys.history(user_id), "i")
    client.sadd(keys.changed_users(keys.partition(user_id)), user_id)
    client.set(keys.assignment("front", 3, user_id), "{}")
    write_lists(client, keys, [(user_id, StoredList("b", NOW_MS, ["i"]))], 3600)
    append(client, keys, events(user_id, 1200), settings.state, NOW_MS)
    client.xadd(keys.dead_letters(keys.partition(user_id)), {FIELD: f"broken {user_id}", "reason": "no JSON"})


def test_all_that_is_the_users_goes_and_nothing_of_another(client: redis.Redis, home: Home) -> None:
    settings = Settings(home=home.root)
    settings = settings.model_copy(update={"state": settings.state.model_copy(update={"partitions": 1})})
    keys = open_keys(client, settings)
    for user_id in ("a*", "a", "x:a*"):
        fill(client, keys, settings, user_id)
    found = erase_online(client, client, keys, "a*", NOW_MS)
    assert found == {
        "records": 2, "lists": 1, "assignments": 1, "marks": 1, "merges": 0, "events": 1200, "decisions": 0,
        "dead letters": 2,  # one that cannot be read goes wherever the id stands in it
    }  # fmt: skip
    left = {key for key in client.scan_iter() if "a*" in key and "x:a*" not in key}
    assert left == set()
    assert client.xlen(keys.events(0)) == 2400
    assert client.smembers(keys.changed_users(0)) == {"a", "x:a*"}
    for user_id in ("a", "x:a*"):
        names = (keys.user(user_id), keys.history(user_id), keys.assignment("front", 3, user_id))
        assert client.exists(*names, keys.stored_list(user_id)) == 4
    assert client.hgetall(keys.erased(0)) == {user_hash("a*"): str(NOW_MS)}
    assert sum(erase_online(client, client, keys, "a*", NOW_MS).values()) == 0


def test_a_commit_that_was_under_way_writes_nothing(client: redis.Redis, home: Home) -> None:
    settings = Settings(home=home.root)
    keys = open_keys(client, settings)
    partition = keys.partition("a")
    fence = int(client.incr(keys.partition_fence(partition)))
    client.set(keys.partition_lease(partition), "a consumer")
    erase_online(client, client, keys, "a", NOW_MS)
    pipe = client.pipeline(transaction=False)
    queue_commit(
        pipe, keys.offsets(partition), fence, [("SET", keys.user("a"), "anew")], after="1-0 0-0 0-0 0-0"
    )
    assert pipe.execute() == [0]
    assert not client.exists(keys.user("a"))
    assert not client.exists(keys.partition_lease(partition))


def test_older_events_that_come_late_are_dropped_and_newer_ones_are_of_a_user_who_came_back(
    client: redis.Redis, home: Home
) -> None:
    settings = Settings(home=home.root)
    keys = open_keys(client, settings)
    now_ms = int(time.time() * 1000)
    erase_online(client, client, keys, "a", now_ms - 1)  # what the log takes in that very ms goes too
    append(
        client, keys,
        [
            Event(event_id=f"{user}-{at}", user_id=user, item_id=f"i{at}", kind="click", timestamp_ms=now_ms + at)
            for user in ("a", "b") for at in (-5, 5)
        ],
        settings.state, now_ms,
    )  # fmt: skip
    consumer = StreamConsumer(
        client, keys, home, settings, RewardJoiner(client, keys), StreamFeatures(client, keys, home)
    )
    assert consumer.drain()
    consumer.close()
    assert read_history(client, keys, "a") == ["i5"]
    assert read_history(client, keys, "b") == ["i-5", "i5"]
    kept = read_days(home / "events" / "default", EVENT_SCHEMA, "event_id")["event_id"].to_pylist()
    assert sorted(kept) == ["a-5", "b--5", "b-5"]


def test_without_a_server_it_says_so(home: Home) -> None:
    nobody = redis.Redis(port=1, retry=Retry(NoBackoff(), 0))
    with pytest.raises(StateError, match="cannot erase a user"):
        erase_online(nobody, nobody, Keys("default", 1), "a", NOW_MS)
