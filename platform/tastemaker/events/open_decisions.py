"""Decisions that wait for rewards, as they are kept, and what of a logged decision is looked at for that. Not what a reward is."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

EARLY_MS = 2_000
"""How long an event waits for its decision."""
_FIRST_PLACES = 5


class Early(NamedTuple):
    """An event that waits for its decision."""

    received_ms: int
    kind: str
    item_id: str
    event_id: str
    value: float


class Open(NamedTuple):
    """A decision whose window is open; `experiment` is empty for events that wait for theirs.

    `counted` names the items or events that are in the reward, `context` is what a policy on context saw. Of a list of two
    variants' picks there is one for each variant, and `items` are those that it picked, by `short`: no other's events are its reward.
    """

    experiment: str
    variant: str
    origin: str
    closes_ms: int
    reward: float = 0
    counted: tuple[str, ...] = ()
    context: tuple[int, ...] = ()
    early: tuple[Early, ...] = ()
    items: tuple[str, ...] = ()


NO_ITEM = ""
"""Stands in `Open.items` for the picks of a variant that has none."""


def short(id_: str) -> str:
    """12 hexadecimal digits that tell the ids of one decision apart."""
    return hashlib.blake2b(id_.encode(), digest_size=6).hexdigest()


def encode_open(decisions: Sequence[Open]) -> str:
    """JSON for `pending`: of one decision its places, of several a list of them, as a request may be in several experiments."""
    places = [_places(decision) for decision in decisions]
    return json.dumps(places[0] if len(places) == 1 else places, separators=(",", ":"))


def _places(decision: Open) -> list[Any]:
    """Those that the previous release knew, and after them what is not empty."""
    places = list(decision)
    while len(places) > _FIRST_PLACES and not places[-1]:
        places.pop()
    return places


def decode_open(text: str) -> tuple[Open, ...]:
    """What `encode_open` gave, of this release or the previous one."""
    places = json.loads(text)
    return tuple(map(_open_of, [places] if isinstance(places[0], str) else places))


def _open_of(places: Sequence[Any]) -> Open:
    experiment, variant, origin, closes_ms, reward, *more = places
    counted, context, early, items = (*more, (), (), (), ())[:4]
    waiting = tuple(Early(*one) for one in early)
    opened = Open(
        experiment, variant, origin, closes_ms, reward, tuple(counted), tuple(context), waiting, tuple(items)
    )
    if opened.experiment or opened.early:
        return opened
    # a click that the previous release let wait
    return opened._replace(reward=0, early=(Early(opened.closes_ms - EARLY_MS, "click", "", "", 0.0),))


def next_close(decisions: Sequence[Open]) -> int:
    """When the first of a request's windows ends, in ms by the log's clock."""
    return min(decision.closes_ms for decision in decisions)


def assignments_of(decision: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Every experiment that a decision takes part in; records of the previous release name one at most."""
    if texts := decision.get("assignments"):
        return [json.loads(text) for text in texts]
    return [decision] if decision.get("experiment") else []


def variants_of(
    decision: Mapping[str, Any], assigned: Mapping[str, Any]
) -> Sequence[tuple[str, tuple[str, ...]]]:
    """Each variant that an assignment of a decision gave, with the items that are its picks alone; () for all of them.

    >>> variants_of({}, {"variant": "a"})
    [('a', ())]
    """
    teams = assigned.get("teams")
    if not teams:
        return [(assigned["variant"], ())]
    whose = list(zip(decision.get("item_ids") or (), decision.get("slot_team") or (), strict=False))
    return [
        (variant, tuple(short(item) for item, team in whose if team == place) or (NO_ITEM,))
        for place, variant in enumerate(teams)
    ]


def assignments_fit(decision: Mapping[str, Any]) -> bool:
    """Whether the assignments of a logged decision, each a JSON text, are such that `attribute` can use them.

    >>> assignments_fit({"assignments": ['{"experiment": "e", "variant": "a", "arm_context": [0, 3]}']})
    True
    >>> assignments_fit({"assignments": ['{"experiment": "e", "variant": "a", "arm_context": [-1]}']})
    False
    """
    try:
        return all(map(_fits, assignments_of(decision)))
    except (ValueError, TypeError):
        return False


def _fits(assigned: Any) -> bool:
    return (
        isinstance(assigned, dict)
        and isinstance(assigned.get("experiment"), str)
        and isinstance(assigned.get("variant"), str)
        and all(type(place) is int and place >= 0 for place in assigned.get("arm_context") or ())
        and all(isinstance(variant, str) for variant in assigned.get("teams") or ())
    )
