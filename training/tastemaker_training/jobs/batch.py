"""Every user's list by the champion's whole pipeline: as a Parquet file, and where serving falls back on it.

Items that were put since the champion was made are in the lists as they are in answers; deleted ones are not.

Shape letters: B users.
"""

import functools
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tastemaker.bundle.manifest import BundleRef
from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.config import Settings
from tastemaker.data.schema import Column
from tastemaker.errors import UsageError
from tastemaker.features.item_store import ItemFacts, ItemStore
from tastemaker.features.records import read_users, scan_totals
from tastemaker.home import Home
from tastemaker.stages.live import LiveStages
from tastemaker.stages.overlay import OverlayRows
from tastemaker.state.connection import cache_url_of, connect, open_keys, open_state
from tastemaker.state.items import ItemChanges, PutItems
from tastemaker.state.lists import StoredList, write_lists
from tastemaker.types import Query, catalogue_name
from tastemaker_training.jobs.user_scoring import (
    HISTORY,
    ChampionsUsers,
    Scoring,
    is_made_from,
    remove_others,
)

_ITEMS, _SCORES = "item_ids", "scores"
_RECORD = "record"
_AT_ONCE = 64
_USERS_READ = 1000
_USERS_OF_A_TASK = 1024


@dataclass(frozen=True, slots=True)
class Recommended:
    """What one batch did. `num_skipped` users have no item that the bundle knows: what trends is theirs anyway."""

    outcome: Literal["written", "up to date"]
    file: Path
    bundle: str
    dataset: str
    k: int
    num_users: int
    num_skipped: int
    seconds: float

    def summary(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self) | {"file": str(self.file)}


