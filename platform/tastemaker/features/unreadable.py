"""Which of many records cannot be decoded, so that one that is damaged stops no other."""

import struct
from collections.abc import Callable, Sequence
from typing import Final

from tastemaker.errors import CompatibilityError

UNREADABLE: Final = (CompatibilityError, ValueError, TypeError, AttributeError, struct.error)
"""What decoding a damaged record may raise."""
Record = bytes | None


def unreadable(records: Sequence[Record], decode: Callable[[Sequence[Record]], object]) -> dict[int, str]:
    """Reasons by place. Each record is tried alone only where all together fail.

    >>> unreadable([None, b"3", b"x"], lambda records: [int(record or b"0") for record in records])
    {2: "invalid literal for int() with base 10: b'x'"}
    """
    try:
        decode(records)
    except UNREADABLE as error:
        if len(records) == 1:
            return {0: str(error)}
        return {n: why for n, record in enumerate(records) for why in unreadable([record], decode).values()}
    return {}
