"""Which items a request may be shown by what they are: its filters, its country, and how old one must be.

Shape letters: I catalogue, W rows that are written, V values of all items' lists.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute

from tastemaker.data.schema import ITEM_DETAILS, ITEMS_SCHEMA, Column
from tastemaker.features.rows import placed
from tastemaker.features.traits import ItemTraits, WordLists, column_of
from tastemaker.types import Bool, Float32, Int32
from tastemaker_services.schema import Filters

pc: Any = pyarrow.compute  # its stubs know neither list arrays nor chunked ones
COUNTRY: Final = "country"
"""Key of the request's context."""
_COUNTRIES_KEPT = 16
_MASKS_KEPT = 32
"""A byte an item each."""
_FIELDS: Final = pa.schema([*ITEMS_SCHEMA, *ITEM_DETAILS])
Words = Sequence[str | None]


@dataclass(frozen=True)
class ItemRules:
    """What of the items requests are held against. Immutable.

    An item that names regions is shown only where the request's country is one of them; without a country, nowhere.
    """

    traits: ItemTraits
    regions: WordLists
    maturity_I: Int32

    @classmethod
    def of(
        cls,
        categories: Words,
        tags: Sequence[Iterable[str | None] | None],
        regions: Sequence[Iterable[str | None] | None] | None = None,
        maturity: Sequence[int | None] | None = None,
    ) -> Self:
        """Those of a catalogue's columns; unset ones are unknown."""
        num = len(categories)
        columns: dict[str, list[Any]] = {
            Column.TITLE: [""] * num,
            Column.CATEGORY: [name or "" for name in categories],
            Column.TAGS: [[tag for tag in own or () if tag] for own in tags],
            Column.REGIONS: [list(own or ()) for own in regions or [None] * num],
            Column.MATURITY: list(maturity or [None] * num),
        }
        return cls.from_items(pa.table(columns, pa.schema([_FIELDS.field(name) for name in columns])))

    @classmethod
    def from_items(cls, items: pa.Table, interactions_I: Float32 | None = None) -> Self:
        """Those of a table with the schema of imported items; see `ItemTraits.from_items`."""
        none = cls(ItemTraits.from_items(items, interactions_I), WordLists.of([]), np.empty(0, np.int32))
        return none._with_details(np.arange(items.num_rows, dtype=np.int32), items)

    def after(self, rows_W: Int32, items: pa.Table) -> Self:
        """The rules with other items at `rows_W`, ascending: in place of some, or next behind the last."""
        if not len(rows_W):
            return self
        return replace(self, traits=self.traits.after(rows_W, items))._with_details(rows_W, items)

    def _with_details(self, rows_W: Int32, items: pa.Table) -> Self:
        regions = column_of(items, Column.REGIONS, pa.list_(pa.string()))
        ages: Any = pc.fill_null(column_of(items, Column.MATURITY, pa.int32()), 0)
        return replace(
            self,
            regions=self.regions.after(rows_W, _uppercase(regions)),
            maturity_I=placed(self.maturity_I, rows_W, ages.to_numpy().astype(np.int32)),
        )

    def allowed(self, filters: Filters, context: Mapping[str, str]) -> Bool | None:
        """Which items (I,) the request may be shown, read-only; None where all may be."""
        country = context.get(COUNTRY, "").upper() if len(self.regions.code_V) else ""
        asked = frozenset(filters.categories), frozenset(filters.tags), filters.max_maturity
        return self._allowed(*asked, country)

    @cached_property
    def _allowed(self) -> Callable[[frozenset[str], frozenset[str], int | None, str], Bool | None]:
        """The masks asked for lately: one looks at the whole catalogue."""

        @lru_cache(_MASKS_KEPT)
        def mask(
            categories: frozenset[str], tags: frozenset[str], max_maturity: int | None, country: str
        ) -> Bool | None:
            filters = Filters(categories=tuple(categories), tags=tuple(tags), max_maturity=max_maturity)
            masks = self._masks(filters, {COUNTRY: country})
            if not masks:
                return None
            allowed_I: Bool = np.logical_and.reduce(list(masks.values()))
            allowed_I.flags.writeable = False
            return allowed_I

        return mask

    def broken(self, row: int, filters: Filters, context: Mapping[str, str]) -> list[str]:
        """Names of those of the rules that keep an item from a request."""
        return [name for name, allowed_I in self._masks(filters, context).items() if not allowed_I[row]]

    def _masks(self, filters: Filters, context: Mapping[str, str]) -> dict[str, Bool]:
        """Which items (I,) each rule that says anything lets through."""
        masks: dict[str, Bool] = {}
        if filters.categories:
            masks["filters.categories"] = self.traits.category.any_of(filters.categories)
        if filters.tags:
            masks["filters.tags"] = self.traits.tags.any_of(filters.tags)
        if filters.max_maturity is not None:
            masks["maturity"] = self.maturity_I <= filters.max_maturity
        if len(self.regions.code_V):
            masks["region"] = self._in_country(context.get(COUNTRY, "").upper())
        return masks

    @cached_property
    def _in_country(self) -> Callable[[str], Bool]:
        everywhere_I = self.regions.lengths == 0

        @lru_cache(_COUNTRIES_KEPT)
        def mask(country: str) -> Bool:
            allowed_I: Bool = everywhere_I | self.regions.any_of([country])
            return allowed_I

        return mask


def _uppercase(lists: Any) -> Any:
    ends = np.cumsum(pc.fill_null(pc.list_value_length(lists), 0).to_numpy())
    offsets = pa.array(np.concatenate([[0], ends]), pa.int32())
    return pa.ListArray.from_arrays(offsets, pc.utf8_upper(lists.flatten()))
