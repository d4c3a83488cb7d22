"""The bundle versions that one replica holds, and how the others come to know of them.

A replica loads what becomes live, tells so in Redis/Valkey with every poll, and keeps what is live no
longer until requests in flight are through. The gateway sends a request only to versions that every replica
has told of.
"""

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tastemaker import telemetry
from tastemaker.registry.live import LiveAliases, LiveVersion

POLL_SECONDS = 0.5
FRESH_SECONDS = 10.0
"""A replica that has not told of itself for so long is gone."""
DRAIN_SECONDS = 60.0
RETRY_SECONDS = 30.0
"""A bundle that was refused is tried again after this time: its storage may have been at fault."""

T = TypeVar("T")
log = logging.getLogger(__name__)


class Versions(Generic[T]):
    """Loaded bundle versions by manifest hash. One thread refreshes; any may `get`.

    Args:
        load: Opens a version; slow.
        catalogue: For the count of refused bundles.
    """

    def __init__(self, load: Callable[[LiveVersion], T], catalogue: str) -> None:
        self._load, self._catalogue = load, catalogue
        self._held: dict[str, T] = {}
        self._unused_since: dict[str, float] = {}
        self._refused: dict[str, tuple[float, str]] = {}

    def get(self, sha256: str) -> T | None:
        """The version of this manifest hash; None where it is not held."""
        return self._held.get(sha256)

    @property
    def held(self) -> list[str]:
        """Manifest hashes of all that is held."""
        return sorted(self._held)

    @property
    def refused(self) -> dict[str, str]:
        """Why a live version is not held, by manifest hash."""
        return {sha256: reason for sha256, (_, reason) in self._refused.items()}

    def drop(self, sha256: str) -> None:
        """Drops a version at once; where it is live, the next refresh loads it anew."""
        self._held.pop(sha256, None)
        self._unused_since.pop(sha256, None)

    def refresh(self, live: LiveAliases | None) -> None:
        """Loads what became live and drops what has long not been."""
        wanted = {version.sha256: version for version in live.aliases.values()} if live else {}
        for sha256, version in wanted.items():
            if sha256 not in self._held and self._may_try(sha256):
                self._try(version)
        self._drop(frozenset(wanted))

    def _may_try(self, sha256: str) -> bool:
        return time.monotonic() - self._refused.get(sha256, (float("-inf"), ""))[0] >= RETRY_SECONDS

    def _try(self, version: LiveVersion) -> None:
        try:
            self._held[version.sha256] = self._load(version)
            self._refused.pop(version.sha256, None)
        except Exception as error:
            log.warning("refused bundle version %d", version.version, exc_info=error)
            telemetry.BUNDLE_REFUSED.labels(self._catalogue).inc()
            self._refused[version.sha256] = time.monotonic(), f"{type(error).__name__}: {error}"

    def _drop(self, wanted: frozenset[str]) -> None:
        now = time.monotonic()
        for sha256 in list(self._held):
            if sha256 in wanted:
                self._unused_since.pop(sha256, None)
            elif now - self._unused_since.setdefault(sha256, now) >= DRAIN_SECONDS:
                del self._held[sha256], self._unused_since[sha256]
        for sha256 in set(self._refused) - wanted:
            del self._refused[sha256]


@dataclass(frozen=True, slots=True)
class Report:
    """What a replica tells of itself. `at_ms` is by its own clock; a few seconds of skew do not matter."""

    generation: int
    held: tuple[str, ...]
    at_ms: int

    def encode(self) -> str:
        """As JSON."""
        return json.dumps([self.generation, self.held, self.at_ms])

    @classmethod
    def decode(cls, text: str) -> "Report":
        """What `encode` gave."""
        generation, held, at_ms = json.loads(text)
        return cls(generation, tuple(held), at_ms)


def living(reports: Mapping[str, str], now_ms: int) -> dict[str, int]:
    """Number of replicas that are alive, by stage; arguments as of `ready_everywhere`."""
    stages = [
        name.partition("/")[0] for name, text in reports.items() if _is_fresh(Report.decode(text), now_ms)
    ]
    return dict(Counter(stages))


def _is_fresh(report: Report, now_ms: int) -> bool:
    return now_ms - report.at_ms <= FRESH_SECONDS * 1000


def ready_everywhere(sha256: str, reports: Mapping[str, str], stages: frozenset[str], now_ms: int) -> bool:
    """Whether every replica that is alive holds a version, and each stage has one.

    Args:
        sha256: The version's manifest hash.
        reports: The fields of the hash `Keys.ready`: stage/replica -> report.
        stages: Stages that must have a replica.
        now_ms: Reports older than `FRESH_SECONDS` are of replicas that are gone.
    """
    seen: set[str] = set()
    for name, text in reports.items():
        report = Report.decode(text)
        if not _is_fresh(report, now_ms):
            continue
        if sha256 not in report.held:
            return False
        seen.add(name.partition("/")[0])
    return stages <= seen


def gone(reports: Mapping[str, Any], now_ms: int) -> list[str]:
    """Fields of replicas that have not told of themselves for a minute."""
    return [name for name, text in reports.items() if now_ms - Report.decode(text).at_ms > 60_000]
