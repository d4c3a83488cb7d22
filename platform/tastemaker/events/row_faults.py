"""Why a row of a batch is none, in one sentence that names the key: the same words for events, items and users.

A row is whatever a client sent, of any size and depth; a look at it stays short and can be printed.
"""

import reprlib
from collections.abc import Set
from typing import Any, Final

from pydantic import ValidationError

from tastemaker.events.rows import Repeating
from tastemaker.ids import ID_PATTERN, ID_RULE
from tastemaker.types import MAX_ID_LENGTH

_SHOWN: Final = 80
_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother = 2, 60, 120


def shape_fault(row: Any, fields: Set[str], noun: str) -> str | None:
    """What is wrong before anyone looks at a row's values; None where it is an object of known keys.

    >>> shape_fault({"colour": 1}, {"item_id"}, "an item"), shape_fault([], {"item_id"}, "an item")
    ('colour is no field of an item, which has item_id', 'the row is a list, must be an object')
    """
    if not isinstance(row, dict):
        shown = str(row) if isinstance(row, Repeating) else f"a {type(row).__name__}"
        return f"the row is {printable(shown)}, must be an object"
    if row.keys() <= fields:
        return None
    unknown = next(key for key in row if key not in fields)
    return (
        f"{printable(unknown) or 'an empty key'} is no field of {noun}, which has {', '.join(sorted(fields))}"
    )


def value_fault(error: ValidationError) -> str:
    """The first thing that pydantic found."""
    first = error.errors(include_url=False)[0]
    key, context = printable(".".join(str(part) for part in first["loc"])) or "a key", first.get("ctx", {})
    match first["type"]:
        case "missing":
            return f"{key} is missing"
        case "extra_forbidden":
            return f"{key} is unknown"
        case "literal_error":
            choices = str(context["expected"]).replace(" or ", ", ").replace("'", "")
            return f"{key} is {short(first['input'])}, must be one of {choices}"
        case "string_too_short":
            return f"{key} is empty"
        case "string_too_long":
            return f"{key} has {len(first['input'])} characters, at most {context['max_length']} are allowed"
        case "string_pattern_mismatch" if context["pattern"] == ID_PATTERN:
            return f"{key} is {short(first['input'])}, must be {ID_RULE}"
        case _:
            return f"{key} is {short(first['input'])}: {first['msg']}"


def id_of(row: Any, key: str) -> str | None:
    """The id that a row gives itself, cut to what an id may be; None where it gives none."""
    found = row.get(key) if isinstance(row, dict) else None
    return printable(found, MAX_ID_LENGTH) if isinstance(found, str) else None


def printable(text: str, longest: int = _SHOWN) -> str:
    """The beginning of a text, as UTF-8 can carry it."""
    return text[:longest].encode(errors="replace").decode()


def short(value: Any) -> str:
    """A look at a value, at most 60 characters of ASCII."""
    text = _REPR.repr(value).encode("ascii", "backslashreplace").decode()
    return text if len(text) <= 60 else f"{text[:57]}..."
