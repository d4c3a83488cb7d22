"""Items' features as columns in a process's memory: a request for many items costs no look-up elsewhere.

A refresh reads the totals and swaps in a new snapshot as a whole: who holds one goes on with values of one version.

Shape letters: I catalogue, K candidates, N changed items, F numbers of a view.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pyarrow as pa
import redis

from tastemaker.data.schema import Column
from tastemaker.data.values import array_of, values_in
from tastemaker.features.counters import Counters
from tastemaker.features.overlaid import OverlaidMapping, OverlaidSequence
from tastemaker.features.places import Places
from tastemaker.features.records import scan_totals
from tastemaker.features.rows import placed
from tastemaker.features.view_rows import attribute_rows, item_rows
from tastemaker.features.views import ViewRows
from tastemaker.pacing import step
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.types import Float64, Int32, Int64

NO_CATEGORY = 0


@dataclass(frozen=True)
class ItemFacts:
    """What the catalogue says of its items; row i is item_index i. Immutable.

    `category_I` is the place of each item's category by `categories`, 0 where it has none; `index` gives the item_index of
    an id.
    """

    attributes: ViewRows
    category_I: Int32
    categories: Mapping[str, int]
    index: Mapping[str, int]
    places: Places

    @classmethod
    def of(cls, item_ids: Sequence[str], attributes: ViewRows, places: Places | None = None) -> Self:
        """Those of some items; row i of `attributes` is of the i-th. Where they are is unknown where `places` is unset."""
        assert len(item_ids) == len(attributes), "one row for each item"
        return cls.indexed({item_id: i for i, item_id in enumerate(item_ids)}, attributes, places)

    @classmethod
    def indexed(cls, index: Mapping[str, int], attributes: ViewRows, places: Places | None = None) -> Self:
        """The same of items whose item_index is given by id."""
        # A tuple, for the garbage collector's sake: see `Bundle.item_ids`.
        names = tuple(attributes.texts["item_category"])
        attributes = replace(attributes, texts={**attributes.texts, "item_category": names})
        categories = {name: place for place, name in enumerate(sorted({*names} - {""}), 1)}
        category_I = array_of(names, lambda name: categories.get(name, NO_CATEGORY), np.int32)
        return cls(attributes, category_I, categories, index, places or Places.unknown(len(attributes)))

    @classmethod
    def from_items(cls, items: pa.Table, index: Mapping[str, int] | None = None) -> Self:
        """Those of a catalogue's table, or a bundle's: row i is item_index i.

        Args:
            items: Of the schema of imported items.
            index: The rows by id, where they are known already.
        """
        if index is None:
            index = {item_id: i for i, item_id in enumerate(values_in(items[Column.ITEM_ID]))}
        return cls.indexed(index, attribute_rows(items, said_ms=0), Places.from_items(items))

    def with_items(self, rows_W: Int32, items: pa.Table) -> Self:
        """The facts with others at `rows_W`, ascending: in place of rows that are there, or next behind the last."""
        new = attribute_rows(items, said_ms=0)
        names, rows, categories = new.texts["item_category"], rows_W.tolist(), dict(self.categories)
        category_W = np.empty(len(rows_W), np.int32)
        for w, name in enumerate(names):
            category_W[w] = categories.setdefault(name, len(categories) + 1) if name else NO_CATEGORY
        item_ids: list[Any] = items[Column.ITEM_ID].to_pylist()
        index = OverlaidMapping.over(self.index, dict(zip(item_ids, rows, strict=True)))
        said = OverlaidSequence.over(
            self.attributes.texts["item_category"], dict(zip(rows, names, strict=True))
        )
        value_IF = placed(self.attributes.value_NF, rows_W, new.value_NF)
        attributes = ViewRows(self.attributes.view, value_IF, {"item_category": said})
        category_I = placed(self.category_I, rows_W, category_W)
        return type(self)(attributes, category_I, categories, index, self.places.after(rows_W, items))

    def __len__(self) -> int:
        return len(self.category_I)

    def category(self, item_id: str) -> str:
        """An item's category; empty where it has none or the item is unknown."""
        i = self.index.get(item_id)
        return "" if i is None else self.attributes.texts["item_category"][i]


@dataclass(frozen=True)
class CandidateRows:
    """What is known of the K candidates of a request: row k of each view is of `item_index[k]`, which is among `facts`."""

    facts: ItemFacts
    item_index: Int32
    counters: ViewRows
    popularity: ViewRows

    def __len__(self) -> int:
        return len(self.item_index)


