"""Reading and writing features beside Feast, on the same values, in one process and thread, on a real Valkey.

reading  500 candidates of one user, 50 features: the user's record by one read and the items' columns in memory,
         beside `FeatureStore.get_online_features`
writing  rows of users into Feast's online store: ours beside `FeatureStore.push`
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import redis
from turns import Effort, Measured, Part, column, ratios, shown, turns

from tastemaker.config import Settings
from tastemaker.features.counters import ROWS, Counters, row_of
from tastemaker.features.feast_offline import offline_table
from tastemaker.features.feast_repo import apply_repo, open_store, repo_folder, write_repo
from tastemaker.features.feast_rows import FeastRows
from tastemaker.features.item_store import ItemFacts, ItemStore
from tastemaker.features.projection import project_users
from tastemaker.features.records import read_user
from tastemaker.features.request_features import REQUEST_FEATURES, features_for
from tastemaker.features.user_state import MOST_SHOWN, Shown, Signal, UserState
from tastemaker.features.view_rows import item_rows, user_rows
from tastemaker.features.views import VIEW, ViewRows
from tastemaker.home import Home
from tastemaker.state.connection import connect, open_keys
from tastemaker.state.keys import Keys
from tastemaker.state.server import EmbeddedValkey

NOW_MS = 1_750_000_000_000
CANDIDATES = 500
_ITEM_READS = [f"item_counters:{name}" for name in REQUEST_FEATURES[:23]] + [
    "item_popularity:trend_7d", "item_popularity:popularity_30d", "item_attributes:item_category",
    "item_attributes:item_created_ms", "item_attributes:item_price",
]  # fmt: skip
_USER_READS = [f"user_counters:{name}" for name in REQUEST_FEATURES[26:37]] + [
    "user_counters:user_last_ms", "user_session:session_last_ms", "user_session:session_length",
    *(f"user_taste:taste_{place}{part}" for place in (1, 2, 3) for part in ("", "_weight")), "user_taste:taste_total",
    "user_taste:taste_num_categories",
]  # fmt: skip
FEAST_READS = _ITEM_READS + _USER_READS
"""What our 50 features are computed from, as 50 values that Feast is asked for."""


@dataclass(frozen=True)
class Shop:
    """A catalogue with features of items and users, in a Valkey of its own and in Feast."""

    client: redis.Redis
    keys: Keys
    rows: FeastRows
    store: Any
    items: ItemStore
    item_ids: list[str]


@contextmanager
def shop(num_items: int) -> Iterator[Shop]:
    with tempfile.TemporaryDirectory() as folder:
        home = Home.make(Path(folder) / "home")
        with EmbeddedValkey(home) as url:
            settings = Settings(home=home.root)
            client = connect(url)
            keys, rows = open_keys(client, settings), FeastRows(client, settings.catalogue)
            repo = repo_folder(home, settings.catalogue)
            write_repo(repo, settings.catalogue, url)
            apply_repo(repo)
            item_ids = [f"item-{i}" for i in range(num_items)]
            items = _write_items(client, keys, rows, item_ids)
            yield Shop(client, keys, rows, open_store(repo), items, item_ids)
            client.close()


def reading(effort: Effort) -> Part:
    part = Part(
        f"{CANDIDATES} candidates of one user, {len(REQUEST_FEATURES)} features, one thread",
        ("", "p50, ms", "p99, ms"),
    )
    with shop(20_000 // effort.divide) as here:
        rng = np.random.default_rng(0)
        here.client.set(here.keys.user("user"), _user(rng, MOST_SHOWN).encode())
        here.rows.write(["user"], user_rows([read_user(here.client, here.keys, "user")]))
        _check_equal(here, rng)
        jobs: dict[str, Callable[[], Measured]] = {
            "ours": lambda: _latencies(10 * effort.steps, rng, here, _read_ours),
            "Feast": lambda: _latencies(max(effort.steps // 4, 10), rng, here, _read_feast),
        }
        found = turns(effort.turns, jobs)
    part.num_turns = effort.turns
    for name, measured in found.items():
        part.rows.append((name, shown(column(measured, "p50_ms"), 2), shown(column(measured, "p99_ms"), 2)))
    times = ratios(column(found["Feast"], "p50_ms"), column(found["ours"], "p50_ms"))
    p99_ms = statistics.median(column(found["ours"], "p99_ms"))
    part.target("reading features: Feast's p50 over ours", statistics.median(times), 50.0, "higher")
    part.target("reading features: p99, ms, the Redis read included", p99_ms, 5.0, "lower")
    part.notes.append(
        f"Feast's p50 is {shown(times, 0)} times ours. Ours gives the {len(REQUEST_FEATURES)} features of the ranker, decayed "
        f"to the request; Feast the {len(FEAST_READS)} values that they are computed from, as they were written."
    )
    part.figures = found
    return part


def writing(effort: Effort) -> Part:
    num_users, view = 4000 // effort.divide, VIEW["user_counters"]
    part = Part(
        f"Rows of {num_users:,} users into Feast's online store, {len(view.features)} features a row",
        ("", "rows/s"),
    )
    rng = np.random.default_rng(1)
    user_ids = [f"user-{u}" for u in range(num_users)]
    states = {user_id: _user(rng, 20) for user_id in user_ids}
    counters, *_ = user_rows(list(states.values()))
    clock = iter(range(NOW_MS, NOW_MS + 1_000_000, 1000))
    with shop(1) as here:
        jobs: dict[str, Callable[[], Measured]] = {
            "ours": lambda: _rate(
                num_users, lambda: here.rows.write(user_ids, [_as_of(counters, next(clock))])
            ),
            "Feast's push": lambda: _push(here.store, user_ids, _as_of(counters, next(clock))),
            "ours from records, all views": lambda: _project(here, states),
        }
        found = turns(effort.turns, jobs)
    part.num_turns = effort.turns
    for name, measured in found.items():
        part.rows.append((name, shown(column(measured, "per_second"), 0)))
    times = ratios(column(found["ours"], "per_second"), column(found["Feast's push"], "per_second"))
    part.target("writing Feast's rows: ours over Feast's push", statistics.median(times), 3.0, "higher")
    part.notes.append(
        f"Ours is {shown(times, 1)} times as fast. Feast gets all rows in one call, as a frame that is made beforehand. The "
        "last row reads records, writes three views and takes the marks away."
    )
    part.figures = found
    return part


def _write_items(client: redis.Redis, keys: Keys, rows: FeastRows, item_ids: list[str]) -> ItemStore:
    rng = np.random.default_rng(2)
    counters = _counters(rng, len(item_ids))
    client.hset(keys.item_totals, mapping=dict(zip(item_ids, counters.encode(), strict=True)))
    said = np.full((len(item_ids), 3), float(NOW_MS))
    said[:, 2] = rng.random(len(item_ids))
    categories = [f"category {c}" for c in rng.integers(0, 20, len(item_ids))]
    attributes = ViewRows(VIEW["item_attributes"], said, {"item_category": categories})
    rows.write(item_ids, [*item_rows(counters), attributes])
    items = ItemStore(ItemFacts.of(item_ids, attributes))
    items.refresh(client, keys)
    return items


def _counters(rng: np.random.Generator, num: int) -> Counters:
    kinds = np.array([row_of(kind) for kind in ROWS])
    events = 20 * num
    return Counters.zeros(num).plus(
        rng.integers(0, num, events), rng.choice(kinds, events), np.ones(events),
        NOW_MS - rng.integers(0, 30 * 86_400_000, events),
    )  # fmt: skip


def _user(rng: np.random.Generator, num_items: int) -> UserState:
    """A user who has seen some items and refused a quarter of them."""
    at = [NOW_MS - int(ago) for ago in sorted(rng.integers(0, 3_600_000, 50), reverse=True)]
    return UserState(
        _counters(rng, 1),
        {f"category {c}": float(rng.random()) for c in range(20)},
        taken=[Signal(time_ms, f"item-{n}", 0.5) for n, time_ms in enumerate(at)],
        opinions={f"item-{n}": (NOW_MS, True) for n in range(num_items // 4)},
        shown={f"item-{n}": Shown(1.0, NOW_MS) for n in range(num_items)},
    )


def _read_ours(here: Shop, rows_K: Any) -> Any:
    state = read_user(here.client, here.keys, "user")
    return features_for(state, here.items.snapshot.of(rows_K), NOW_MS)


def _read_feast(here: Shop, rows_K: Any) -> Any:
    entities = [{"user_id": "user", "item_id": here.item_ids[row]} for row in rows_K]
    return here.store.get_online_features(FEAST_READS, entities).to_dict()


def _check_equal(here: Shop, rng: np.random.Generator) -> None:
    """What the two read is the same before it is decayed, to the last bit."""
    rows_K = _candidates(here, rng)
    found = _read_feast(here, rows_K)
    snapshot = here.items.snapshot
    of_user = user_rows([read_user(here.client, here.keys, "user")])
    for rows, at in [
        (snapshot.counters, rows_K),
        (snapshot.popularity, rows_K),
        (snapshot.facts.attributes, rows_K),
    ] + [(rows, np.zeros(CANDIDATES, int)) for rows in of_user]:
        for name, place in rows.view.position.items():
            if name in found:
                np.testing.assert_array_equal(np.array(found[name], float), rows.value_NF[at, place], name)


def _candidates(here: Shop, rng: np.random.Generator) -> Any:
    return rng.choice(len(here.item_ids), CANDIDATES, replace=False).astype(np.int32)


def _latencies(
    times: int, rng: np.random.Generator, here: Shop, read: Callable[[Shop, Any], Any]
) -> Measured:
    seconds = []
    for _ in range(times):
        rows_K = _candidates(here, rng)
        begun = time.perf_counter()
        read(here, rows_K)
        seconds.append(time.perf_counter() - begun)
    p50, p99 = np.percentile(seconds, [50, 99]) * 1000
    return {"p50_ms": float(p50), "p99_ms": float(p99)}


def _rate(count: int, work: Callable[[], object]) -> Measured:
    begun = time.perf_counter()
    work()
    return {"per_second": count / (time.perf_counter() - begun)}


def _as_of(rows: ViewRows, last_ms: int) -> ViewRows:
    """The same values of another time, for Feast drops what is not newer."""
    value_NF = rows.value_NF.copy()
    value_NF[:, 0] = last_ms
    return ViewRows(rows.view, value_NF, rows.texts)


def _push(store: Any, user_ids: list[str], rows: ViewRows) -> Measured:
    frame: pd.DataFrame = offline_table(user_ids, rows, int(datetime.now(UTC).timestamp() * 1000)).to_pandas()
    return _rate(len(user_ids), lambda: store.push(f"{rows.view.name}_push", frame))


def _project(here: Shop, states: Mapping[str, UserState]) -> Measured:
    for user_id, state in states.items():
        here.client.set(here.keys.user(user_id), state.encode())
        here.client.sadd(here.keys.changed_users(here.keys.partition(user_id)), user_id)
    return _rate(len(states), lambda: sum(iter(lambda: project_users(here.client, here.keys, here.rows), 0)))
