"""What a check says."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from tastemaker.errors import TastemakerError

Outcome = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's answer. `mend` says what to do where it is not ok."""

    check: str
    outcome: Outcome
    detail: str
    mend: str = ""


Check = Callable[[], Iterable[Finding]]


def found_by(name: str, check: Check) -> Iterator[Finding]:
    """What a check finds; that it cannot be made is a finding as well."""
    try:
        yield from check()
    except TastemakerError as error:
        mend = error.mend or ""
        yield Finding(name, "failed", str(error).removesuffix(f": {mend}"), mend)


def worst(findings: Iterable[Finding]) -> Outcome:
    """The gravest outcome.

    >>> worst([Finding("disk", "ok", ""), Finding("clock", "warning", "3 s")])
    'warning'
    """
    order: tuple[Outcome, ...] = ("failed", "warning", "ok")
    outcomes = {finding.outcome for finding in findings}
    return next((one for one in order if one in outcomes), "skipped")


def now_ms() -> int:
    """UTC."""
    return time.time_ns() // 1_000_000
