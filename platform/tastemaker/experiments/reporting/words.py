"""How what a report says is put for people: in sentences, on pages and at a terminal."""

import math
from datetime import UTC, datetime
from typing import Final

_MOST: Final = 10.0
"""Ten times as much: beyond that a bound says only that next to nothing is known."""


def percent(change: float, places: int = 1) -> str:
    """A relative change, in percent of the control; "-" where there is none (NaN).

    >>> percent(0.1234), percent(-1.0), percent(10.0), percent(36054312.0)
    ('+12.3%', '-100.0%', '+1,000.0%', 'over +1,000%')
    >>> percent(float("nan")), percent(0.00123, places=2)
    ('-', '+0.12%')
    """
    if math.isnan(change):
        return "-"
    return f"{change:+,.{places}%}" if change <= _MOST else f"over {_MOST:+,.0%}"


def bounds(low: float, high: float) -> str:
    """An interval of relative changes.

    >>> bounds(-0.05, 0.1)
    '[-5.0%, +10.0%]'
    """
    return f"[{percent(low)}, {percent(high)}]"


def p_value(p: float) -> str:
    """A p-value to four places; "-" where there is none (NaN).

    >>> p_value(0.03), p_value(1e-9), p_value(float("nan"))
    ('0.0300', '<0.0001', '-')
    """
    if math.isnan(p):
        return "-"
    return f"{p:.4f}" if p >= 0.0001 else "<0.0001"


def moment(at_ms: int) -> str:
    """A time to the minute, UTC.

    >>> moment(1_795_703_442_000)
    '2026-11-26 14:30'
    """
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
