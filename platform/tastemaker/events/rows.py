"""A body of JSON read such that what is wrong with one row stays with it. Not for what a row has to hold.

JSON allows some things that no event may hold, and that parsers stumble over for the whole text: half of a surrogate
pair, numbers of any length, a key that stands twice. Here they come out as values that no field takes. NaN and
Infinity, which are no JSON, come out as such numbers too, since many clients write them.
"""

import json
import math
from collections.abc import Sequence
from typing import Any, Final

from tastemaker.errors import DataError

_MOST_DIGITS: Final = 300
"""Beyond, an integer does not fit a double; reading it takes time that grows with the square of its length."""


class Repeating:
    """Stands for an object in which a key stands twice: nobody can say which value is meant."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __repr__(self) -> str:
        return f"an object with {self._key[:60]!r} twice"


def read_json(body: bytes) -> Any:
    r"""What a body says. What no field may hold is still a value, so that its row alone is at fault.

    >>> read_json(b'[{"a": 1, "a": 2}, 1e999, "\\ud800"]')
    [an object with 'a' twice, inf, '\ud800']

    Raises:
        DataError: It is not JSON, not UTF-8, or nests deeper than some hundred levels.
    """
    try:
        return json.loads(body.decode(), object_pairs_hook=_object, parse_int=_integer)
    except RecursionError as error:
        raise DataError("the body nests too deeply", mend="flatten it") from error
    except ValueError as error:
        raise DataError(f"the body is not JSON: {str(error)[:120]}", mend="correct it") from error


def _object(pairs: Sequence[tuple[str, Any]]) -> Any:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    seen: set[str] = set()
    return Repeating(next(key for key, _ in pairs if key in seen or seen.add(key)))  # type: ignore[func-returns-value]


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MOST_DIGITS else math.inf
