"""What the processes that serve tell of themselves in Redis/Valkey: versions they hold, answer from, and refused.

A hash `Keys.ready`: name -> report. A name is the stage, a slash and letters of the process's own; gateways are `gateway/…`.
"""

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final

from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys

if TYPE_CHECKING:
    import redis

GATEWAY: Final = "gateway"
FRESH_SECONDS: Final = 10.0
"""Who has not told of itself for so long is gone."""
_FORGOTTEN_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Report:
    """What one process tells of itself. `at_ms` is by its own clock; a few seconds of skew do not matter.

    Versions are named by their manifest's hash. `refused` says why a live one is not held; `answers`, of gateways, from
    which version each alias answers.
    """

    generation: int
    held: tuple[str, ...]
    at_ms: int
    refused: Mapping[str, str] = field(default_factory=dict)
    answers: Mapping[str, int] = field(default_factory=dict)

    def encode(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str) -> "Report":
        """What `encode` gave, of this release, the one before or the one after."""
        found = json.loads(text)
        if isinstance(found, list):
            generation, held, at_ms = found
            return cls(generation, tuple(held), at_ms)
        known = {name: found[name] for name in _FIELDS & found.keys()}
        return cls(**known | {"held": tuple(found["held"])})

    def is_fresh(self, now_ms: int) -> bool:
        """Whether who told this lives."""
        return now_ms - self.at_ms <= FRESH_SECONDS * 1000


_FIELDS: Final = frozenset(one.name for one in fields(Report))


def stage_of(name: str) -> str:
    """The stage of a process.

    >>> stage_of("ranker/3f")
    'ranker'
    """
    return name.partition("/")[0]


def read_reports(client: "redis.Redis", keys: Keys) -> dict[str, Report]:
    """The reports of all processes that live, by name.

    Raises:
        StateError: Redis/Valkey cannot be reached.
    """
    with state_errors("read which replicas are ready"):
        found: Any = client.hgetall(keys.ready)
    reports = {name: Report.decode(text) for name, text in sorted(found.items())}
    now_ms = time.time_ns() // 1_000_000
    return {name: report for name, report in reports.items() if report.is_fresh(now_ms)}


def living(reports: Mapping[str, str], now_ms: int) -> dict[str, int]:
    """Number of processes that are alive, by stage; arguments as of `ready_everywhere`."""
    return dict(
        Counter(stage_of(name) for name, text in reports.items() if Report.decode(text).is_fresh(now_ms))
    )


def ready_everywhere(sha256: str, reports: Mapping[str, str], stages: frozenset[str], now_ms: int) -> bool:
    """Whether every process that is alive holds a version, and each stage has one.

    Args:
        sha256: The version's manifest hash.
        reports: The fields of the hash `Keys.ready`.
        stages: Stages that must have a replica.
        now_ms: Reports older than `FRESH_SECONDS` are of processes that are gone.
    """
    seen: set[str] = set()
    for name, text in reports.items():
        report = Report.decode(text)
        if not report.is_fresh(now_ms):
            continue
        if sha256 not in report.held:
            return False
        seen.add(stage_of(name))
    return stages <= seen


def gone(reports: Mapping[str, str], now_ms: int) -> list[str]:
    """Names of processes that have not told of themselves for a minute."""
    return [
        name
        for name, text in reports.items()
        if now_ms - Report.decode(text).at_ms > _FORGOTTEN_SECONDS * 1000
    ]
