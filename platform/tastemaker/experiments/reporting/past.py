"""What is known of an experiment's units and items from before it began; no variant can have changed that.

Shape letters: U units, I items of the experiment's slates, E events.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tastemaker.data.schema import INTERACTIONS_SCHEMA, POSITIVE_KINDS, Column, imported_folder
from tastemaker.events.archive import read_batches
from tastemaker.experiments.metrics import DAY_MS
from tastemaker.experiments.reporting.joining import kind_numbers
from tastemaker.home import Home
from tastemaker.types import EVENT_KINDS, Float64, Int64

PERIOD_MS: Final = 14 * DAY_MS
"""How long before the experiment's first decision a unit's events tell how active it is anyway."""
_IMPORTED: Final = pa.schema(
    [
        INTERACTIONS_SCHEMA.field(name)
        for name in (Column.USER_ID, Column.ITEM_ID, Column.KIND, Column.VALUE, Column.TIMESTAMP_MS)
    ]
)


@dataclass(frozen=True, slots=True)
class Past:
    """Per unit, all before the experiment's first decision.

    `interactions_U` counts all that the unit took up ever (a view, click, like, purchase, rating or watch). Of the
    last 14 days, by their clients' clocks, there are the events themselves, `unit_E` being the unit's row and `kind_E` the place in `EVENT_KINDS`. `interactions_I` is how often the units took an item up.
    """

    interactions_U: Int64
    interactions_I: Int64
    unit_E: Int64
    kind_E: Int64
    value_E: Float64

    def per_unit(self, kinds: tuple[str, ...], *, values: bool) -> Float64:
        """The number of a unit's events of some kinds in the last 14 days before, or the sum of their values. Shape (U,)."""
        mine_E = np.isin(self.kind_E, kind_numbers(kinds))
        weight_E = self.value_E[mine_E] if values else None
        counts = np.bincount(self.unit_E[mine_E], weights=weight_E, minlength=len(self.interactions_U))
        return counts.astype(np.float64)


def read_past(
    home: Home,
    catalogue: str,
    origin: str,
    decisions: pa.Table,
    events: pa.Table,
    units: Any,
    items: Any,
    first_ms: int,
) -> Past:
    """The past of the units.

    Args:
        home: Holds imported interactions, which are the past of live traffic.
        catalogue: The experiment's.
        origin: Of the experiment's traffic.
        decisions: With `user_id` and `unit`; a user's events are those of the first unit that it had.
        events: Of the decisions' users, before the first decision.
        units: Their ids, in order.
        items: Ids of the items that were shown, in order.
        first_ms: When the experiment's first decision was logged.

    Raises:
        DataError: The imported files cannot be read.
    """
    encoded: Any = pc.dictionary_encode(decisions["user_id"].combine_chunks())
    _, first = np.unique(encoded.indices.to_numpy(), return_index=True)
    unit_of = pc.index_in(decisions["unit"].take(first), value_set=units).to_numpy().astype(np.int64)
    num_U, num_I = np.zeros(len(units), np.int64), np.zeros(len(items), np.int64)
    recent: list[tuple[Any, Any, Any]] = []
    for table in (events, *(_imported(home, catalogue, first_ms) if origin == "live" else ())):
        user_E = pc.fill_null(pc.index_in(table["user_id"], value_set=encoded.dictionary), -1).to_numpy()
        mine = table.filter(pa.array(user_E >= 0))
        unit_E = unit_of[user_E[user_E >= 0]]
        taken_E = pc.is_in(mine["kind"], value_set=pa.array(POSITIVE_KINDS)).to_numpy()
        item_E = pc.fill_null(pc.index_in(mine["item_id"], value_set=items), -1).to_numpy()
        num_U += np.bincount(unit_E[taken_E], minlength=len(num_U))
        num_I += np.bincount(item_E[taken_E & (item_E >= 0)], minlength=len(num_I))
        new_E = mine["timestamp_ms"].to_numpy() >= first_ms - PERIOD_MS
        values_E = pc.fill_null(mine["value"], 0.0).to_numpy()
        kind_E = pc.fill_null(pc.index_in(mine["kind"], value_set=pa.array(EVENT_KINDS)), -1).to_numpy()
        recent.append((unit_E[new_E], kind_E[new_E].astype(np.int64), values_E[new_E]))
    unit, kind, value = zip(*recent, strict=True)
    return Past(num_U, num_I, np.concatenate(unit), np.concatenate(kind), np.concatenate(value))


def no_past(num_units: int, num_items: int) -> Past:
    """The past of units of which nothing is known."""
    none = np.zeros(0, np.int64)
    return Past(np.zeros(num_units, np.int64), np.zeros(num_items, np.int64), none, none, np.zeros(0))


def _imported(home: Home, catalogue: str, until_ms: int) -> Iterator[pa.Table]:
    """The imported interactions up to a moment, some at a time; none without an import."""
    path = imported_folder(home, catalogue) / "interactions.parquet"
    if path.exists():
        yield from read_batches(path, _IMPORTED, pc.field(Column.TIMESTAMP_MS) < until_ms)
