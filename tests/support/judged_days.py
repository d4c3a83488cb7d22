"""Parquet days of decisions and clicks, as the stream consumer writes them, for judgements from a log."""

import json
from typing import Any

from tastemaker.events.archive import EVENT_SCHEMA, event_table, write_days
from tastemaker.events.log import Entry
from tastemaker.events.schema import Event
from tastemaker.experiments.decision_log import Decision, decision_table, encode_decision
from tastemaker.experiments.definition import Experiment, Fixed, Variant
from tastemaker.home import Home

START_MS = 1_750_000_000_000
WINDOW_MS = 10_000


def decision(number: int, **fields: Any) -> Entry:
    defaults: dict[str, Any] = {
        "decision_id": f"d{number}", "request_id": f"r{number}", "timestamp_ms": START_MS + number, "catalogue": "shop",
        "origin": "live", "unit": f"u{number}", "user_id": f"u{number}", "bundle": "b1", "item_ids": ["x", "y"],
        "slot_propensity": [0.5, 1.0], "slot_propensity_kind": "exact", "request": json.dumps({"user_id": "nobody"}), "k": 2,
    }  # fmt: skip
    one = Decision(**defaults | fields)
    return Entry(f"{START_MS + number}-0", encode_decision(one))


def click(number: int, item: str, after_ms: int = 100, **fields: Any) -> Entry:
    defaults: dict[str, Any] = {
        "event_id": f"e{number}-{item}-{after_ms}", "user_id": f"u{number}", "item_id": item, "kind": "click",
        "timestamp_ms": START_MS + number + after_ms, "request_id": f"r{number}", "origin": "live",
    }  # fmt: skip
    one = Event(**defaults | fields)
    return Entry(f"{START_MS + number + after_ms}-0", one.model_dump_json())


def write(home: Home, decisions: list[Entry], events: list[Entry]) -> None:
    write_days(home / "decisions" / "shop", decision_table(decisions))
    table = event_table(events) if events else EVENT_SCHEMA.empty_table()
    write_days(home / "events" / "shop", table)


def experiment(**fields: Any) -> Experiment:
    """Of the control a and of b."""
    defaults: dict[str, Any] = {
        "name": "exp", "hypothesis": "b is better", "salt": "s",
        "variants": (Variant(name="a", alias="champion"), Variant(name="b", alias="challenger")),
        "allocation": Fixed(weights=(0.5, 0.5)), "attribution_window_seconds": WINDOW_MS / 1000,
    }  # fmt: skip
    return Experiment(**defaults | fields)
