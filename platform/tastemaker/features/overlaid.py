"""A large mapping or sequence with a few changes over it: a step costs what was changed so far, not all that there is.

What is below is shared and never written to. Not for arrays, whose copies are quick: see `rows`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self, TypeVar, overload

K = TypeVar("K")
V = TypeVar("V")


class OverlaidMapping(Mapping[K, V]):
    """Another mapping with values set over it. Immutable.

    >>> OverlaidMapping.over({"a": 1, "b": 2}, {"b": 3, "c": 4}) == {"a": 1, "b": 3, "c": 4}
    True

    Args:
        below: Must not change any more.
        changed: Likewise.
    """

    __slots__ = ("_below", "_changed", "_num")

    def __init__(self, below: Mapping[K, V], changed: Mapping[K, V]) -> None:
        self._below, self._changed = below, changed
        self._num = len(below) + sum(key not in below for key in changed)

    @classmethod
    def over(cls, below: Mapping[K, V], changes: Mapping[K, V]) -> Self:
        """`below`, which may be such a mapping, with `changes`; layers do not pile up."""
        if isinstance(below, OverlaidMapping):
            return cls(below._below, {**below._changed, **changes})
        return cls(below, dict(changes))

    def __getitem__(self, key: K) -> V:
        found = self._changed
        return found[key] if key in found else self._below[key]

    def get(self, key: K, default: Any = None) -> Any:
        """As of any mapping, without an exception on the way."""
        found = self._changed
        return found[key] if key in found else self._below.get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self._changed or key in self._below

    def __iter__(self) -> Iterator[K]:
        yield from self._below
        yield from (key for key in self._changed if key not in self._below)

    def __len__(self) -> int:
        return self._num


class OverlaidSequence(Sequence[V]):
    """Another sequence with values set in it and next behind it. Immutable.

    >>> list(OverlaidSequence.over(["a", "b"], {1: "c", 2: "d"}))
    ['a', 'c', 'd']

    Args:
        below: Must not change any more.
        changed: By place; likewise. Without a gap behind the last place of `below`.
    """

    __slots__ = ("_below", "_changed", "_num")

    def __init__(self, below: Sequence[V], changed: Mapping[int, V]) -> None:
        self._below, self._changed = below, changed
        self._num = max(len(below), max(changed, default=-1) + 1)

    @classmethod
    def over(cls, below: Sequence[V], changes: Mapping[int, V]) -> Self:
        """`below`, which may be such a sequence, with `changes`; layers do not pile up."""
        if isinstance(below, OverlaidSequence):
            return cls(below._below, {**below._changed, **changes})
        return cls(below, dict(changes))

    @overload
    def __getitem__(self, place: int) -> V: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[V]: ...
    def __getitem__(self, place: int | slice) -> V | Sequence[V]:
        if isinstance(place, slice):
            return [self[at] for at in range(*place.indices(self._num))]
        at = place + self._num if place < 0 else place
        if not 0 <= at < self._num:
            raise IndexError(f"place {place} of {self._num}")
        return self._changed[at] if at in self._changed else self._below[at]

    def __len__(self) -> int:
        return self._num
