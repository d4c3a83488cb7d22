"""Events that name no request: which decision they answer, the last one that showed their item to their user.

What a user was shown by decisions with an open window is kept under a key of the user's own, which ends with the last of
those windows. Items are told apart by 24 bits of a hash: within the at most `MOST_SHOWN` lists of one user that errs once in
tens of thousands of events. A user who is merged into another leaves this behind.
"""

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import redis

from tastemaker.events.attribution import Logged, Rules, kinds_of
from tastemaker.events.open_decisions import assignments_of
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.state.lease import Command

MOST_SHOWN = 20
"""Newest lists of a user that are looked at."""
_DIGITS = 6


class Shown(NamedTuple):
    """What a decision showed; `items` are the hashes of its items, one after the other."""

    request_id: str
    origin: str
    received_ms: int
    closes_ms: int
    items: str

    def has(self, item: str) -> bool:
        """Whether the item of that hash was among them."""
        return any(self.items[n : n + _DIGITS] == item for n in range(0, len(self.items), _DIGITS))


class Touched(NamedTuple):
    """Events, each with the request that it answers where that is found, and the lists of users that changed."""

    events: list[Logged]
    shown: Mapping[str, tuple[Shown, ...]]

    def commands(self, keys: Keys, now_ms: int) -> list[Command]:
        """What to write of the users whose lists changed; `now_ms` is the log's clock."""
        return [
            (
                "SET",
                keys.shown(user_id),
                encode(lists),
                "PX",
                str(max(1, max(one.closes_ms for one in lists) - now_ms)),
            )
            for user_id, lists in self.shown.items()
        ]


def users_of(decisions: Iterable[Logged], events: Iterable[Logged], rules: Rules) -> list[str]:
    """The users whose lists `last_touch` needs to see."""
    kinds = kinds_of(rules)
    users = [d.record["user_id"] for d in decisions if _window_ms(d.record, rules)]
    users += [e.record.user_id for e in events if e.record.request_id is None and e.record.kind in kinds]
    return list(dict.fromkeys(users))


def read_shown(
    client: redis.Redis, keys: Keys, users: Mapping[int, Sequence[str]]
) -> dict[int, dict[str, tuple[Shown, ...]]]:
    """By partition, the lists of users that have any.

    Raises:
        StateError: Redis/Valkey cannot be reached.
    """
    with state_errors("read what users were shown"):
        pipe: Any = client.pipeline(transaction=False)
        asked = [(p, user_id) for p, of in users.items() for user_id in of]
        for _, user_id in asked:
            pipe.get(keys.shown(user_id))
        replies = pipe.execute() if asked else []
    found: dict[int, dict[str, tuple[Shown, ...]]] = {p: {} for p in users}
    for (p, user_id), text in zip(asked, replies, strict=True):
        if text is not None:
            found[p][user_id] = decode(text)
    return found


def last_touch(
    decisions: Iterable[Logged],
    events: Iterable[Logged],
    shown: Mapping[str, tuple[Shown, ...]],
    rules: Rules,
) -> Touched:
    """Finds the decision of each event that could be a reward and names no request.

    Args:
        decisions: New ones, decoded from JSON.
        events: New ones.
        shown: What `users_of` were shown before.
        rules: What a reward is.
    """
    now, changed = dict(shown), {}
    for received_ms, decision in decisions:
        if window_ms := _window_ms(decision, rules):
            one = _shown(decision, received_ms, window_ms)
            lists = [other for other in now.get(decision["user_id"], ()) if other.closes_ms >= received_ms]
            if all(other.request_id != one.request_id for other in lists):
                now[decision["user_id"]] = changed[decision["user_id"]] = (*lists, one)[-MOST_SHOWN:]
    kinds = kinds_of(rules)
    return Touched([_answering(event, now, kinds) for event in events], changed)


def _answering(logged: Logged, shown: Mapping[str, tuple[Shown, ...]], kinds: frozenset[str]) -> Logged:
    received_ms, event = logged
    if event.request_id is not None or event.kind not in kinds:
        return logged
    item = _hash(event.item_id)
    for one in reversed(shown.get(event.user_id, ())):
        in_time = one.received_ms <= received_ms <= one.closes_ms
        if in_time and one.origin == event.origin and one.has(item):
            return Logged(received_ms, event.model_copy(update={"request_id": one.request_id}))
    return logged


def encode(lists: Iterable[Shown]) -> str:
    """JSON of a user's lists."""
    return json.dumps(list(lists), separators=(",", ":"))


def decode(text: str) -> tuple[Shown, ...]:
    """What `encode` gave."""
    return tuple(Shown(*one) for one in json.loads(text))


def _window_ms(decision: Mapping[str, Any], rules: Rules) -> int:
    """The longest window of the decision's experiments; 0 where it is in none."""
    assigned = assignments_of(decision) if rules else ()
    found = (rules.get((one["experiment"], decision["origin"])) for one in assigned)
    return max((rule.window_ms for rule in found if rule is not None), default=0)


def _shown(decision: Mapping[str, Any], received_ms: int, window_ms: int) -> Shown:
    items = "".join(map(_hash, decision.get("item_ids", ())))
    return Shown(decision["request_id"], decision["origin"], received_ms, received_ms + window_ms, items)


def _hash(item_id: str) -> str:
    return f"{zlib.crc32(item_id.encode()) & 0xFFFFFF:0{_DIGITS}x}"
