"""Decisions and events of a small experiment, written as the consumer writes them."""

import json
from collections.abc import Sequence
from typing import Any

from tastemaker.events.archive import event_table, write_days
from tastemaker.events.log import Entry
from tastemaker.events.schema import Event
from tastemaker.experiments.decision_log import Decision, decision_table, encode_decision
from tastemaker.experiments.definition import Experiment, Fixed, Variant
from tastemaker.home import Home

START_MS = 1_750_000_000_000
WINDOW_MS = 10_000
DAY_MS = 86_400_000
CATALOGUE = "shop"


def experiment(**fields: Any) -> Experiment:
    """Two variants, half and half, of origin simulator; a click counts for ten seconds."""
    defaults = {
        "name": "exp", "hypothesis": "b is better", "salt": "s", "origin": "simulator",
        "variants": (Variant(name="a", alias="champion"), Variant(name="b", alias="challenger")),
        "allocation": Fixed(weights=(0.5, 0.5)), "attribution_window_seconds": WINDOW_MS / 1000,
    }  # fmt: skip
    return Experiment(**defaults | fields)


def decision(request_id: str, unit: str, variant: str | None, at_ms: int, **fields: Any) -> Entry:
    """An answer with items x and y, at so many ms after the start."""
    defaults = {
        "experiment": "exp", "propensity": 0.5, "propensities": (0.5, 0.5), "epoch": 0, "item_ids": ["x", "y"],
        "origin": "simulator", "user_id": unit,
    }  # fmt: skip
    one = Decision(
        decision_id=f"d-{request_id}", request_id=request_id, timestamp_ms=START_MS + at_ms, catalogue=CATALOGUE,
        unit=unit, variant=variant, bundle="b1", **defaults | fields,
    )  # fmt: skip
    return Entry(f"{START_MS + at_ms}-0", encode_decision(one))


def event(request_id: str | None, item: str, at_ms: int, kind: str = "click", **fields: Any) -> Entry:
    """An event that the log took so many ms after the start; `own_ms` is what its client says, unset the same."""
    own_ms = fields.pop("own_ms", at_ms)
    defaults = {"user_id": "u", "origin": "simulator"} | fields
    defaults.setdefault("event_id", f"{request_id}-{defaults['user_id']}-{item}-{kind}-{at_ms}-{own_ms}")
    one = Event(item_id=item, kind=kind, timestamp_ms=START_MS + own_ms, request_id=request_id, **defaults)
    return Entry(f"{START_MS + at_ms}-0", one.model_dump_json())


def raw(entry: Entry, **fields: Any) -> Entry:
    """The same record with other fields."""
    return Entry(entry.id, json.dumps(json.loads(entry.json) | fields))


def write(home: Home, decisions: Sequence[Entry], events: Sequence[Entry] = ()) -> None:
    """Puts them into the days."""
    if decisions:
        write_days(home / "decisions" / CATALOGUE, decision_table(decisions))
    if events:
        write_days(home / "events" / CATALOGUE, event_table(events))
