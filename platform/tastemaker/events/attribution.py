"""Which decision earned which reward. Pure: what is read and written is the consumer's.

A decision of an experiment stays open for the experiment's window, counted from when the log received it. What counts as a reward
is the experiment's `Rule`: events of some kinds that carry the decision's request_id (or got it by `last_touch`), that the log received before the window's
end, from the same origin. The outcome is reported when the window closes, so that at any time the rewards reported are
those of whole windows: reporting a reward at once and its absence late would favour the variant that was shown most
recently. Rewards that come after the window are left to reports, which read the whole log again.

An event may overtake its own decision (the gateway answers first). It then waits for `EARLY_MS`. A request that takes
part in several experiments has a decision open for each, with a window of its own.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from tastemaker.events.open_decisions import (
    EARLY_MS,
    Early,
    Open,
    assignments_of,
    encode_open,
    next_close,
    short,
    variants_of,
)
from tastemaker.events.schema import Event
from tastemaker.state.keys import Keys
from tastemaker.state.lease import Command

MOST_COUNTED = 100
"""Most events of one decision that add to its reward; a list has fewer items, and what sends more is no person."""

Measure = Literal["any", "items", "value"]
Rules = Mapping[tuple[str, str], "Rule"]
"""By (experiment, origin)."""
Ignored = Literal["repeated", "late", "origin", "unjoined", "too many"]


class Rule(NamedTuple):
    """What an experiment calls a reward.

    `measure` of events of `kinds` within `window_ms`: "any" is 1 where there is one, "items" the number of distinct items,
    "value" the sum of the events' values. Decisions that the log received before `since_ms` earn none: units were assigned anew
    then.
    """

    window_ms: int
    kinds: frozenset[str] = frozenset({"click"})
    measure: Measure = "any"
    since_ms: int = 0


class Outcome(NamedTuple):
    """The reward of one decision, 0 without any; `at_ms` is when its window closed, by the log's clock."""

    experiment: str
    variant: str
    reward: float
    at_ms: int = 0
    context: tuple[int, ...] = ()


class Logged(NamedTuple):
    """A record, and when the log received it."""

    received_ms: int
    record: Any


@dataclass
class Attributed:
    """What one step over one partition changes: opened or rewarded decisions by request, and final outcomes.

    `ignored` counts by reason the events that might have been rewards and were none.
    """

    open: dict[str, tuple[Open, ...]] = field(default_factory=dict)
    closed: list[str] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    ignored: Counter[Ignored] = field(default_factory=Counter)

    def commands(self, keys: Keys, partition: int) -> list[Command]:
        """What to write to the partition's `pending` and `closing`."""
        pending, closing = keys.pending(partition), keys.closing(partition)
        commands: list[Command] = []
        for request_id, decisions in self.open.items():
            commands.append(("HSET", pending, request_id, encode_open(decisions)))
            commands.append(("ZADD", closing, str(next_close(decisions)), request_id))
        for request_id in self.closed:
            commands += [("HDEL", pending, request_id), ("ZREM", closing, request_id)]
        return commands


def requests_of(decisions: Iterable[Logged], events: Iterable[Logged], rules: Rules) -> list[str]:
    """The request ids whose open decisions `attribute` needs to see, beside those that are due."""
    kinds = kinds_of(rules)
    rewarding = (e.record.request_id for e in events if _may_reward(e.record, kinds))
    return list(dict.fromkeys([*(d.record["request_id"] for d in decisions), *rewarding]))


def attribute(
    decisions: Sequence[Logged],
    events: Sequence[Logged],
    pending: Mapping[str, tuple[Open, ...]],
    due: Sequence[str],
    rules: Rules,
) -> Attributed:
    """Opens, rewards and closes.

    Args:
        decisions: New ones, decoded from JSON, in order.
        events: New events, in order.
        pending: What is open by request, at least for `requests_of` and `due`.
        due: Requests with a window that has ended, all events of which have been read.
        rules: What a reward is; decisions of other experiments earn none.
    """
    step = _Step(pending, rules)
    for received_ms, decision in decisions:
        step.open(received_ms, decision)
    for received_ms, event in events:
        if _may_reward(event, step.kinds):
            step.reward(event, received_ms)
    for request_id in due:
        step.close(request_id)
    return step.result


