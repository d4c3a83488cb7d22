"""Items' features as columns in a process's memory: a request for many items costs no look-up elsewhere.

A refresh reads the totals and swaps in a new snapshot as a whole: who holds one goes on with values of one version.

Shape letters: I catalogue, N changed items, F numbers of a view.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import redis

from tastemaker.features.counters import Counters
from tastemaker.features.records import scan_totals
from tastemaker.features.view_rows import item_rows
from tastemaker.features.views import ViewRows
from tastemaker.state.keys import Keys
from tastemaker.types import Float64, Int32, Int64

NO_CATEGORY = 0


@dataclass(frozen=True)
class ItemSnapshot:
    """Items' features at one version; row i of each view is item_index i. Immutable.

    `category_I` is the place of each item's category by `categories`, 0 where it has none; `index` gives the item_index of
    an id.
    """

    version: int
    counters: ViewRows
    popularity: ViewRows
    attributes: ViewRows
    category_I: Int32
    categories: Mapping[str, int]
    index: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.category_I)


class ItemStore:
    """Keeps the newest snapshot. One thread refreshes, any may read `snapshot`.

    Args:
        item_ids: Of the bundle, in order of item_index.
        attributes: Row i of item_index i.
    """

    def __init__(self, item_ids: Sequence[str], attributes: ViewRows) -> None:
        assert len(item_ids) == len(attributes), "one row for each item"
        names = attributes.texts["item_category"]
        categories = {name: place for place, name in enumerate(sorted({*names} - {""}), 1)}
        counters, popularity = item_rows(Counters.zeros(len(item_ids)))
        self.snapshot = ItemSnapshot(
            version=0,
            counters=counters,
            popularity=popularity,
            attributes=attributes,
            category_I=np.array([categories.get(name, NO_CATEGORY) for name in names], np.int32),
            categories=categories,
            index={item_id: i for i, item_id in enumerate(item_ids)},
        )
        self._read_I: Int64 = np.zeros(len(item_ids), np.int64)

    def refresh(self, client: redis.Redis, keys: Keys) -> int:
        """Reads the totals and swaps in a snapshot of the next version where any differ; gives how many did.

        Items that the bundle does not have are passed over; of those that have no totals any more nothing is known. Only
        records that are not as last read are decoded.

        Raises:
            StateError: Redis/Valkey cannot be reached. The snapshot stays what it was.
            CompatibilityError: A record is of another layout.
        """
        index = self.snapshot.index
        changed: dict[int, bytes | None] = {}
        gone = set(np.flatnonzero(self._read_I).tolist())
        for totals in scan_totals(client, keys):
            for item_id, record in totals.items():
                i = index.get(item_id)
                if i is not None:
                    gone.discard(i)
                    if self._read_I[i] != hash(record):
                        changed[i] = record
        changed |= dict.fromkeys(gone)
        if changed:
            self._swap(changed)
        return len(changed)

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


def _with(rows: ViewRows, index_N: Int64, value_NF: Float64) -> ViewRows:
    value_IF = rows.value_NF.copy()
    value_IF[index_N] = value_NF
    return replace(rows, value_NF=value_IF)
