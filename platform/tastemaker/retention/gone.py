"""What goes, or went, and why."""

import time
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from tastemaker.config_retention import RetentionSettings

Kind = Literal[
    "version", "manifest", "blob", "rest", "run", "checkpoint", "event day", "decision day", "refused rows"
]
DAY_SECONDS: Final = 86_400


@dataclass(frozen=True, slots=True)
class Gone:
    """One thing that goes: a version's number, a file's path below its root, a run's id, a day. Bytes are 0 where unknown."""

    kind: Kind
    name: str
    why: str
    num_bytes: int = 0

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings at one moment, `now` in seconds since 1970 UTC. Of what is kept for ever there is no limit."""

    settings: RetentionSettings
    now: float

    @classmethod
    def of(cls, settings: RetentionSettings) -> "Limits":
        """As of now."""
        return cls(settings, time.time())

    @property
    def grace(self) -> float:
        """What was written from then on stays, in seconds since 1970 UTC."""
        return self.now - self.settings.grace_hours * 3600

    def since(self, days: int) -> float:
        """What is younger stays: so many days ago, or the grace period where that is longer; in seconds since 1970 UTC."""
        return min(self.now - days * DAY_SECONDS, self.grace)
