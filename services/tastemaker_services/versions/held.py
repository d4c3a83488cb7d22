"""The bundle versions that one process holds: what is live, what was until a moment ago, and the champion before.

The gateway sends a request only to versions that every replica has told of, see `registry.reports`.
"""

import logging
import time
from collections.abc import Iterator
from typing import Final, Generic, TypeVar

from tastemaker import telemetry
from tastemaker.errors import BundleError, CompatibilityError, IntegrityError
from tastemaker.registry.live import CHAMPION, LiveAliases, LiveVersion
from tastemaker_services.versions.rehearsal import UnfitError

POLL_SECONDS: Final = 0.5
DRAIN_SECONDS: Final = 60.0
"""How long what is live no longer is held for requests under way: longer than any deadline."""
RETRY_SECONDS: Final = 30.0
"""A bundle that was refused is tried again after this time: its storage may have been at fault."""

T = TypeVar("T")
log = logging.getLogger(__name__)


class Versions(Generic[T]):
    """Loaded bundle versions by manifest hash. One thread changes them; any may `get`.

    Args:
        catalogue: For the count of refused bundles.
        keep_seconds: How long the champion before this one is held, so that a rollback need load nothing.
    """

    def __init__(self, catalogue: str, keep_seconds: float = 0.0) -> None:
        self._catalogue, self._keep_seconds = catalogue, keep_seconds
        self._held: dict[str, T] = {}
        self._unused_since: dict[str, float] = {}
        self._previous: tuple[str, float] | None = None
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

    def missing(self, live: LiveAliases | None) -> LiveVersion | None:
        """What to load next: the champion before others, what is kept for a rollback last; None where nothing is.

        What was refused is missing again only after `RETRY_SECONDS`, and never where it is kept for a rollback alone: it may be
        what was rolled back from.
        """
        aliases = {version.sha256 for version in live.aliases.values()} if live else set()
        for version in self._wanted(live):
            again = version.sha256 in aliases or version.sha256 not in self._refused
            if again and self._may_load(version.sha256):
                return version
        return None

    def hold(self, version: LiveVersion, loaded: T) -> None:
        """Takes a version that was loaded."""
        self._held[version.sha256] = loaded
        self._refused.pop(version.sha256, None)

    def refuse(self, version: LiveVersion, error: Exception) -> None:
        """Notes that a version cannot be loaded, or is not fit to answer; what answers now goes on."""
        log.warning("refused bundle version %d", version.version, exc_info=error)
        telemetry.BUNDLE_REFUSED.labels(self._catalogue, refusal_of(error)).inc()
        self._refused[version.sha256] = time.monotonic(), f"{type(error).__name__}: {error}"

    def drop(self, sha256: str) -> None:
        """Drops a version at once; where it is live, it is missing then."""
        self._held.pop(sha256, None)
        self._unused_since.pop(sha256, None)

    def retire(self, live: LiveAliases | None) -> bool:
        """Drops what has long not been wanted; whether anything was."""
        wanted = {version.sha256 for version in self._wanted(live)}
        now, dropped = time.monotonic(), False
        for sha256 in self.held:
            if sha256 in wanted:
                self._unused_since.pop(sha256, None)
            elif now - self._unused_since.setdefault(sha256, now) >= DRAIN_SECONDS:
                self.drop(sha256)
                dropped = True
        for sha256 in set(self._refused) - wanted:
            del self._refused[sha256]
        return dropped

    def _wanted(self, live: LiveAliases | None) -> Iterator[LiveVersion]:
        if live is None:
            return
        yield from (version for _, version in sorted(live.aliases.items(), key=_champion_first))
        if live.previous is not None and self._is_kept(live.previous.sha256):
            yield live.previous

    def _is_kept(self, sha256: str) -> bool:
        if self._previous is None or self._previous[0] != sha256:
            self._previous = sha256, time.monotonic()
        return time.monotonic() - self._previous[1] < self._keep_seconds

    def _may_load(self, sha256: str) -> bool:
        if sha256 in self._held:
            return False
        return sha256 not in self._refused or time.monotonic() - self._refused[sha256][0] >= RETRY_SECONDS


def _champion_first(named: tuple[str, LiveVersion]) -> tuple[bool, str]:
    return named[0] != CHAMPION, named[0]


def refusal_of(error: Exception) -> str:
    """The kind of an error for the metric, see `telemetry.REFUSALS`."""
    if isinstance(error, UnfitError):
        return telemetry.bounded(error.kind, telemetry.REFUSALS)
    kinds = ((IntegrityError, "corrupt"), (CompatibilityError, "incompatible"), (BundleError, "unreadable"))
    return next((name for kind, name in kinds if isinstance(error, kind)), "other")
