"""How what a report says is put for people: in sentences, on pages and at a terminal."""

from datetime import UTC, datetime
from typing import Final

_MOST: Final = 10.0
"""Ten times as much: beyond that a bound says only that next to nothing is known."""


def percent(change: float) -> str:
    """A relative change, in percent of the control.

    >>> percent(0.1234), percent(-1.0), percent(36054312.0)
    ('+12.3%', '-100.0%', 'over +1,000%')
    """
    return f"{change:+.1%}" if change <= _MOST else f"over {_MOST:+,.0%}"


def bounds(low: float, high: float) -> str:
    """An interval of relative changes.

    >>> bounds(-0.05, 0.1)
    '[-5.0%, +10.0%]'
    """
    return f"[{percent(low)}, {percent(high)}]"


def p_value(p: float) -> str:
    """A p-value to four places.

    >>> p_value(0.03), p_value(1e-9)
    ('0.0300', '<0.0001')
    """
    return f"{p:.4f}" if p >= 0.0001 else "<0.0001"


def moment(at_ms: int) -> str:
    """A time to the minute, UTC.

    >>> moment(1_795_703_442_000)
    '2026-11-26 14:30'
    """
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
