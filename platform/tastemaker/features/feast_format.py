"""How Feast 0.67 keeps a row in Redis, without Feast: keys, fields, values and times as bytes.

A row is in the hash of its entity: the key is Feast's entity key (serialisation version 3) and the project's name, a
field is the murmur3 of `view:feature`, a value Feast's protobuf `Value`. `_ts:view` has the time of the view's values, a
protobuf `Timestamp`. A contract test holds each of them against Feast's own functions.

Shape letters: N rows, F numbers of a view.
"""

import struct
from functools import cache
from math import isnan
from typing import Any, Final

import numpy as np

from tastemaker.errors import CompatibilityError
from tastemaker.features.views import Entity, View, ViewRows, join_key

_STRING_TYPE: Final = 2
_TEXT, _INTEGER, _DOUBLE = 0x12, 0x20, 0x29
"""First byte of a protobuf `Value`: string_val, int64_val, double_val."""
_WORD = 2**32 - 1


def project_of(catalogue: str) -> str:
    """The Feast project of a catalogue.

    >>> project_of("new-shop")
    'tm_new_shop'
    """
    return f"tm_{catalogue.replace('-', '_')}"


@cache
def key_prefix(entity: Entity) -> bytes:
    """What an entity's keys begin with, up to the length of the id."""
    name = join_key(entity).encode()
    return struct.pack("<III", 1, _STRING_TYPE, len(name)) + name + struct.pack("<I", _STRING_TYPE)


def row_key(entity: Entity, entity_id: str, project: str) -> bytes:
    """The key of an entity's hash."""
    value = entity_id.encode()
    return key_prefix(entity) + struct.pack("<I", len(value)) + value + project.encode()


def id_of(entity: Entity, key: bytes, project: str) -> str | None:
    """The id in a key that `row_key` gave; None for a key of another project or entity."""
    begin = len(key_prefix(entity)) + 4
    if not key.startswith(key_prefix(entity)) or len(key) < begin:
        return None
    end = begin + struct.unpack_from("<I", key, begin - 4)[0]
    return key[begin:end].decode() if key[end:] == project.encode() else None


@cache
def fields(view: View) -> tuple[bytes, ...]:
    """The fields of a view's features, in order."""
    names = (f"{view.name}:{feature.name}" for feature in view.features)
    return tuple(struct.pack("<I", murmur3(name.encode())) for name in names)


@cache
def time_field(view: View) -> bytes:
    """The field of a view's time."""
    return f"_ts:{view.name}".encode()


def cells(rows: ViewRows) -> list[list[bytes]]:
    """Each row's values as `fields` has them; unknown numbers are empty, which Feast reads as null."""
    numbers = dict(zip(rows.view.position, _doubles(rows), strict=True))
    columns = []
    for feature in rows.view.features:
        if feature.kind == "float64":
            columns.append(numbers[feature.name])
        elif feature.kind == "int64":
            value_N = rows.value_NF[:, rows.view.position[feature.name]].tolist()
            columns.append([b"" if isnan(value) else _integer(int(value)) for value in value_N])
        else:
            columns.append([_text(text) for text in rows.texts[feature.name]])
    return [list(row) for row in zip(*columns, strict=True)]


def value_of(cell: bytes) -> float | int | str | None:
    """What a cell says.

    Raises:
        CompatibilityError: It is of a type that no feature of ours has.
    """
    if not cell:
        return None
    if cell[0] == _DOUBLE:
        return float(struct.unpack_from("<d", cell, 1)[0])
    if cell[0] == _INTEGER:
        value = _read_varint(cell, 1)[0]
        return value - 2**64 if value >> 63 else value
    if cell[0] == _TEXT:
        return cell[_read_varint(cell, 1)[1] :].decode()
    raise CompatibilityError(
        "type of a value in Feast's online store", value=cell[0] >> 3, limit="2, 4 or 5 (string, int64, double)",
        mend="write the rows anew with `tastemaker features materialize`",
    )  # fmt: skip


def encode_time(time_ns: int) -> bytes:
    """A protobuf `Timestamp` of nanoseconds since 1970."""
    seconds, nanos = divmod(time_ns, 1_000_000_000)
    return (b"\x08" + _varint(seconds) if seconds else b"") + (b"\x10" + _varint(nanos) if nanos else b"")


def decode_time(cell: bytes) -> int:
    """Nanoseconds since 1970 of a protobuf `Timestamp`."""
    parts, at = {0x08: 0, 0x10: 0}, 0
    while at < len(cell):
        tag = cell[at]
        parts[tag], at = _read_varint(cell, at + 1)
    return parts[0x08] * 1_000_000_000 + parts[0x10]


def murmur3(content: bytes) -> int:
    """MurmurHash3, x86, 32 bits, seed 0 [Appleby 2011].

    >>> hex(murmur3(b"hello"))
    '0x248bfa47'
    """
    state, tail = 0, len(content) % 4
    whole = content[: len(content) - tail]
    for (block,) in struct.iter_unpack("<I", whole):
        state = (_rotated(state ^ _mixed(block), 13) * 5 + 0xE6546B64) & _WORD
    state ^= _mixed(int.from_bytes(content[len(whole) :], "little")) ^ len(content)
    state = ((state ^ (state >> 16)) * 0x85EBCA6B) & _WORD
    state = ((state ^ (state >> 13)) * 0xC2B2AE35) & _WORD
    return state ^ (state >> 16)


def _mixed(block: int) -> int:
    return (_rotated((block * 0xCC9E2D51) & _WORD, 15) * 0x1B873593) & _WORD


def _rotated(word: int, bits: int) -> int:
    return ((word << bits) | (word >> (32 - bits))) & _WORD


def _doubles(rows: ViewRows) -> list[list[bytes]]:
    """The cells of all numbers as doubles, a list (N,) for each."""
    num_rows, num_numbers = rows.value_NF.shape
    cell_FN = np.empty((num_numbers, num_rows, 9), np.uint8)
    cell_FN[..., 0] = _DOUBLE
    value_FN = np.ascontiguousarray(rows.value_NF.T, "<f8")
    cell_FN[..., 1:] = value_FN.view(np.uint8).reshape(num_numbers, num_rows, 8)
    found: list[list[Any]] = cell_FN.view("V9")[..., 0].tolist()
    for f, n in np.argwhere(np.isnan(value_FN)).tolist():
        found[f][n] = b""
    return found


def _integer(value: int) -> bytes:
    return b"\x20" + _varint(value % 2**64)


def _text(text: str) -> bytes:
    content = text.encode()
    return b"\x12" + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _read_varint(content: bytes, at: int) -> tuple[int, int]:
    """A number and where it ends."""
    value, shift = 0, 0
    while content[at] & 0x80:
        value |= (content[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return value | content[at] << shift, at + 1
