"""What was put into a catalogue and taken out of it since a bundle was made, in the rows of that bundle.

A put item that the bundle lacks gets the next row behind the bundle's, in the order in which such items were first put,
which is the same for all processes: a row never moves while the bundle lives. So one process may know more rows than
another, but never another item under the same row; what it does not know it drops. Rows belong to a lineage of the order,
which changes only where state was lost.

Shape letters: I rows (the bundle's and the new ones), W rows that a step writes, K candidates.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from tastemaker.data.item_rows import table_of
from tastemaker.state.items import ItemChanges
from tastemaker.types import Bool, Candidates, Int32, Query

FRESH: Final = "fresh"
"""Source of items that few have seen; its mask bit is the one behind those of the configured sources, and it has no scores."""
PINNED: Final = "pinned"
"""Stands beside the sources of items that people put at their place; its mask bit is the one behind that of `FRESH`."""
FEW_DELETED: Final = 1000
"""So many are excluded by name; more by a mask over all rows."""


@dataclass(frozen=True)
class Overlay:
    """The rows of a bundle's catalogue at one epoch. Immutable; `deleted_I` is of all rows."""

    lineage: str
    epoch: int
    num_bundle: int
    new_ids: Sequence[str]
    deleted_I: Bool

    @classmethod
    def none(cls, num_bundle: int) -> "Overlay":
        """Nothing was put or deleted yet."""
        return cls("", 0, num_bundle, (), np.zeros(num_bundle, bool))

    @property
    def num_items(self) -> int:
        """Rows, the new ones included."""
        return len(self.deleted_I)

    @cached_property
    def deleted(self) -> Int32:
        """Rows that must not be recommended any more, ascending."""
        return np.flatnonzero(self.deleted_I).astype(np.int32)

    @cached_property
    def _left(self) -> Bool:
        """What was not deleted, read-only."""
        left_I = ~self.deleted_I
        left_I.setflags(write=False)
        return left_I

    def fit(self, query: Query) -> Query:
        """The query in these rows: what it names beyond them is dropped, and what was deleted is forbidden."""
        is_foreign = query.lineage not in ("", self.lineage)
        limit = self.num_bundle if is_foreign else self.num_items
        many = len(self.deleted) > FEW_DELETED
        allowed = query.allowed
        if allowed is None and many and not is_foreign:
            allowed = self._left  # no request pays for a mask that nothing of it decides
        elif (allowed is not None and len(allowed) != self.num_items) or many or limit < self.num_items:
            allowed = self._mask(allowed)
            allowed[limit:] = False
            if many:
                allowed &= ~self.deleted_I
        exclude = _below(query.exclude, limit)
        if len(self.deleted) and not many:
            exclude = np.concatenate([exclude, self.deleted])
        past, visit = _below(query.history_L, limit), _below(query.visit_L, limit)
        parts = (
            (past, query.history_L),
            (visit, query.visit_L),
            (exclude, query.exclude),
            (allowed, query.allowed),
        )
        if all(now is before for now, before in parts):
            return query
        return replace(query, history_L=past, visit_L=visit, exclude=exclude, allowed=allowed)

    def _mask(self, allowed: Bool | None) -> Bool:
        mask_I = np.full(self.num_items, allowed is None)
        if allowed is not None:
            num = min(len(allowed), self.num_items)
            mask_I[:num] = allowed[:num]
        return mask_I

    def known(self, found: Candidates) -> Candidates:
        """The candidates of rows that there are here."""
        known_K = found.item_index < self.num_items
        return found if known_K.all() else found.take(known_K)


def _below(rows: Int32, limit: int) -> Int32:
    return rows[rows < limit] if len(rows) and rows.max() >= limit else rows


class Step(NamedTuple):
    """An overlay, and what made it of the one before: items (W,), with all details, now in `rows_W`, ascending."""

    overlay: Overlay
    rows_W: Int32
    items: pa.Table


class OverlayRows:
    """Numbers the put items of one bundle. Not thread-safe.

    Args:
        num_bundle: Items of the bundle.
        row_in_bundle: The row of an item's id in the bundle; None where it has none.
    """

    def __init__(self, num_bundle: int, row_in_bundle: Callable[[str], int | None]) -> None:
        self._row_in_bundle = row_in_bundle
        self._new: dict[str, int] = {}
        self.overlay = Overlay.none(num_bundle)

    def row_of(self, item_id: str) -> int | None:
        """The row of an item; None where it is unknown."""
        row = self._row_in_bundle(item_id)
        return self._new.get(item_id) if row is None else row

    def take(self, changes: ItemChanges) -> Step:
        """The next overlay. Where `changes` are of another lineage, begin anew with an object of its own."""
        old = self.overlay
        assert old.lineage in ("", changes.lineage), "one object numbers one lineage"
        for item_id in changes.order:
            if self.row_of(item_id) is None:
                self._new[item_id] = old.num_bundle + len(self._new)
        deleted_I = np.zeros(old.num_bundle + len(self._new), bool)
        deleted_I[: old.num_items] = old.deleted_I
        written = {}
        for item_id, text in changes.rows.items():
            row = self.row_of(item_id)
            if row is not None:
                deleted_I[row] = text is None
                if text is not None or row >= old.num_items:
                    written[row] = item_id, text
        rows_W = np.array(sorted(written), np.int32)
        items = table_of([written[row] for row in rows_W.tolist()])
        new_ids = tuple(self._new) if len(deleted_I) > old.num_items else old.new_ids
        self.overlay = Overlay(changes.lineage, changes.epoch, old.num_bundle, new_ids, deleted_I)
        return Step(self.overlay, rows_W, items)
