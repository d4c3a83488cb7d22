"""Which items a request may be shown by what they are: its filters, its country, and how old one must be.

Shape letters: I catalogue, W rows that are written, V values of all items' lists.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa

from tastemaker.data.schema import Column
from tastemaker.features.rows import placed, spliced
from tastemaker.types import Bool, Int32, Int64
from tastemaker_services.schema import Filters

COUNTRY: Final = "country"
"""Key of the request's context."""
_COUNTRIES_KEPT = 16
Words = Sequence[str | None]


@dataclass(frozen=True)
class _Lists:
    """A list of words for each item, as codes laid end to end. Codes are never taken back."""

    codes: Mapping[str, int]
    offsets_I1: Int64
    code_V: Int32

    @classmethod
    def of(cls, lists: Iterable[Iterable[str | None] | None]) -> Self:
        return cls({}, np.zeros(1, np.int64), np.empty(0, np.int32)).after(None, lists)

    def after(self, rows_W: Int32 | None, lists: Iterable[Iterable[str | None] | None]) -> Self:
        codes = dict(self.codes)
        found = [[codes.setdefault(word, len(codes)) for word in own or () if word] for own in lists]
        rows = np.arange(len(found)) if rows_W is None else rows_W
        offsets_W1 = np.concatenate([[0], np.cumsum([len(own) for own in found])]).astype(np.int64)
        code_V = np.array([code for own in found for code in own], np.int32)
        return replace(self, codes=codes, **self._spliced(rows, offsets_W1, code_V))

    def _spliced(self, rows_W: Any, offsets_W1: Int64, code_V: Int32) -> dict[str, Any]:
        offsets, values = spliced(self.offsets_I1, self.code_V, rows_W, offsets_W1, code_V)
        return {"offsets_I1": offsets, "code_V": values}

    def any_of(self, words: Iterable[str]) -> Bool:
        """Items (I,) whose list has one of the words."""
        wanted = [code for word in words if (code := self.codes.get(word)) is not None]
        hit_V = np.isin(self.code_V, wanted)
        item_V = np.repeat(np.arange(len(self)), np.diff(self.offsets_I1))
        mask_I: Bool = np.zeros(len(self), bool)
        mask_I[item_V[hit_V]] = True
        return mask_I

    def __len__(self) -> int:
        return len(self.offsets_I1) - 1

    @property
    def lengths(self) -> Int64:
        """Words of each item."""
        return np.diff(self.offsets_I1)


@dataclass(frozen=True)
class ItemRules:
    """What of the items requests are held against. Immutable.

    An item that names regions is shown only where the request's country is one of them; without a country, nowhere.
    """

    categories: _Lists
    tags: _Lists
    regions: _Lists
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
        return cls(
            _Lists.of([category] for category in categories),
            _Lists.of(tags),
            _Lists.of(_regions(regions or [None] * num)),
            np.array([age or 0 for age in maturity or [None] * num], np.int32),
        )

    @classmethod
    def from_items(cls, items: pa.Table) -> Self:
        """Those of a table with the schema of imported items."""
        details = (_column(items, name) for name in (Column.REGIONS, Column.MATURITY))
        return cls.of(_given(items, Column.CATEGORY), _given(items, Column.TAGS), *details)

    def after(self, rows_W: Int32, items: pa.Table) -> Self:
        """The rules with other items at `rows_W`, ascending: in place of some, or next behind the last."""
        if not len(rows_W):
            return self
        ages = np.array([age or 0 for age in _given(items, Column.MATURITY)], np.int32)
        return replace(
            self,
            categories=self.categories.after(rows_W, [[name] for name in _given(items, Column.CATEGORY)]),
            tags=self.tags.after(rows_W, _given(items, Column.TAGS)),
            regions=self.regions.after(rows_W, _regions(_given(items, Column.REGIONS))),
            maturity_I=placed(self.maturity_I, rows_W, ages),
        )

    def allowed(self, filters: Filters, context: Mapping[str, str]) -> Bool | None:
        """Which items (I,) the request may be shown; None where all may be."""
        masks = []
        if filters.categories:
            masks.append(self.categories.any_of(filters.categories))
        if filters.tags:
            masks.append(self.tags.any_of(filters.tags))
        if filters.max_maturity is not None:
            masks.append(self.maturity_I <= filters.max_maturity)
        if len(self.regions.code_V):
            masks.append(self._in_country(context.get(COUNTRY, "").upper()))
        if not masks:
            return None
        allowed_I: Bool = np.logical_and.reduce(masks)
        return allowed_I

    @cached_property
    def _in_country(self) -> Callable[[str], Bool]:
        everywhere_I = self.regions.lengths == 0

        @lru_cache(_COUNTRIES_KEPT)
        def mask(country: str) -> Bool:
            allowed_I: Bool = everywhere_I | self.regions.any_of([country])
            return allowed_I

        return mask


def _regions(lists: Iterable[Iterable[str | None] | None]) -> list[list[str]]:
    return [[region.upper() for region in own or () if region] for own in lists]


def _column(items: pa.Table, name: str) -> list[Any] | None:
    return items[name].to_pylist() if name in items.column_names else None


def _given(items: pa.Table, name: str) -> list[Any]:
    return items[name].to_pylist()
