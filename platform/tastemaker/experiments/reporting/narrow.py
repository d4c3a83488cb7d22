"""Numbers in the narrowest type that holds each of them exactly: a report holds some of every decision of a log."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tastemaker.types import Int64

Narrow = npt.NDArray[Any]
"""Integers or floats of any width."""
_UNSIGNED: Final = (np.uint8, np.uint16, np.int32, np.int64)
_SIGNED: Final = (np.int8, np.int16, np.int32, np.int64)
_MOST_EXACT: Final = 2.0**53
"""Up to which a float holds every whole number."""


def narrow(values: Narrow) -> Narrow:
    """The same numbers in fewer bytes, where that loses nothing.

    Whole numbers become integers of 1 to 8 bytes, other floats stay what they are. Joined with others of another width by
    `np.concatenate` they get a type that holds both exactly. Whoever calculates with them widens them before (`wide`).

    >>> [narrow(np.array(one)).dtype.name for one in ([0.0, 255.0], [-1, 3], [2**40], [0.5])]
    ['uint8', 'int8', 'int64', 'float64']
    """
    if not len(values) or values.dtype == np.bool_:
        return values.astype(np.uint8)
    if np.issubdtype(values.dtype, np.floating):
        whole = np.isfinite(values).all() and (values == np.rint(values)).all()
        if not whole or np.abs(values).max() > _MOST_EXACT:
            return values
    least, most = int(values.min()), int(values.max())
    fitting = next(
        one
        for one in (_UNSIGNED if least >= 0 else _SIGNED)
        if np.iinfo(one).min <= least and most <= np.iinfo(one).max
    )
    return values.astype(fitting)


def wide(values: Narrow) -> Int64:
    """Whole numbers as 64 bits, to calculate with."""
    return values.astype(np.int64)
