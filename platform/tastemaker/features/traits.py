"""What rules read of items: category, tags, franchise, price, age, title, and how many took them.

Words are codes, so that rules compare numbers. Not for what models read, see `columns`.

Shape letters: I catalogue, K candidates, W rows that are written, V values of all items' lists.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute

from tastemaker.data.schema import Column
from tastemaker.data.values import array_of, values_in
from tastemaker.features.ragged import ranges, repeated
from tastemaker.features.rows import placed, spliced
from tastemaker.types import Bool, Float32, Float64, Int32, Int64

pc: Any = pyarrow.compute  # its stubs know neither list arrays nor chunked ones
NO_WORD = -1
_NUM_LESS = "num_less"


@dataclass(frozen=True)
class Words:
    """At most one word for each item, as a code; `NO_WORD` for none. Codes are never taken back. Immutable."""

    codes: Mapping[str, int]
    code_I: Int32

    @classmethod
    def of(cls, words: Iterable[str | None]) -> Self:
        """Those of items in order."""
        column = pa.array(list(words), pa.string())
        return cls({}, np.empty(0, np.int32)).after(np.arange(len(column), dtype=np.int32), column)

    def after(self, rows_W: Int32, words: Any) -> Self:
        """The words with others at `rows_W`, ascending: in place of some, or next behind the last."""
        encoded = words.dictionary_encode()
        codes = dict(self.codes)
        code_D = np.append(_coded(codes, encoded.dictionary.to_pylist()), NO_WORD).astype(np.int32)
        code_W = code_D[pc.fill_null(encoded.indices, len(code_D) - 1).to_numpy()]
        return replace(self, codes=codes, code_I=placed(self.code_I, rows_W, code_W))

    def coded(self, words: Iterable[str]) -> list[int]:
        """Codes of those words that items have."""
        return [code for word in words if (code := self.codes.get(word)) is not None]

    def any_of(self, words: Iterable[str], rows_K: Int32 | None = None) -> Bool:
        """Which items (all, or those at `rows_K`) have one of the words."""
        return np.isin(self.code_I if rows_K is None else self.code_I[rows_K], self.coded(words))

    def __len__(self) -> int:
        return len(self.code_I)


@dataclass(frozen=True)
class WordLists:
    """A list of words for each item, as codes laid end to end. Codes are never taken back. Immutable."""

    codes: Mapping[str, int]
    offsets_I1: Int64
    code_V: Int32

    @classmethod
    def of(cls, lists: Iterable[Iterable[str | None] | None]) -> Self:
        """Those of items in order."""
        own = [None if words is None else list(words) for words in lists]
        column = pa.array(own, pa.list_(pa.string()))
        none = cls({}, np.zeros(1, np.int64), np.empty(0, np.int32))
        return none.after(np.arange(len(column), dtype=np.int32), column)

    def after(self, rows_W: Int32, lists: Any) -> Self:
        """The lists with others at `rows_W`, ascending: in place of some, or next behind the last."""
        codes = dict(self.codes)
        encoded = lists.flatten().dictionary_encode()
        code_D = np.append(_coded(codes, encoded.dictionary.to_pylist()), NO_WORD)
        code_V = code_D[pc.fill_null(encoded.indices, len(code_D) - 1).to_numpy()].astype(np.int32)
        item_V = repeated(np.arange(len(lists)), pc.fill_null(pc.list_value_length(lists), 0).to_numpy())
        has_V = code_V != NO_WORD
        counts_W = np.bincount(item_V[has_V], minlength=len(lists))
        offsets_W1 = np.concatenate([[0], np.cumsum(counts_W)]).astype(np.int64)
        offsets, values = spliced(self.offsets_I1, self.code_V, rows_W, offsets_W1, code_V[has_V])
        return replace(self, codes=codes, offsets_I1=offsets, code_V=values)

    def any_of(self, words: Iterable[str], rows_K: Int32 | None = None) -> Bool:
        """Which items (all, or those at `rows_K`) have one of the words in their list."""
        wanted = [code for word in words if (code := self.codes.get(word)) is not None]
        code_V, lengths = (self.code_V, self.lengths) if rows_K is None else self.at(rows_K)
        mask: Bool = np.zeros(len(lengths), bool)
        mask[repeated(np.arange(len(lengths)), lengths)[np.isin(code_V, wanted)]] = True
        return mask

    def at(self, rows_K: Int32) -> tuple[Int32, Int64]:
        """The codes of the lists at `rows_K`, end to end, and the lists' lengths (K,)."""
        begin = self.offsets_I1[rows_K]
        lengths = self.offsets_I1[rows_K + 1] - begin
        return self.code_V[ranges(begin, lengths)], lengths

    def __len__(self) -> int:
        return len(self.offsets_I1) - 1

    @property
    def lengths(self) -> Int64:
        """Words of each item (I,)."""
        return np.diff(self.offsets_I1)


