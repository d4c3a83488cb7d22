"""Vectors that lie in a file and are read from it when they are looked up.

What is read stays in the system's page cache, of which all processes of a machine that map the file have one copy, and which
the system takes back when memory is short. The file is not changed.

Shape letters: I rows in the file, D dimension.
"""

import mmap
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tastemaker.errors import BundleError
from tastemaker.types import Float32


def map_rows(path: Path, offset: int, num_rows: int, dim: int) -> Float32:
    """A matrix (I, D) whose rows are those of the file from byte `offset` on, read-only.

    The file may be removed from its folder while it is mapped.

    Raises:
        BundleError: The system does not map it.
    """
    try:
        # A row in a FAISS file need not lie at a multiple of its type; the processors that we know read it all the same.
        return np.asarray(np.memmap(path, np.float32, "r", offset, (num_rows, dim)))
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{path} cannot be mapped", value=str(error), mend="serve without shards"
        ) from error


def spilled_rows(num_rows: int, dim: int) -> Float32:
    """A matrix of zeros (I, D) in a file without a name, in the system's folder for temporary files.

    Raises:
        BundleError: There is no room in that folder.
    """
    try:
        with tempfile.TemporaryFile() as file:
            # A file with holes would be a SIGBUS at whichever row no room is left for.
            os.posix_fallocate(file.fileno(), 0, max(1, num_rows * dim * 4))
            return np.memmap(file, np.float32, "w+", shape=(num_rows, dim))
    except OSError as error:
        raise BundleError(
            f"no file of {num_rows * dim * 4 / 2**20:.0f} MB in {tempfile.gettempdir()}",
            value=str(error),
            mend="set TMPDIR to a folder with room",
        ) from error


def let_go(array: npt.NDArray[Any]) -> None:
    """Gives the memory of an array that lies in a file back, after it was read from end to end; what is looked at comes again.

    Of an array that lies in no file it does nothing. Nobody may have written to it.
    """
    base: Any = array
    while isinstance(base, np.ndarray | memoryview):
        base = base.base if isinstance(base, np.ndarray) else base.obj
    if not isinstance(base, mmap.mmap):
        return
    begin = array.ctypes.data - np.frombuffer(base, np.uint8).ctypes.data
    first, end = (
        -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE,
        (begin + array.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE,
    )
    if first < end:
        base.madvise(mmap.MADV_DONTNEED, first, end - first)
