"""Vectors that lie in a file and are read from it when they are looked up, with room for more behind them.

What is read stays in the system's page cache, of which all processes of a machine that map the file have one copy, and which
the system takes back when memory is short. The file is not changed. Of systems with `mmap` and its MAP_FIXED.

Shape letters: I rows in the file, D dimension.
"""

import ctypes
import mmap
import os
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tastemaker.errors import BundleError
from tastemaker.types import Float32

_MAP_FIXED: Final = 0x10
_FAILED: Final = ctypes.c_void_p(-1).value


def map_rows(path: Path, offset: int, num_rows: int, dim: int, room: int) -> Float32:
    """A matrix (I + room, D) whose first rows are those of the file from byte `offset` on; the others are zeros.

    Writing to it changes memory alone. The file may be removed from its folder while it is mapped.

    Raises:
        BundleError: The system does not map it.
    """
    size = (num_rows + room) * dim * 4
    begin = offset - offset % mmap.PAGESIZE
    own = mmap.mmap(-1, offset - begin + size)
    address = np.frombuffer(own, np.uint8).ctypes.data
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    with path.open("rb") as file:
        found = libc.mmap(
            address, offset - begin + num_rows * dim * 4, mmap.PROT_READ | mmap.PROT_WRITE,
            mmap.MAP_PRIVATE | _MAP_FIXED, file.fileno(), begin,
        )  # fmt: skip
    if found == _FAILED:
        raise BundleError(
            f"{path} cannot be mapped", value=os.strerror(ctypes.get_errno()), mend="serve without shards"
        )
    flat = np.frombuffer(own, np.uint8)[offset - begin :]
    # A row in a FAISS file need not lie at a multiple of its type; the processors that we know read it all the same.
    matrix: Float32 = flat.view(np.float32).reshape(num_rows + room, dim)
    matrix[num_rows : num_rows + mmap.PAGESIZE // (dim * 4) + 1] = 0.0  # what stands behind them in the file
    return matrix


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
