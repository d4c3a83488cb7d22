"""What new events and decisions change: what is to be written to each partition, and what comes of it.

Nothing is written here: the consumer commits a partition's commands with its offset, and then has the effects counted.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import redis

from tastemaker import telemetry
from tastemaker.config import StateSettings
from tastemaker.events.attribution import Ignored, Outcome, Rules, attribute
from tastemaker.events.batch import Batch, Refused, is_late, read_pending
from tastemaker.events.effects import Applied, Effects, Rewards
from tastemaker.events.history import NOT_HISTORY, push_commands
from tastemaker.events.last_touch import Touched, last_touch, read_shown, users_of
from tastemaker.events.open_decisions import Open
from tastemaker.events.owners import Owners, divided, read_owners
from tastemaker.events.schema import Event
from tastemaker.state.keys import Keys
from tastemaker.state.lease import Command


class Change(NamedTuple):
    """What a step writes to one partition, and what comes of it; `num_touching` events touch users and items."""

    commands: list[Command]
    outcomes: list[Outcome]
    ignored: Counter[Ignored]
    refused: list[Refused]
    num_touching: int


class Applier:
    """Makes changes of batches. Not thread-safe.

    Args:
        client: Of the role `state.url`.
        keys: Of the catalogue.
        state: History length, and when an event is late.
        rewards: Gets the rewards.
        effects: Gets the live events.
    """

    def __init__(
        self, client: redis.Redis, keys: Keys, state: StateSettings, rewards: Rewards, effects: Effects
    ) -> None:
        self._client, self._keys, self._state = client, keys, state
        self._rewards, self._effects = rewards, effects

    def changes(self, batches: Mapping[int, Batch]) -> dict[int, Change]:
        """What batches change, by partition; to be committed before any other of the partition is made.

        Raises:
            StateError: Redis/Valkey cannot be reached.
        """
        rules = self._rewards.rules()  # after reading: a decision's experiment is there before it
        touched = self._touched(batches, rules)
        answering = {p: one.events for p, one in touched.items()}
        pending = read_pending(self._client, self._keys, batches, answering, rules)
        touching = {p: self._touching(batch) for p, batch in batches.items()}
        events = {p: [event for _, event in found] for p, found in touching.items() if found}
        owners = read_owners(
            self._client, self._keys, {p: [event.user_id for event in found] for p, found in events.items()}
        )
        applied = self._effects.apply(events, owners)
        return {
            p: self._change(
                p,
                batch,
                touched[p],
                pending[p],
                rules,
                touching[p],
                applied.get(p, Applied([], {})),
                owners.get(p, {}),
            )
            for p, batch in batches.items()
        }

    def count(self, batches: Iterable[Batch], changes: Sequence[Change]) -> int:
        """Tells rewards and metrics of what was committed; gives the number of final outcomes."""
        outcomes = [outcome for change in changes for outcome in change.outcomes]
        if outcomes:
            self._rewards.roll_up({outcome.experiment for outcome in outcomes})
        self._rewards.count(outcomes, sum((change.ignored for change in changes), Counter()))
        catalogue = self._keys.catalogue
        events = [event for batch in batches for _, event in batch.events]
        for kind, count in Counter(event.kind for event in events).items():
            telemetry.CONSUMED.labels(catalogue, kind).inc(count)
        num_live = sum(event.origin == "live" for event in events)
        telemetry.LATE_EVENTS.labels(catalogue).inc(num_live - sum(change.num_touching for change in changes))
        for refused in (one for change in changes for one in change.refused):
            telemetry.DEAD_LETTERS.labels(catalogue, refused.stream).inc()
        return len(outcomes)

    def _change(
        self,
        partition: int,
        batch: Batch,
        touched: Touched,
        pending: Mapping[str, tuple[Open, ...]],
        rules: Rules,
        touching: Sequence[tuple[int, Event]],
        applied: Applied,
        owners: Owners,
    ) -> Change:
        attributed = attribute(batch.decisions, touched.events, pending, batch.due, rules)
        unapplied = [
            Refused("events", batch.entries[touching[n][0]], why) for n, why in applied.refused.items()
        ]
        commands = [
            *attributed.commands(self._keys, partition),
            *touched.commands(self._keys, max((one.received_ms for one in batch.decisions), default=0)),
            *self._rewards.commands(partition, attributed.outcomes),
            *self._history_commands(divided([event for _, event in touching], owners)[0]),
            *applied.commands,
            *(one.letter(self._keys, partition) for one in (*batch.poison, *unapplied)),
            *(one.removal(self._keys, partition) for one in (*batch.poison, *batch.forgotten)),
        ]
        refused = batch.poison + unapplied
        return Change(commands, attributed.outcomes, attributed.ignored, refused, len(touching))

    def _touched(self, batches: Mapping[int, Batch], rules: Rules) -> dict[int, Touched]:
        """By partition, events with the requests that they answer."""
        users = {p: users_of(batch.decisions, batch.events, rules) for p, batch in batches.items()}
        shown = read_shown(self._client, self._keys, users)
        return {p: last_touch(b.decisions, b.events, shown[p], rules) for p, b in batches.items()}

    def _touching(self, batch: Batch) -> list[tuple[int, Event]]:
        """The events that touch the state of users and items, each with its place in the batch: live, and not late."""
        days = self._state.late_days
        return [
            (n, event)
            for n, (received_ms, event) in enumerate(batch.events)
            if event.origin == "live" and not is_late(received_ms, event.timestamp_ms, days)
        ]

    def _history_commands(self, events: Iterable[Event]) -> list[Command]:
        taken: dict[str, list[str]] = {}
        for event in events:
            if event.kind not in NOT_HISTORY:
                taken.setdefault(event.user_id, []).append(event.item_id)
        length = self._state.history_length
        return [
            command
            for user, items in taken.items()
            for command in push_commands(self._keys, user, _newest(items, length), length)
        ]


def _newest(items: Sequence[str], length: int) -> list[str]:
    """Each item once, at its newest place, oldest first; the newest `length` of them.

    >>> _newest(["a", "b", "c", "b", "b"], 2)
    ['c', 'b']
    """
    return list(dict.fromkeys(reversed(items)))[:length][::-1]
