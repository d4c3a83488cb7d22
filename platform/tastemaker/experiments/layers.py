"""Which units of a layer an experiment has: ranges of the layer's own hash, disjoint between experiments that run at once.

A layer's hash gives each unit one of 10,000 slots. An experiment holds ranges of slots in the order in which it fills them:
with traffic t it has the units of the first `round(10000 t)` slots. More traffic adds slots behind and moves none, so a unit
that takes part goes on taking part. The hash of a layer has nothing to do with those by which experiments choose variants, nor
with another layer's: what a unit gets in one layer says nothing of what it gets in another.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from tastemaker.experiments.hashing import bucket

SLOTS: Final = 10_000
"""Of a layer: traffic is counted in hundredths of a percent."""
Ranges = tuple[tuple[int, int], ...]
"""First slot and the one behind the last, of each range."""
WHOLE: Final[Ranges] = ((0, SLOTS),)
_SALT: Final = ""
"""No experiment's: those are not empty."""


def slot_of(layer: str, unit: str) -> int:
    """The slot of a unit in a layer.

    >>> slot_of("default", "user-1")
    7413
    """
    return int(bucket(_SALT, f"layer:{layer}", unit) * SLOTS)


def held_out(salt: str, share: float, user_id: str) -> bool:
    """Whether a user is in the catalogue's holdout; a larger share keeps all of a smaller one's."""
    return bucket(_SALT, f"holdout:{salt}", user_id) < share


def num_slots(traffic: float) -> int:
    """How many slots a share of a layer is.

    >>> num_slots(0.07), num_slots(1.0)
    (700, 10000)
    """
    return round(traffic * SLOTS)


def has(ranges: Ranges, wanted: int, slot: int) -> bool:
    """Whether a slot is among the first `wanted` of some ranges.

    >>> [has(((10, 20), (0, 5)), 12, slot) for slot in (10, 19, 1, 2, 9)]
    [True, True, True, False, False]
    """
    for first, end in ranges:
        if wanted <= 0:
            return False
        if first <= slot < min(end, first + wanted):
            return True
        wanted -= end - first
    return False


def size(ranges: Ranges) -> int:
    """How many slots they are."""
    return sum(end - first for first, end in ranges)


def overlap(ranges: Ranges, others: Ranges) -> int:
    """How many slots are in both."""
    return sum(max(0, min(e, f) - max(a, b)) for a, e in ranges for b, f in others)


def free(taken: Iterable[Ranges]) -> Ranges:
    """What none of the disjoint `taken` have, ascending.

    >>> free([((0, 10),), ((20, 10000),)])
    ((10, 20),)
    """
    found, edge = [], 0
    for first, end in sorted(span for ranges in taken for span in ranges):
        if first > edge:
            found.append((edge, first))
        edge = max(edge, end)
    return (*found, (edge, SLOTS)) if edge < SLOTS else tuple(found)


def resized(held: Ranges, wanted: int, taken: Sequence[Ranges]) -> Ranges | None:
    """The first `wanted` slots of what is held, with free ones behind where that is too little; None where there are not enough.

    >>> resized(((0, 10),), 15, [((10, 20),)])
    ((0, 10), (20, 25))
    >>> resized(((0, 10), (20, 25)), 12, [])
    ((0, 10), (20, 22))
    """
    found: list[tuple[int, int]] = []
    for first, end in (*held, *free([*taken, held])):
        if wanted > 0:
            found.append((first, min(end, first + wanted)))
            wanted -= end - first
    if wanted > 0:
        return None
    return _joined(found)


def _joined(spans: Iterable[tuple[int, int]]) -> Ranges:
    """Neighbours in order as one."""
    found: list[tuple[int, int]] = []
    for first, end in spans:
        if found and found[-1][1] == first:
            found[-1] = (found[-1][0], end)
        else:
            found.append((first, end))
    return tuple(found)
