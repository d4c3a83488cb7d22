"""A table's values as Python objects, without keeping other threads from the interpreter meanwhile."""

from typing import Any, Final

import pyarrow as pa

_AT_ONCE: Final = 8192


def values_of(column: "pa.ChunkedArray[Any] | pa.Array[Any]") -> list[Any]:
    """The values of a column, some thousand at a time: a process that loads a catalogue goes on answering in between.

    >>> values_of(pa.array(["a", None]))
    ['a', None]
    """
    found: list[Any] = []
    for start in range(0, len(column), _AT_ONCE):
        found += column.slice(start, _AT_ONCE).to_pylist()
    return found