class _Step:
    def __init__(self, pending: Mapping[str, tuple[Open, ...]], rules: Rules) -> None:
        self._pending, self._rules = pending, rules
        self._now_open = dict(pending)
        self.kinds = kinds_of(rules)
        self.result = Attributed()

    def open(self, received_ms: int, decision: Mapping[str, Any]) -> None:
        origin, request_id = decision["origin"], decision["request_id"]
        waiting = self._now_open.get(request_id, ())
        if any(one.experiment for one in waiting):
            return  # logged twice
        early = [event for one in waiting if one.origin == origin for event in one.early]
        opened = [
            self._opened(received_ms, origin, dict(assigned) | {"variant": variant}, rule, early, items)
            for assigned in assignments_of(decision)
            if (rule := self._rules.get((assigned["experiment"], origin))) is not None
            and rule.since_ms <= received_ms
            for variant, items in variants_of(decision, assigned)
        ]
        if opened:
            self._keep(request_id, opened)

    def _opened(
        self,
        received_ms: int,
        origin: str,
        assigned: Mapping[str, Any],
        rule: Rule,
        early: Sequence[Early],
        items: tuple[str, ...],
    ) -> Open:
        context = tuple(int(place) for place in assigned.get("arm_context") or ())
        closes_ms = received_ms + rule.window_ms
        opened = Open(
            assigned["experiment"], assigned["variant"], origin, closes_ms, context=context, items=items
        )
        for one in early:
            if not _is_of(opened, one):
                continue
            rewarded = _rewarded(opened, rule, one, origin)
            opened = rewarded if isinstance(rewarded, Open) else opened
        return opened

    def reward(self, event: Event, received_ms: int) -> None:
        assert event.request_id is not None
        one = Early(received_ms, event.kind, event.item_id, event.event_id, event.value or 0.0)
        found = self._now_open.get(event.request_id, ())
        if not any(decision.experiment for decision in found):
            self._wait(event.request_id, event.origin, one, found)
            return
        after, reasons = list(found), []
        for n, decision in enumerate(found):
            rule = self._rules.get((decision.experiment, decision.origin))
            if rule is not None and one.kind in rule.kinds and _is_of(decision, one):
                rewarded = _rewarded(decision, rule, one, event.origin)
                if isinstance(rewarded, Open):
                    after[n] = rewarded
                else:
                    reasons.append(rewarded)
        if after != list(found):
            self._keep(event.request_id, after)
        self.result.ignored.update(reasons[:1])

    def _wait(self, request_id: str, origin: str, one: Early, found: Sequence[Open]) -> None:
        waiting = found[0] if found else Open("", "", origin, one.received_ms + EARLY_MS)
        if waiting.origin != origin or len(waiting.early) >= MOST_COUNTED:
            self.result.ignored["unjoined"] += 1
        else:
            self._keep(request_id, [waiting._replace(early=(*waiting.early, one))])

    def close(self, request_id: str) -> None:
        """Closes what ends first; what ends later stays, and is due again by its own time."""
        decisions, before = self._now_open.get(request_id, ()), self._pending.get(request_id, ())
        if decisions and (not before or next_close(decisions) != next_close(before)):
            return  # a waiting event's decision has just opened
        closes_ms = next_close(decisions) if decisions else 0
        for decision in decisions:
            if decision.closes_ms > closes_ms:
                continue
            if self._is_void(decision):
                continue
            if decision.experiment:
                self.result.outcomes.append(_outcome(decision))
            else:
                self.result.ignored["unjoined"] += len(decision.early)
        if left := [decision for decision in decisions if decision.closes_ms > closes_ms]:
            self._keep(request_id, left)
        else:
            self.result.open.pop(request_id, None)
            self.result.closed.append(request_id)

    def _is_void(self, decision: Open) -> bool:
        rule = self._rules.get((decision.experiment, decision.origin))
        return rule is not None and decision.closes_ms - rule.window_ms < rule.since_ms

    def _keep(self, request_id: str, decisions: Sequence[Open]) -> None:
        self._now_open[request_id] = self.result.open[request_id] = tuple(decisions)


def _outcome(decision: Open) -> Outcome:
    return Outcome(
        decision.experiment, decision.variant, decision.reward, decision.closes_ms, decision.context
    )


def _rewarded(decision: Open, rule: Rule, one: Early, origin: str) -> Open | Ignored:
    """The decision with one more event in its reward, or why that is none."""
    if decision.origin != origin:
        return "origin"
    if one.kind not in rule.kinds:
        return "unjoined"
    if one.received_ms > decision.closes_ms:
        return "late"
    if len(decision.counted) >= MOST_COUNTED:
        return "too many"
    return _with(decision, rule, one) or "repeated"


def _with(decision: Open, rule: Rule, one: Early) -> Open | None:
    """The decision with one more event in its reward; None where that is in it already."""
    if rule.measure == "any":
        return None if decision.reward else decision._replace(reward=1)
    name = short(one.item_id if rule.measure == "items" else one.event_id)
    if name in decision.counted:
        return None
    added = 1 if rule.measure == "items" else one.value
    return decision._replace(reward=decision.reward + added, counted=(*decision.counted, name))


def _is_of(decision: Open, one: Early) -> bool:
    """Whether an event is about what the decision's variant picked."""
    return not decision.items or short(one.item_id) in decision.items


def kinds_of(rules: Rules) -> frozenset[str]:
    """The kinds of events that may be a reward of some experiment."""
    return frozenset().union(*(rule.kinds for rule in rules.values()))


def _may_reward(event: Event, kinds: frozenset[str]) -> bool:
    return event.kind in kinds and event.request_id is not None
