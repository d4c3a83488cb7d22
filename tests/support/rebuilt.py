"""Online features in plain values, so that those of a rebuild and of a consumer can be held against each other."""

import random
from typing import Any

import numpy as np
import pytest
from streams import DAY_MS, NOW_MS, event, make_consumer, send

from tastemaker.events.schema import Event
from tastemaker.features.counters import Counters
from tastemaker.features.user_state import UserState
from tastemaker.types import EVENT_KINDS


def some_events(count: int, seed: int = 1) -> list[Event]:
    """Live, simulated and late ones, of few users and items."""
    rng = random.Random(seed)
    return [
        event(
            f"u{rng.randrange(8)}", f"i{rng.randrange(12)}", rng.choice(EVENT_KINDS), value=rng.uniform(1, 5),
            timestamp_ms=NOW_MS - rng.choice([rng.randrange(DAY_MS), 40 * DAY_MS]),
            origin=rng.choice(["live", "live", "live", "simulator"]),
        )
        for _ in range(count)
    ]  # fmt: skip


def apply(state: Any, events: list[Event], size: int = 7) -> None:
    """Has a consumer apply and archive events in small batches."""
    worker = make_consumer(state)
    for start in range(0, len(events), size):
        send(state, *events[start : start + size])
        worker.step()
    assert worker.drain(20)
    worker.close()


def raw(state: Any, *command: str) -> Any:
    return state.client.execute_command(*command, NEVER_DECODE=True)


def online(state: Any) -> dict[str, Any]:
    """All that the rebuild is for, in plain values."""
    found: dict[str, Any] = {}
    for key in sorted(state.client.scan_iter(match=f"tm:{{{state.keys.catalogue}*", count=1000)):
        name = key.partition("}:")[2]
        if name.startswith("user:"):
            user = UserState.decode(raw(state, "GET", key))
            found[key] = [*plain(user.counters), user.affinity, user.taken, user.opinions, user.shown]
        elif name.startswith("history:"):
            found[key] = state.client.lrange(key, 0, -1)
        elif name == "items":
            fields = raw(state, "HGETALL", key)
            pairs = (
                fields.items() if isinstance(fields, dict) else zip(fields[::2], fields[1::2], strict=True)
            )
            found |= {f"{key} {item.decode()}": plain(Counters.decode([record])) for item, record in pairs}
        elif name.startswith("ranking:"):
            found[key] = dict(state.client.zrange(key, 0, -1, withscores=True))
    return found


def by_partition(state: Any, found: dict[str, Any]) -> dict[str, Any]:
    """Without totals and rankings, which a consumer makes a moment later."""
    return {key: value for key, value in found.items() if f"{{{state.keys.catalogue}:" in key}


def plain(counters: Counters) -> list[Any]:
    return [counters.value_NKW[0].ravel().tolist(), int(counters.last_ms_N[0])]


def assert_same(found: Any, expected: Any, where: str = "") -> None:
    """Equal up to rounding: sums in another order."""
    if isinstance(expected, dict):
        assert set(found) == set(expected), where
        for key, value in expected.items():
            assert_same(found[key], value, f"{where} {key}")
    elif isinstance(expected, list | tuple) and expected and isinstance(expected[0], float):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-300, err_msg=where)
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), where
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other, where)
    else:
        assert found == (pytest.approx(expected, rel=1e-9) if isinstance(expected, float) else expected), (
            where
        )