def _coded(codes: dict[str, int], words: Sequence[Any]) -> Int32:
    """The code of each word, new ones given to words that have none; an empty word has none."""
    return np.array([codes.setdefault(w, len(codes)) if w else NO_WORD for w in words], np.int32)


@dataclass(frozen=True)
class ItemTraits:
    """One row for each item of a catalogue. Immutable.

    `price_I` and `created_ms_I` are NaN where unknown; `title_key_I` is alike where titles are but for case and blanks, and
    of this process alone;
    `interactions_I` is 0 for items that came after the count.
    """

    category: Words
    tags: WordLists
    franchise: Words
    price_I: Float64
    created_ms_I: Float64
    title_key_I: Int64
    interactions_I: Float32

    @classmethod
    def from_items(cls, items: pa.Table, interactions_I: Float32 | None = None) -> Self:
        """Those of a table with the schema of imported items.

        Args:
            items: Row i is item i.
            interactions_I: How many took each; unset, none did.
        """
        nothing = np.empty(0, np.float64)
        none = cls(
            Words.of([]), WordLists.of([]), Words.of([]), nothing, nothing, np.empty(0, np.int64),
            np.empty(0, np.float32),
        )  # fmt: skip
        found = none.after(np.arange(items.num_rows, dtype=np.int32), items)
        return found if interactions_I is None else replace(found, interactions_I=interactions_I)

    def after(self, rows_W: Int32, items: pa.Table) -> Self:
        """The traits with other items at `rows_W`, ascending: in place of some, or next behind the last."""
        if not len(rows_W):
            return self
        num_new = max(int(rows_W[-1]) + 1 - len(self), 0)
        grown = replace(
            self,
            category=self.category.after(rows_W, column_of(items, Column.CATEGORY, pa.string())),
            tags=self.tags.after(rows_W, column_of(items, Column.TAGS, pa.list_(pa.string()))),
            franchise=self.franchise.after(rows_W, column_of(items, Column.FRANCHISE, pa.string())),
            price_I=placed(self.price_I, rows_W, _numbers(items, Column.PRICE)),
            created_ms_I=placed(self.created_ms_I, rows_W, _numbers(items, Column.CREATED_AT_MS)),
            title_key_I=placed(self.title_key_I, rows_W, _title_keys(items)),
            interactions_I=np.pad(self.interactions_I, (0, num_new)),
        )
        if _NUM_LESS in vars(self):  # nobody took what is new: the next request need not count anew
            num_less_I = np.where(self.interactions_I > 0, self.num_less + num_new, 0)
            vars(grown)[_NUM_LESS] = np.pad(num_less_I, (0, num_new)).astype(np.int32)
        return grown

    @cached_property
    def num_less(self) -> Int32:
        """How many items of the catalogue were taken less often than each (I,)."""
        sorted_I = np.sort(self.interactions_I)
        return np.searchsorted(sorted_I, self.interactions_I, side="left").astype(np.int32)

    def __len__(self) -> int:
        return len(self.title_key_I)


def column_of(items: pa.Table, name: str, kind: pa.DataType) -> Any:
    """A column of a table of items as one array; nulls where the table lacks it."""
    found: Any = items[name] if name in items.column_names else pa.array([None] * len(items), kind)
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def _numbers(items: pa.Table, name: str) -> Float64:
    column = pc.cast(column_of(items, name, pa.float64()), pa.float64())
    return np.asarray(column.to_numpy(zero_copy_only=False), np.float64)


def _title_keys(items: pa.Table) -> Int64:
    return array_of(values_in(items[Column.TITLE]), _title_key, np.int64)


def _title_key(title: str | None) -> int:
    return hash(" ".join((title or "").casefold().split()))
