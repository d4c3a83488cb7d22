"""Vectors of texts that were encoded before, in files: a slow encoder sees each text once.

A folder of Parquet files, one for each time that something new was encoded; a file that is there is whole, and never
changes. Two processes that encode the same at once write it twice, which does no harm.

Shape letters: N texts, D dimension.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tastemaker.errors import DataError
from tastemaker.types import Float32

_KEY_BYTES: Final = 16
_AT_ONCE: Final = 8192
"""Texts that are encoded and kept at a time: what an interruption can lose."""


class VectorCache:
    """Vectors of one encoder.

    Args:
        folder: Where they lie; made when something is kept.
        dim: Length of a vector.
    """

    def __init__(self, folder: Path, dim: int) -> None:
        self._folder, self._dim = folder, dim

    def encode(self, texts: Sequence[str], encode: Callable[[Sequence[str]], Float32]) -> Float32:
        """Vectors (N, D) of texts; those that are not kept yet by `encode`, each text once, and kept from now on.

        Raises:
            DataError: A file of the folder cannot be read.
        """
        keys = [hashlib.blake2b(text.encode(), digest_size=_KEY_BYTES).digest() for text in texts]
        wanted = dict(zip(keys, texts, strict=True))
        known = self._read(wanted.keys())
        new = [key for key in wanted if key not in known]
        for start in range(0, len(new), _AT_ONCE):
            block = new[start : start + _AT_ONCE]
            vector_ND = encode([wanted[key] for key in block])
            self._write(block, vector_ND)
            known |= dict(zip(block, vector_ND, strict=True))
        return np.stack([known[key] for key in keys]) if keys else np.empty((0, self._dim), np.float32)

    def _read(self, wanted: Any) -> dict[bytes, Float32]:
        found: dict[bytes, Float32] = {}
        for file in sorted(self._folder.glob("*.parquet")):
            try:
                table = pq.read_table(file)
                vectors: Any = table["vector"].combine_chunks()
                vector_ND = vectors.flatten().to_numpy().reshape(len(table), self._dim)
                keys: list[Any] = table["key"].to_pylist()
            except (OSError, KeyError, ValueError, pa.ArrowException) as error:
                raise DataError(f"{file} cannot be read", value=str(error), mend="delete it") from error
            found |= {key: vector_ND[n] for n, key in enumerate(keys) if key in wanted}
        return found

    def _write(self, keys: Sequence[bytes], vector_ND: Float32) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(vector_ND.ravel()), self._dim)
        table = pa.table({"key": pa.array(keys, pa.binary(_KEY_BYTES)), "vector": vectors})
        temporary = self._folder / f".{uuid4().hex}.tmp"
        try:
            pq.write_table(table, temporary)
            temporary.replace(self._folder / f"{uuid4().hex}.parquet")
        finally:
            temporary.unlink(missing_ok=True)
