"""Which items a request may be shown by what they are: its filters, its country, and how old one must be.

Shape letters: I catalogue, W rows that are written, V values of all items' lists.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute

from tastemaker.data.schema import ITEM_DETAILS, ITEMS_SCHEMA, Column
from tastemaker.features.rows import placed
from tastemaker.features.traits import ItemTraits, WordLists, column_of
from tastemaker.stages.kept_masks import KeptMasks
from tastemaker.types import Bool, Float32, Int32
from tastemaker_services.web.schema import Filters

pc: Any = pyarrow.compute  # its stubs know neither list arrays nor chunked ones
COUNTRY: Final = "country"
"""Key of the request's context."""
_MASKS_KEPT = 32
"""A byte an item each."""
_FIELDS: Final = pa.schema([*ITEMS_SCHEMA, *ITEM_DETAILS])
Words = Sequence[str | None]


class _Asked(NamedTuple):
    """What of a request rules are about."""

    categories: frozenset[str]
    tags: frozenset[str]
    max_maturity: int | None
    country: str


@dataclass(frozen=True)
class ItemRules:
    """What of the items requests are held against. Immutable.

    An item that names regions is shown only where the request's country is one of them; without a country, nowhere.
    """

    traits: ItemTraits
    regions: WordLists
    maturity_I: Int32
    _kept: KeptMasks[_Asked] = field(
        default_factory=lambda: KeptMasks(_MASKS_KEPT), repr=False, compare=False
    )

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
        return cls.of_items(ItemTraits.from_items(items, interactions_I), items)

    @classmethod
    def of_items(cls, traits: ItemTraits, items: pa.Table) -> Self:
        """The same of a table whose traits are known already."""
        none = cls(traits, WordLists.of([]), np.empty(0, np.int32))
        return none._with_details(np.arange(items.num_rows, dtype=np.int32), items)

    def after(self, rows_W: Int32, items: pa.Table) -> Self:
        """The rules with other items at `rows_W`, ascending: in place of some, or next behind the last."""
        if not len(rows_W):
            return self
        written = replace(self, traits=self.traits.after(rows_W, items))._with_details(rows_W, items)
        num = len(written.maturity_I)
        kept = self._kept.after(rows_W, num, lambda asked: written._allowed_at(asked, rows_W))
        return replace(written, _kept=kept)

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
        asked = self._asked(filters, context)
        if not (asked.categories or asked.tags or asked.max_maturity is not None or self._has_regions):
            return None
        return self._kept.get(asked, lambda: self._allowed_at(asked, None)).allowed_I

    def broken(self, row: int, filters: Filters, context: Mapping[str, str]) -> list[str]:
        """Names of those of the rules that keep an item from a request."""
        at = self._masks(self._asked(filters, context), np.array([row], np.int32))
        return [name for name, allowed_K in at.items() if not allowed_K[0]]

    @property
    def _has_regions(self) -> bool:
        return len(self.regions.code_V) > 0

    def _asked(self, filters: Filters, context: Mapping[str, str]) -> _Asked:
        country = context.get(COUNTRY, "").upper() if self._has_regions else ""
        return _Asked(frozenset(filters.categories), frozenset(filters.tags), filters.max_maturity, country)

    def _allowed_at(self, asked: _Asked, rows_K: Int32 | None) -> Bool:
        """Which items (all, or those at `rows_K`) may be shown."""
        num = len(self.maturity_I) if rows_K is None else len(rows_K)
        allowed_K: Bool = np.ones(num, bool)
        for mask_K in self._masks(asked, rows_K).values():
            allowed_K &= mask_K
        return allowed_K

    def _masks(self, asked: _Asked, rows_K: Int32 | None) -> dict[str, Bool]:
        """Which items (all, or those at `rows_K`) each rule that says anything lets through."""
        masks: dict[str, Bool] = {}
        if asked.categories:
            masks["filters.categories"] = self.traits.category.any_of(asked.categories, rows_K)
        if asked.tags:
            masks["filters.tags"] = self.traits.tags.any_of(asked.tags, rows_K)
        if asked.max_maturity is not None:
            age_K = self.maturity_I if rows_K is None else self.maturity_I[rows_K]
            masks["maturity"] = age_K <= asked.max_maturity
        if self._has_regions:
            masks["region"] = self._in_country(asked.country, rows_K)
        return masks

    def _in_country(self, country: str, rows_K: Int32 | None) -> Bool:
        lengths_K = self.regions.lengths if rows_K is None else self.regions.at(rows_K)[1]
        allowed_K: Bool = (lengths_K == 0) | self.regions.any_of([country], rows_K)
        return allowed_K


def _uppercase(lists: Any) -> Any:
    ends = np.cumsum(pc.fill_null(pc.list_value_length(lists), 0).to_numpy())
    offsets = pa.array(np.concatenate([[0], ends]), pa.int32())
    return pa.ListArray.from_arrays(offsets, pc.utf8_upper(lists.flatten()))