def recommend_all(settings: Settings, home: Home, k: int, keep_seconds: int) -> Recommended:
    """Writes `events/<catalogue>/recommendations/<bundle id>.parquet`, and each user's list online.

    A row per user: user_id, item_ids and scores, best first. The file stays as it is where it was made from the same
    log; the lists are written anew, so that they outlive `keep_seconds` where this is called more often.

    Args:
        settings: Catalogue, state, Ray.
        home: Of the log.
        k: Items of a list.
        keep_seconds: How long serving may fall back on a list.

    Raises:
        UsageError: `k` is out of range, or another batch is under way in this home.
        RegistryError: The catalogue has no champion.
        DataError: There is no log, nobody in it used an item of the champion, or the file cannot be written.
        StateError: Redis/Valkey cannot be reached.
    """
    check_k(k, settings)
    started = time.monotonic()
    with home.lock("batch"):
        users = ChampionsUsers.of(settings, home)
        dataset, bundle_id = users.dataset.fingerprint, users.bundle.bundle_id
        file = lists_file(home, settings.catalogue, bundle_id)
        changes = _put_items(settings, home)
        made_from = users.made_from | {"history_length": settings.state.history_length, "k": k}
        if changes:
            made_from["put_items"] = [changes.lineage, changes.epoch]
        if not (done := is_made_from(file, made_from)):
            histories, totals = _with_features(settings, home, users)
            more = {"k": k, "now_ms": time.time_ns() // 1_000_000, "totals": totals, "changes": changes}
            scoring = Scoring(settings, home, users.ref, recommend, more, "recommending", _USERS_OF_A_TASK)
            scoring.write(file, histories, made_from)
        remove_others(file, users.live)
        with open_state(settings, home) as client, connect(cache_url_of(settings, home)) as cache:
            write_lists(cache, open_keys(client, settings), _lists(file, bundle_id), keep_seconds)
    return Recommended(
        "up to date" if done else "written", file, bundle_id, dataset, k, len(users.histories), users.num_skipped,
        round(time.monotonic() - started, 2),
    )  # fmt: skip


def check_k(k: int, settings: Settings) -> None:
    """Lets pass a length of lists that may be asked for.

    Raises:
        UsageError: It is out of range.
    """
    if not 1 <= k <= settings.gateway.max_k:
        raise UsageError("--k", value=k, limit=f"1 to {settings.gateway.max_k}", mend="correct it")


def lists_file(home: Home, catalogue: str, bundle_id: str) -> Path:
    """Where a bundle's lists lie."""
    return home / "events" / catalogue_name(catalogue) / "recommendations" / f"{bundle_id}.parquet"


def _put_items(settings: Settings, home: Home) -> ItemChanges:
    """All that was put into the catalogue and taken out of it while it served."""
    with open_state(settings, home) as client:
        put = PutItems(client, open_keys(client, settings))
        put.poll()
    return put.everything()


def _with_features(
    settings: Settings, home: Home, users: ChampionsUsers
) -> tuple[pa.Table, dict[str, bytes]]:
    """The users with their records, and the items' totals, as far as the champion's ranker reads any."""
    histories = users.histories
    config = users.bundle.json("pipeline.json")["hydration"]
    if not config.get("request_features"):
        return histories.append_column(_RECORD, pa.nulls(len(histories), pa.binary())), {}
    with open_state(settings, home) as client:
        keys = open_keys(client, settings)
        ids: list[Any] = histories[Column.USER_ID].to_pylist()
        blocks = [ids[start : start + _USERS_READ] for start in range(0, len(ids), _USERS_READ)]
        records = [record for block in blocks for record in read_users(client, keys, block).values()]
        totals = {name: record for part in scan_totals(client, keys) for name, record in part.items()}
    return histories.append_column(_RECORD, pa.array(records, pa.binary())), totals


def recommend(
    batch: pa.Table,
    settings: Settings,
    home: Home,
    ref: BundleRef,
    k: int,
    now_ms: int,
    totals: dict[str, bytes],
    changes: ItemChanges,
) -> pa.Table:
    """The users with lists in place of histories. Runs in Ray's worker processes."""
    champion = _opened(settings, home, ref)
    champion.follow(changes)
    if champion.stores:
        champion.stores[-1].take([totals])
    histories = [np.asarray(history, np.int32) for history in batch[HISTORY].to_pylist()]
    asked = [
        Query(history, k=k, now_ms=now_ms, record=record)
        for history, record in zip(histories, batch[_RECORD].to_pylist(), strict=True)
    ]
    items: list[list[str]] = []
    scores: list[list[float]] = []
    for start in range(0, len(asked), _AT_ONCE):
        queries = asked[start : start + _AT_ONCE]
        for found in champion.stages.pipeline.recommend(queries):
            items.append([champion.item_ids[row] for row in found.item_index])
            scores.append(found.score.tolist())
    return pa.table(
        {
            Column.USER_ID: batch[Column.USER_ID].combine_chunks(),
            _ITEMS: pa.array(items, pa.list_(pa.string())),
            _SCORES: pa.array(scores, pa.list_(pa.float32())),
        }
    )


class _Champion:
    """A bundle's stages with the items that were put since. `stores` are what the ranker reads of items, the newest last."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self.stores: list[ItemStore] = []
        self.stages = LiveStages(bundle, store_of=self._store_of)
        self.item_ids: Sequence[str] = bundle.item_ids
        self._known = ("", 0)

    def follow(self, changes: ItemChanges) -> None:
        """Takes what was put and deleted, all of it, once."""
        if not changes or self._known == (changes.lineage, changes.epoch):
            return
        self.stages.take(changes)
        rows = OverlayRows(len(self._bundle.item_ids), self._bundle.index_of)
        self.item_ids = [*self._bundle.item_ids, *rows.take(changes).overlay.new_ids]
        self._known = (changes.lineage, changes.epoch)

    def _store_of(self, facts: ItemFacts) -> ItemStore:
        self.stores.append(ItemStore(facts))
        return self.stores[-1]


@functools.cache
def _opened(settings: Settings, home: Home, ref: BundleRef) -> _Champion:
    """The bundle's stages, opened once in each process."""
    import torch

    torch.set_num_threads(1)
    return _Champion(Bundle.open(BundleStore.of(settings, home), ref))


def _lists(file: Path, bundle_id: str) -> Iterator[tuple[str, StoredList]]:
    made_ms = file.stat().st_mtime_ns // 1_000_000
    for block in pq.ParquetFile(file).iter_batches(columns=[Column.USER_ID, _ITEMS]):
        for user_id, item_ids in zip(*(column.to_pylist() for column in block.columns), strict=True):
            yield str(user_id), StoredList(bundle_id, made_ms, item_ids)
