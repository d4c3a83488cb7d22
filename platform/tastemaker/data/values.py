"""Many values between Arrow, Python and numpy, without keeping other threads from the interpreter meanwhile."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tastemaker.pacing import step

_AT_ONCE: Final = 4096
"""Under a millisecond's work, which other threads wait for."""
T = TypeVar("T")


def values_of(column: "pa.ChunkedArray[Any] | pa.Array[Any]") -> list[Any]:
    """The values of a column, some thousand at a time: a process that loads a catalogue goes on answering in between.

    >>> values_of(pa.array(["a", None]))
    ['a', None]
    """
    return list(values_in(column))


def values_in(column: "pa.ChunkedArray[Any] | pa.Array[Any]") -> Iterator[Any]:
    """The same, one after the other."""
    for start in range(0, len(column), _AT_ONCE):
        step()
        yield from column.slice(start, _AT_ONCE).to_pylist()


def repeated_values_of(column: "pa.ChunkedArray[Any] | pa.Array[Any]") -> list[Any]:
    """The values of a column in which many are alike, each of which is in memory once.

    >>> repeated_values_of(pa.array(["a", None, "a"]))
    ['a', None, 'a']
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    encoded = array.dictionary_encode()
    words = encoded.dictionary.to_pylist()
    return [None if code is None else words[code] for code in values_in(encoded.indices)]


def array_of(values: Iterable[T], value_of: Callable[[T], int], kind: npt.DTypeLike) -> npt.NDArray[Any]:
    """What a function makes of each value, as an array.

    >>> array_of(["a", "bc"], len, np.int32)
    array([1, 2], dtype=int32)
    """
    left, parts = iter(values), [np.empty(0, kind)]
    while some := [value_of(value) for value in islice(left, _AT_ONCE)]:
        step()
        parts.append(np.array(some, kind))
    return np.concatenate(parts)
