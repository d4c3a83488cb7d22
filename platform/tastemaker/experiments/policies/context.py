"""What a policy on context sees of a request: a few features, hashed to a fixed number of places.

Place 0 is always on: the constant of the regression. Every feature that is known is on at place `1 + h mod (D - 1)`, with h the
first 8 bytes of SHA-256 over the UTF-8 text `feature=value`, read as a big-endian number. Two values may meet at a place; they
are then told apart by the others alone. A feature that is not known is nowhere on.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal

ContextFeature = Literal["device", "country", "hour", "user"]
"""Device and country as the request says them, hour 0 to 23 of the user's local time, user new or known."""


def active_places(
    values: Mapping[str, str], features: Sequence[ContextFeature], dimension: int
) -> tuple[int, ...]:
    """The places that are on, ascending, place 0 first.

    Args:
        values: Feature to value; others than `features` are not looked at.
        features: What is looked at.
        dimension: How many places there are.

    >>> active_places({"device": "phone", "hour": "9"}, ("device", "country", "hour"), 16)
    (0, 10, 13)
    >>> active_places({}, ("device",), 16)
    (0,)
    """
    known = (name for name in features if values.get(name))
    return tuple(sorted({0, *(_place(f"{name}={values[name]}", dimension) for name in known)}))


@lru_cache(maxsize=4096)
def _place(text: str, dimension: int) -> int:
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return 1 + number % (dimension - 1)
