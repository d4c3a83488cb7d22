"""What is known of an experiment's units and items from before it began; no variant can have changed that.

Shape letters: U units, I items of the experiment's slates, E events.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tastemaker.data.schema import POSITIVE_KINDS
from tastemaker.experiments.metrics import DAY_MS
from tastemaker.experiments.reporting.joining import kind_numbers
from tastemaker.types import EVENT_KINDS, Float64, Int8, Int64

PERIOD_MS: Final = 14 * DAY_MS
"""How long before the experiment's first decision a unit's events tell how active it is anyway."""


@dataclass(frozen=True, slots=True)
class Past:
    """Per unit, all before the experiment's first decision.

    `interactions_U` counts all that the unit took up ever (a view, click, like, purchase, rating or watch). Of the
    last 14 days, by their clients' clocks, there are the events themselves, `unit_E` being the unit's row and `kind_E` the place in `EVENT_KINDS`. `interactions_I` is how often the units took an item up.
    """

    interactions_U: Int64
    interactions_I: Int64
    unit_E: Int64
    kind_E: Int8
    value_E: Float64

    def per_unit(self, kinds: tuple[str, ...], *, values: bool) -> Float64:
        """The number of a unit's events of some kinds in the last 14 days before, or the sum of their values. Shape (U,)."""
        mine_E = np.isin(self.kind_E, kind_numbers(kinds))
        weight_E = self.value_E[mine_E] if values else None
        counts = np.bincount(self.unit_E[mine_E], weights=weight_E, minlength=len(self.interactions_U))
        return counts.astype(np.float64)


@dataclass(frozen=True, slots=True)
class PartPast:
    """The past of a part's users. `unit_E` are numbers of the part's units; `item_ids` are those that were taken up, each with how often."""

    interactions_U: Int64
    item_ids: Any
    item_counts: Int64
    unit_E: Int64
    kind_E: Int8
    value_E: Float64


def past_of_part(answers: pa.Table, tables: Iterable[pa.Table], units: Any, first_ms: int) -> PartPast:
    """What is known of a part's units from before the first decision.

    Args:
        answers: With `user_id` and `unit`; a user's events are those of the first unit that it had.
        tables: Events of the answers' users, before the first decision.
        units: The units' ids, in order.
        first_ms: When the first decision was logged.
    """
    encoded: Any = pc.dictionary_encode(answers["user_id"].combine_chunks())
    _, first = np.unique(encoded.indices.to_numpy(), return_index=True)
    unit_of = pc.index_in(answers["unit"].take(first), value_set=units).to_numpy().astype(np.int64)
    num_U, recent = np.zeros(len(units), np.int64), list[tuple[Any, Any, Any]]()
    taken: list[Any] = [pa.array([], pa.string())]
    table: Any
    for table in tables:
        user_E = pc.fill_null(pc.index_in(table["user_id"], value_set=encoded.dictionary), -1).to_numpy()
        mine: Any = table.filter(pa.array(user_E >= 0))
        unit_E = unit_of[user_E[user_E >= 0]]
        taken_E = pc.is_in(mine["kind"], value_set=pa.array(POSITIVE_KINDS)).to_numpy()
        taken += mine["item_id"].filter(pa.array(taken_E)).chunks
        num_U += np.bincount(unit_E[taken_E], minlength=len(num_U))
        new_E = mine["timestamp_ms"].to_numpy() >= first_ms - PERIOD_MS
        values_E = pc.fill_null(mine["value"], 0.0).to_numpy()
        kind_E = pc.fill_null(pc.index_in(mine["kind"], value_set=pa.array(EVENT_KINDS)), -1).to_numpy()
        recent.append((unit_E[new_E], kind_E[new_E].astype(np.int8), values_E[new_E]))
    unit, kind, value = (np.concatenate(column) for column in zip(*recent, strict=True))
    counted: Any = pc.value_counts(pa.chunked_array(taken))
    return PartPast(num_U, counted.field("values"), counted.field("counts").to_numpy(), unit, kind, value)


def no_past(num_units: int, num_items: int) -> Past:
    """The past of units of which nothing is known."""
    none = np.zeros(0, np.int64)
    return Past(
        np.zeros(num_units, np.int64), np.zeros(num_items, np.int64), none, none.astype(np.int8), np.zeros(0)
    )


def past_of(parts: Sequence[PartPast], units: Sequence[Int64], num_units: int, items: Any) -> Past:
    """The past of all parts.

    Args:
        parts: Of each.
        units: Of each, the number of each of its units among all.
        num_units: U.
        items: Ids of the items that were shown, in order.
    """
    num_U, num_I = np.zeros(num_units, np.int64), np.zeros(len(items), np.int64)
    for part, unit_of in zip(parts, units, strict=True):
        np.add.at(num_U, unit_of, part.interactions_U)
        item = pc.fill_null(pc.index_in(part.item_ids, value_set=items), -1).to_numpy()
        np.add.at(num_I, item[item >= 0], part.item_counts[item >= 0])
    return Past(
        num_U,
        num_I,
        np.concatenate([unit_of[part.unit_E] for part, unit_of in zip(parts, units, strict=True)]),
        np.concatenate([part.kind_E for part in parts]),
        np.concatenate([part.value_E for part in parts]),
    )
