"""What is known of an experiment's units and items from before it began; no variant can have changed that.

Shape letters: U units, I items of the experiment's slates, E events.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tastemaker.data.schema import POSITIVE_KINDS
from tastemaker.experiments.metrics import DAY_MS, METRICS
from tastemaker.experiments.reporting.joining import kind_numbers
from tastemaker.experiments.reporting.narrow import Narrow, narrow
from tastemaker.types import EVENT_KINDS, Float64, Int64

PERIOD_MS: Final = 14 * DAY_MS
"""How long before the experiment's first decision a unit's events tell how active it is anyway."""


_NUM_KINDS: Final = len(EVENT_KINDS)
_VALUED: Final = sorted(
    {kind for metric in METRICS.values() if metric.measure == "value" for kind in metric.events}
)
"""Kinds of whose events the values are added up."""


@dataclass(frozen=True, slots=True)
class Past:
    """Per unit, all before the experiment's first decision.

    `interactions_U` counts all that the unit took up ever (a view, click, like, purchase, rating or watch). Of the
    last 14 days, by their clients' clocks, `num_UK` counts its events by kind (its place in `EVENT_KINDS`) and `value_U` adds up their values, of the
    kinds of which a metric does. `interactions_I` is how often the units took an item up.
    """

    interactions_U: Int64
    interactions_I: Int64
    num_UK: Narrow
    value_U: Mapping[str, Narrow]

    def per_unit(self, kinds: tuple[str, ...], *, values: bool) -> Float64:
        """The number of a unit's events of some kinds in the last 14 days before, or the sum of their values. Shape (U,)."""
        if values:
            sums_U: Float64 = np.zeros(len(self.interactions_U))
            for kind in kinds:
                sums_U += self.value_U[kind]
            return sums_U
        total_U: Float64 = self.num_UK[:, kind_numbers(kinds)].sum(axis=1, dtype=np.float64)
        return total_U


@dataclass(frozen=True, slots=True)
class PartPast:
    """The past of a part's units, see `Past`; `item_ids` are those that were taken up, each with how often."""

    interactions_U: Int64
    item_ids: Any
    item_counts: Int64
    num_UK: Narrow
    value_U: Mapping[str, Narrow]


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
    unit_E, kind_E, value_E = (np.concatenate(column) for column in zip(*recent, strict=True))
    cell_E = unit_E[kind_E >= 0] * _NUM_KINDS + kind_E[kind_E >= 0]
    num_UK = np.bincount(cell_E, minlength=len(units) * _NUM_KINDS).reshape(len(units), _NUM_KINDS)
    value_U: dict[str, Narrow] = {}
    for name, number in zip(_VALUED, kind_numbers(_VALUED), strict=True):
        mine_E = kind_E == number
        sums = np.bincount(unit_E[mine_E], weights=value_E[mine_E], minlength=len(units))
        value_U[name] = narrow(sums)
    counted: Any = pc.value_counts(pa.chunked_array(taken))
    return PartPast(
        num_U, counted.field("values"), counted.field("counts").to_numpy(), _narrow_table(num_UK), value_U
    )


def no_past(num_units: int, num_items: int) -> Past:
    """The past of units of which nothing is known."""
    num_UK = np.zeros((num_units, _NUM_KINDS), np.uint8)
    return Past(np.zeros(num_units, np.int64), np.zeros(num_items, np.int64), num_UK, _no_values(num_units))


def past_of(parts: Sequence[PartPast], units: Sequence[Int64], num_units: int, items: Any) -> Past:
    """The past of all parts.

    Args:
        parts: Of each.
        units: Of each, the number of each of its units among all.
        num_units: U.
        items: Ids of the items that were shown, in order.
    """
    num_U, num_I = np.zeros(num_units, np.int64), np.zeros(len(items), np.int64)
    num_UK, value_U = np.zeros((num_units, _NUM_KINDS), np.int32), _no_values(num_units)
    for part, unit_of in zip(parts, units, strict=True):
        np.add.at(num_U, unit_of, part.interactions_U)
        np.add.at(num_UK, unit_of, part.num_UK)
        for name, sums in value_U.items():
            np.add.at(sums, unit_of, part.value_U[name])
        item = pc.fill_null(pc.index_in(part.item_ids, value_set=items), -1).to_numpy()
        np.add.at(num_I, item[item >= 0], part.item_counts[item >= 0])
    values = {name: narrow(sums) for name, sums in value_U.items()}
    return Past(num_U, num_I, _narrow_table(num_UK), values)


def _no_values(num_units: int) -> dict[str, Float64]:
    return {name: np.zeros(num_units) for name in _VALUED}


def _narrow_table(num_UK: Narrow) -> Narrow:
    return narrow(num_UK.ravel()).reshape(num_UK.shape)