@dataclass(frozen=True)
class ItemSnapshot:
    """Items' features at one version; row i of each view is item_index i. Immutable."""

    version: int
    facts: ItemFacts
    counters: ViewRows
    popularity: ViewRows

    def __len__(self) -> int:
        return len(self.facts)

    def of(self, item_index: Int32) -> CandidateRows:
        """The rows of some items."""
        return CandidateRows(
            self.facts, item_index, _taken(self.counters, item_index), _taken(self.popularity, item_index)
        )


class ItemStore:
    """Keeps the newest snapshot. One thread refreshes, another may write facts, any may read `snapshot`."""

    def __init__(self, facts: ItemFacts) -> None:
        self.snapshot = ItemSnapshot(0, facts, *_unseen(len(facts)))
        self._read_I: Int64 = np.zeros(len(facts), np.int64)
        self._totals_version: str | None = None
        self._lock = threading.Lock()

    def write(self, rows_W: Int32, items: pa.Table) -> None:
        """Swaps in a snapshot with other facts at `rows_W`, see `ItemFacts.with_items`; counters of new items follow."""
        with self._lock:
            old = self.snapshot
            facts = old.facts.with_items(rows_W, items)
            num_new = len(facts) - len(old)
            if num_new:
                counters, popularity = _unseen(num_new)
                old = replace(
                    old,
                    counters=_joined(old.counters, counters.value_NF),
                    popularity=_joined(old.popularity, popularity.value_NF),
                )
                self._read_I = np.concatenate([self._read_I, np.zeros(num_new, np.int64)])
                self._totals_version = None
            self.snapshot = replace(old, version=old.version + 1, facts=facts)

    def refresh(self, client: redis.Redis, keys: Keys) -> int:
        """Reads the totals and swaps in a snapshot of the next version where any differ; gives how many did.

        Items that the facts do not name are passed over; of those that have no totals any more nothing is known. Where no
        total was written since the last time, one small read tells; of the others, only what changed is decoded.

        Raises:
            StateError: Redis/Valkey cannot be reached. The snapshot stays what it was.
            CompatibilityError: A record is of another layout.
        """
        version = _totals_version(client, keys)
        if version is not None and version == self._totals_version:
            return 0
        facts = self.snapshot.facts
        num_changed = self.take(scan_totals(client, keys))
        with self._lock:
            if facts is self.snapshot.facts:  # else items have come whose totals were not looked for
                self._totals_version = version
        return num_changed

    def take(self, parts: Iterable[Mapping[str, bytes]]) -> int:
        """The same from all totals, given some at a time by item id."""
        changed = self._changed(parts)
        with self._lock:
            if changed:
                self._swap(changed)
        return len(changed)

    def _changed(self, parts: Iterable[Mapping[str, bytes]]) -> dict[int, bytes | None]:
        index = self.snapshot.facts.index
        changed: dict[int, bytes | None] = {}
        gone = set(np.flatnonzero(self._read_I).tolist())
        for totals in parts:
            step()
            for item_id, record in totals.items():
                i = index.get(item_id)
                if i is not None:
                    gone.discard(i)
                    if self._read_I[i] != hash(record):
                        changed[i] = record
        return changed | dict.fromkeys(gone)

    def _swap(self, changed: Mapping[int, bytes | None]) -> None:
        index_N = np.array(list(changed))
        counters, popularity = item_rows(Counters.decode(list(changed.values())))
        old = self.snapshot
        self.snapshot = replace(
            old,
            version=old.version + 1,
            counters=_with(old.counters, index_N, counters.value_NF),
            popularity=_with(old.popularity, index_N, popularity.value_NF),
        )
        self._read_I[index_N] = [hash(record) if record else 0 for record in changed.values()]


def _totals_version(client: redis.Redis, keys: Keys) -> str | None:
    """Another text after every write of totals; None where none was written yet."""
    with state_errors("read the items' version"):
        found: Any = client.hget(keys.item_totals_guard, "version")
    return None if found is None else str(found)


def _unseen(num_items: int) -> list[ViewRows]:
    """What `item_rows` gives for items that nobody has seen, all of which is 0: it takes no memory until it is written."""
    return [
        replace(rows, value_NF=np.zeros((num_items, rows.value_NF.shape[1])))
        for rows in item_rows(Counters.zeros(0))
    ]


def _with(rows: ViewRows, index_N: Int64, value_NF: Float64) -> ViewRows:
    value_IF = rows.value_NF.copy()
    value_IF[index_N] = value_NF
    return replace(rows, value_NF=value_IF)


def _joined(rows: ViewRows, value_NF: Float64) -> ViewRows:
    return replace(rows, value_NF=np.concatenate([rows.value_NF, value_NF]))


def _taken(rows: ViewRows, item_index: Int32) -> ViewRows:
    return ViewRows(rows.view, rows.value_NF[item_index], {})
