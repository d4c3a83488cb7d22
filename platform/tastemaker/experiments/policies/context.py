"""What a policy on context sees of a request: a few features, each of its values at one of a fixed number of places.

Place 0 is always on: the constant of the regression. Values of features that can be told beforehand (`DECLARED`) have places of their own, from 1
on, features with the fewest values first, as long as `LEAST_HASHED` places are left for what is hashed, or nothing is. All other values are on at
place `first + h mod (D - first)`, with `first` the place behind those and h the first 8 bytes of SHA-256 over the UTF-8 text `feature=value`,
read as a big-endian number: two of them may meet at a place, and are then told apart by the others alone. Case does not matter. A
feature that is not known is nowhere on.

That is encoding 2. By encoding 1, of earlier releases, all values are hashed to places from 1 on, with their case.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, Literal

from tastemaker.types import DEVICES

ContextFeature = Literal["device", "country", "hour", "user"]
"""Device and country as the request says them, hour 0 to 23 of the user's local time, user new or known."""
Encoding = Literal[1, 2]
DECLARED: Final[Mapping[ContextFeature, tuple[str, ...]]] = {
    "device": DEVICES,
    "hour": tuple(str(hour) for hour in range(24)),
    "user": ("new", "known"),
}
"""Features all of whose values are known, but for devices of a client's own naming."""
_OPEN: Final = frozenset({"country", "device"})
"""Features that have values which nobody declared."""
LEAST_HASHED: Final = 8


def active_places(
    values: Mapping[str, str], features: Sequence[ContextFeature], dimension: int, encoding: Encoding = 2
) -> tuple[int, ...]:
    """The places that are on, ascending, place 0 first.

    Args:
        values: Feature to value; others than `features` are not looked at.
        features: What is looked at.
        dimension: How many places there are.
        encoding: See the module's text.

    >>> active_places({"device": "mobile", "hour": "9", "user": "new"}, ("device", "hour", "user"), 16)
    (0, 1, 3, 8)
    >>> active_places({"device": "Tablet"}, ("device", "hour", "user"), 16), active_places({}, ("device",), 16)
    ((0, 4), (0,))
    """
    known = [(name, values[name]) for name in features if values.get(name)]
    if encoding == 1:
        return tuple(sorted({0, *(_hashed(f"{name}={value}", 1, dimension) for name, value in known)}))
    own, first = own_places(tuple(features), dimension)
    texts = [f"{name}={value.lower()}" for name, value in known]
    return tuple(sorted({0, *(own.get(text) or _hashed(text, first, dimension) for text in texts)}))


@lru_cache(maxsize=64)
def own_places(features: tuple[ContextFeature, ...], dimension: int) -> tuple[Mapping[str, int], int]:
    """The values that have a place of their own, as `feature=value`, and the first place behind theirs.

    >>> own, first = own_places(("device", "country", "hour", "user"), 16)
    >>> own["user=new"], own["device=mobile"], own["device=other"], first
    (1, 3, 7, 8)
    """
    own: dict[str, int] = {}
    declared = sorted((name for name in features if name in DECLARED), key=lambda name: len(DECLARED[name]))
    for place, name in enumerate(declared):
        is_all = place + 1 == len(declared) and not _OPEN & set(features)
        left = dimension - 1 - len(own) - len(DECLARED[name])
        if left >= (0 if is_all else LEAST_HASHED):
            own |= {f"{name}={value}": 1 + len(own) + n for n, value in enumerate(DECLARED[name])}
    return own, min(1 + len(own), dimension - 1)


@lru_cache(maxsize=4096)
def _hashed(text: str, first: int, dimension: int) -> int:
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return first + number % (dimension - first)
