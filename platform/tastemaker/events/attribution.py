"""Which decision earned which reward. Pure: what is read and written is the consumer's.

A decision with an experiment stays open for its attribution window, counted from when the log received it. A
click with its request_id that the log received before the window's end, from the same origin, makes its
reward 1; one click or many. Both outcomes are reported when the window closes, so that at any time the
rewards reported are those of whole windows: reporting a 1 at once and a 0 late would favour the variant that
was shown most recently.

A click may overtake its own decision (the gateway answers first). It then waits for `EARLY_MS`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tastemaker.events.schema import Event
from tastemaker.state.keys import Keys
from tastemaker.state.lease import Command

EARLY_MS = 2_000
REWARD_KINDS = frozenset({"click"})


class Open(NamedTuple):
    """A decision whose window is open; `experiment` is empty for a click that waits for its decision."""

    experiment: str
    variant: str
    origin: str
    closes_ms: int
    reward: int = 0


class Outcome(NamedTuple):
    """The reward of one decision: 1 with a click, 0 without."""

    experiment: str
    variant: str
    reward: int


class Logged(NamedTuple):
    """A record, and when the log received it."""

    received_ms: int
    record: Any


@dataclass
class Attributed:
    """What one step over one partition changes: opened or rewarded decisions, and final outcomes."""

    open: dict[str, Open] = field(default_factory=dict)
    closed: list[str] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)

    def commands(self, keys: Keys, partition: int) -> list[Command]:
        """What to write to the partition's `pending` and `closing`."""
        pending, closing = keys.pending(partition), keys.closing(partition)
        commands: list[Command] = []
        for request_id, decision in self.open.items():
            commands.append(("HSET", pending, request_id, encode_open(decision)))
            commands.append(("ZADD", closing, str(decision.closes_ms), request_id))
        for request_id in self.closed:
            commands += [("HDEL", pending, request_id), ("ZREM", closing, request_id)]
        return commands


def encode_open(decision: Open) -> str:
    """JSON for `pending`."""
    return json.dumps(decision, separators=(",", ":"))


def decode_open(text: str) -> Open:
    """What `encode_open` gave."""
    return Open(*json.loads(text))


def requests_of(decisions: Iterable[Logged], events: Iterable[Logged]) -> list[str]:
    """The request ids whose open decision `attribute` needs to see, beside those that are due."""
    clicked = (e.record.request_id for e in events if _may_reward(e.record))
    return list(dict.fromkeys([*(d.record["request_id"] for d in decisions), *clicked]))


def attribute(
    decisions: Sequence[Logged],
    events: Sequence[Logged],
    pending: Mapping[str, Open],
    due: Sequence[str],
    windows_ms: Mapping[tuple[str, str], int],
) -> Attributed:
    """Opens, rewards and closes.

    Args:
        decisions: New ones, decoded from JSON, in order.
        events: New events, in order.
        pending: What is open, at least for `requests_of` and `due`.
        due: Requests whose window has ended, all events of which have been read.
        windows_ms: Attribution window by (experiment, origin); decisions of others earn no reward.
    """
    result = Attributed()
    now_open = dict(pending)
    for received_ms, decision in decisions:
        origin, experiment = decision["origin"], decision.get("experiment") or ""
        window_ms = windows_ms.get((experiment, origin))
        early = now_open.get(decision["request_id"])
        if window_ms is None or (early is not None and early.experiment):
            continue
        closes_ms = received_ms + window_ms
        in_time = early is not None and early.origin == origin and early.closes_ms - EARLY_MS <= closes_ms
        opened = Open(experiment, decision["variant"], origin, closes_ms, int(in_time))
        now_open[decision["request_id"]] = result.open[decision["request_id"]] = opened
    for received_ms, event in events:
        if _may_reward(event):
            _reward(event, received_ms, now_open, result)
    for request_id in due:
        decision, before = now_open.get(request_id), pending.get(request_id)
        if decision is not None and (before is None or decision.closes_ms != before.closes_ms):
            continue  # a waiting click's decision has just opened
        result.open.pop(request_id, None)
        result.closed.append(request_id)
        if decision is not None and decision.experiment:
            result.outcomes.append(Outcome(decision.experiment, decision.variant, decision.reward))
    return result


def _may_reward(event: Event) -> bool:
    return event.kind in REWARD_KINDS and event.request_id is not None


def _reward(event: Event, received_ms: int, now_open: dict[str, Open], result: Attributed) -> None:
    assert event.request_id is not None
    decision = now_open.get(event.request_id)
    if decision is None:
        decision = Open("", "", event.origin, received_ms + EARLY_MS, 1)
    elif decision.reward or decision.origin != event.origin or received_ms > decision.closes_ms:
        return
    else:
        decision = decision._replace(reward=1)
    now_open[event.request_id] = result.open[event.request_id] = decision
