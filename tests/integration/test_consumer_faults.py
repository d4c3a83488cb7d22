"""200,000 events, consumers killed with kill -9, and Valkey once: each accepted event is counted exactly once."""

import json
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import redis
from streams import DAY_MS
from waiting import until

from tastemaker.config import Settings
from tastemaker.errors import StateError
from tastemaker.events.archive import EVENT_SCHEMA, read_days
from tastemaker.events.drained import is_drained
from tastemaker.events.log import append
from tastemaker.events.schema import Event
from tastemaker.features.counters import WEIGHT, Counters, row_of
from tastemaker.features.user_state import UserState
from tastemaker.home import Home
from tastemaker.state.connection import connect, open_keys, url_of
from tastemaker.state.keys import Keys
from tastemaker.state.server import EmbeddedValkey
from tastemaker.types import EVENT_WEIGHTS

CONSUME = Path(__file__).parents[1] / "support" / "consume.py"
CATALOGUE, LEASE_SECONDS = "faults", "2.0"
NUM_EVENTS, BATCH = 200_000, 2_000
KINDS = ("impression", "view", "click", "purchase", "skip")
COUNTRIES = ("DE", "FR")
NOW_MS = int(time.time() * 1000)


def make_events(start: int) -> list[Event]:
    rng = np.random.default_rng(start)
    users, items = rng.zipf(1.3, BATCH) % 3_000, rng.zipf(1.3, BATCH) % 1_000
    kinds, ages = rng.choice(KINDS, BATCH), rng.integers(0, DAY_MS, BATCH)
    return [
        Event(
            event_id=f"e{start + n}", user_id=f"u{users[n]}", item_id=f"i{items[n]}", kind=str(kinds[n]),
            timestamp_ms=NOW_MS - int(ages[n]), context={"country": COUNTRIES[users[n] % 2]},
        )
        for n in range(BATCH)
    ]  # fmt: skip


class Consumers:
    """Processes that are killed and replaced."""

    def __init__(self, home: Home) -> None:
        self._command = [sys.executable, str(CONSUME), str(home.root), CATALOGUE, LEASE_SECONDS]
        self._running = [self._start() for _ in range(2)]

    def kill_one(self) -> None:
        """The older one; another starts at once."""
        oldest = self._running.pop(0)
        oldest.kill()
        oldest.wait()
        self._running.append(self._start())

    def end(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command)


class Server:
    """The home's Valkey, which is killed and comes back on its port, as a supervisor would bring it."""

    def __init__(self, home: Home) -> None:
        self._record = home / "run" / "valkey.json"
        self._first = EmbeddedValkey(home)
        self._first.start()
        self._process = psutil.Process(json.loads(self._record.read_text())["pid"])
        self._command = [self._process.exe(), str(home / "run" / "valkey.conf")]

    def kill_and_restart(self) -> None:
        self._process.kill()
        self._process.wait(10)
        self._process = psutil.Popen(self._command, stdout=subprocess.DEVNULL)
        now = {"pid": self._process.pid, "started": self._process.create_time()}
        self._record.write_text(json.dumps(json.loads(self._record.read_text()) | now))

    def end(self) -> None:
        self._process.kill()
        self._process.wait(10)
        self._first.stop()


def send(client: redis.Redis, keys: Keys, settings: Settings, events: list[Event]) -> None:
    """Until all are accepted: what was in doubt is sent again, as a client would."""
    deadline = time.monotonic() + 60
    while True:
        try:
            append(client, keys, events, settings.state, NOW_MS)
        except StateError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            return


def user_counts(client: redis.Redis, keys: Keys, truth: Counter[tuple[str, str]]) -> Counter[tuple[str, str]]:
    """What the records of the users in `truth` say, by user and kind."""
    user_ids = sorted({user_id for user_id, _ in truth})
    pipe: Any = client.pipeline(transaction=False)
    for user_id in user_ids:
        pipe.execute_command("GET", keys.user(user_id), NEVER_DECODE=True)
    states = [UserState.decode(record) for record in pipe.execute()]
    return counts(user_ids, [state.counters.value_NKW[0] for state in states])


def item_counts(client: redis.Redis, keys: Keys, truth: Counter[tuple[str, str]]) -> Counter[tuple[str, str]]:
    """What the items' totals say, by item and kind."""
    item_ids = sorted({item_id for item_id, _ in truth})
    kept = client.execute_command("HMGET", keys.item_totals, *item_ids, NEVER_DECODE=True)
    return counts(item_ids, list(Counters.decode(kept).value_NKW))


def country_weights(client: redis.Redis, keys: Keys) -> Counter[str]:
    """Weight of all that happened in each country; exact, being sums of quarters."""
    found: Counter[str] = Counter()
    for p in range(keys.partitions):
        names = client.hkeys(keys.local_counters(p))
        kept = client.execute_command("HMGET", keys.local_counters(p), *names, NEVER_DECODE=True)
        weights = Counters.decode(kept).value_NKW[:, row_of(WEIGHT), -1].tolist()
        for name, weight in zip(names, weights, strict=True):
            found[name[:2]] += weight
    return found


def counts(ids: list[str], values: list[Any]) -> Counter[tuple[str, str]]:
    """Of the window that never forgets."""
    rows = [(kind, row_of(kind)) for kind in KINDS]
    found = {
        (id_, kind): value[row, -1] for id_, value in zip(ids, values, strict=True) for kind, row in rows
    }
    return Counter({key: count for key, count in found.items() if count})


@pytest.mark.slow
def test_every_accepted_event_is_counted_once_whatever_is_killed(tmp_path: Path) -> None:
    home = Home.make(tmp_path / "home")
    settings = Settings(home=home.root, catalogue=CATALOGUE)
    of_users: Counter[tuple[str, str]] = Counter()
    of_items: Counter[tuple[str, str]] = Counter()
    of_countries: Counter[str] = Counter()
    with ExitStack() as stack:
        server = Server(home)
        stack.callback(server.end)
        client = stack.enter_context(connect(url_of(settings, home)))
        keys = open_keys(client, settings)
        consumers = Consumers(home)
        stack.callback(consumers.end)
        for start in range(0, NUM_EVENTS, BATCH):
            if start == NUM_EVENTS // 2 + BATCH:
                server.kill_and_restart()
            elif start and start % (NUM_EVENTS // 8) == 0:
                consumers.kill_one()
            events = make_events(start)
            send(client, keys, settings, events)
            of_users.update((event.user_id, event.kind) for event in events)
            of_items.update((event.item_id, event.kind) for event in events)
            for event in events:
                of_countries[event.context["country"]] += EVENT_WEIGHTS.get(event.kind, 0.0)
        until(lambda: is_drained(client, keys), "all to be applied and archived", 240)
        until(lambda: not any_marked(client, keys), "all totals to be made", 60)
        assert user_counts(client, keys, of_users) == of_users
        assert item_counts(client, keys, of_items) == of_items
        assert country_weights(client, keys) == of_countries
        assert not any(client.xlen(keys.dead_letters(p)) for p in range(keys.partitions))
    table = read_days(home / "events" / CATALOGUE, EVENT_SCHEMA, "event_id")
    assert set(table["event_id"].to_pylist()) == {f"e{n}" for n in range(NUM_EVENTS)}
    assert table.num_rows == NUM_EVENTS


def any_marked(client: redis.Redis, keys: Keys) -> bool:
    return any(client.scard(keys.changed_items(p)) for p in range(keys.partitions))
