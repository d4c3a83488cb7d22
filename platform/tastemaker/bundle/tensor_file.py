"""Safetensors files larger than memory: where each tensor lies, so that files are written and read in parts.

The format is safetensors' own: eight bytes of length, a JSON header, the tensors end to end.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tastemaker.errors import IntegrityError

_ALIGNMENT = 8
_CHUNK_BYTES = 2**22
_LARGEST_HEADER = 100_000_000
_NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32", "int16": "I16",
    "int8": "I8", "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
_KINDS = {name: np.dtype(kind).newbyteorder("<") for kind, name in _NAMES.items()}
Array = npt.NDArray[Any]


class TensorLayout:
    """Where each tensor of a file lies.

    Args:
        shapes: Type and shape of each tensor. Widest types come first, then names in order, so that every tensor is
            aligned to its type and the same tensors always lie alike.
    """

    def __init__(self, shapes: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]) -> None:
        self.names = sorted(shapes, key=lambda name: (-shapes[name][0].itemsize, name))
        self._shapes = dict(shapes)
        header, end = {}, 0
        begins = {}
        for name in self.names:
            kind, shape = shapes[name]
            begins[name], end = end, end + int(np.prod(shape, dtype=np.int64)) * kind.itemsize
            header[name] = {
                "dtype": _NAMES[kind.name], "shape": list(shape), "data_offsets": [begins[name], end],
            }  # fmt: skip
        text = json.dumps(header, ensure_ascii=False).encode()
        text += b" " * (-len(text) % _ALIGNMENT)
        self.head = len(text).to_bytes(8, "little") + text
        self.size = len(self.head) + end
        self._begin = {name: len(self.head) + begin for name, begin in begins.items()}

    def offset(self, name: str, row: int = 0, column: int = 0) -> int:
        """Byte of the file where row `row` of a tensor goes on from `column`."""
        return self._begin[name] + (row * self.width(name) + column) * self._shapes[name][0].itemsize

    def width(self, name: str) -> int:
        """Values of one row of a tensor."""
        return int(np.prod(self._shapes[name][1][1:], dtype=np.int64))


def can_hold(array: Array) -> bool:
    """Whether the format has the array's type."""
    return array.dtype.name in _NAMES


def file_parts(tensors: Mapping[str, Array]) -> Iterator[bytes | memoryview]:
    """The bytes of the file that holds some arrays, a few megabytes at a time."""
    layout = TensorLayout({name: (value.dtype, value.shape) for name, value in tensors.items()})
    yield layout.head
    for name in layout.names:
        flat = tensors[name].reshape(-1)
        step = max(_CHUNK_BYTES // flat.itemsize, 1)
        for start in range(0, len(flat), step):
            part = np.ascontiguousarray(flat[start : start + step], flat.dtype.newbyteorder("<"))
            yield part.view(np.uint8).data


def map_tensors(path: Path) -> dict[str, Array]:
    """The arrays of a file, of which only what is read comes into memory. Writing to them does not change the file.

    Raises:
        OSError: The file cannot be read.
        IntegrityError: It is no safetensors file, or truncated.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(min(length, _LARGEST_HEADER)))
            header.pop("__metadata__", None)
            ends = [entry["data_offsets"][1] for entry in header.values()]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IntegrityError(f"{path} is no safetensors file", mend="make it again") from error
    if size != 8 + length + max(ends, default=0):
        raise IntegrityError(
            f"{path}",
            value=f"{size} bytes",
            limit=f"{8 + length + max(ends, default=0)} bytes",
            mend="make it again",
        )
    return {name: _mapped(path, 8 + length, entry) for name, entry in header.items()}


def tensors_in(content: npt.NDArray[np.uint8]) -> dict[str, Array]:
    """The arrays of a file's bytes: views of them, so that nothing is copied.

    Raises:
        ValueError: No safetensors file, or truncated.
    """
    length = int.from_bytes(content[:8].tobytes(), "little")
    if not 0 < length <= min(len(content) - 8, _LARGEST_HEADER):
        raise ValueError(f"a header of {length} bytes in {len(content)}")
    header = json.loads(content[8 : 8 + length].tobytes())
    try:
        header.pop("__metadata__", None)
        return {name: _view(content[8 + length :], **entry) for name, entry in header.items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"a header that names no tensors: {error}") from error


def _view(content: npt.NDArray[np.uint8], dtype: str, shape: list[int], data_offsets: list[int]) -> Array:
    begin, end = data_offsets
    if not 0 <= begin <= end <= len(content):
        raise ValueError(f"a tensor from byte {begin} to {end} of {len(content)}")
    found = content[begin:end].view(_KINDS[dtype]).reshape(shape)
    return found if found.flags.aligned else found.copy()


def _mapped(path: Path, start: int, entry: Mapping[str, Any]) -> Array:
    kind, shape = _KINDS[entry["dtype"]], tuple(entry["shape"])
    if 0 in shape:
        return np.zeros(shape, kind)
    return np.memmap(path, kind, "c", start + entry["data_offsets"][0], shape)
