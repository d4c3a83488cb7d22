"""What a gate is: a name, what its answer depends on, and a function that looks at one case."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field

from tastemaker.bundle.reader import Bundle
from tastemaker.config import Settings
from tastemaker.config_experiments import PromotionSettings
from tastemaker.home import Home
from tastemaker.state.connection import connect, open_keys, url_of
from tastemaker.state.keys import Keys
from tastemaker.strict import Kept

if TYPE_CHECKING:
    import redis

Outcome = Literal["passed", "refused", "waiting", "not applicable"]
_HOUR_MS: Final = 3_600_000


class GateResult(Kept):
    """What one gate said: the figure it looked at, the bound, and why.

    A gate that lacks what it would look at is not applicable; `reason` says what it lacks. One that waits has begun something
    that takes time.
    """

    name: str = Field(description="of the gate")
    outcome: Outcome = Field(description="passed, refused, waiting or not applicable")
    value: float | None = Field(None, description="the figure that decided")
    limit: float | None = Field(None, description="its bound")
    reason: str = Field("", description="in words, with units")
    numbers: dict[str, float] = Field(default_factory=dict, description="further figures, by name")
    key: str = Field("", description="hash of what the answer depends on")
    at_ms: int = Field(0, description="when it was asked")

    def is_valid(self, key: str, now_ms: int, valid_hours: float) -> bool:
        """Whether the answer stands and need not be asked again: it passed, on the same things, not long ago."""
        is_young = 0 <= now_ms - self.at_ms <= valid_hours * _HOUR_MS
        return self.outcome == "passed" and bool(key) and self.key == key and is_young


@dataclass(frozen=True)
class Case:
    """One version that wants an alias, and what it is measured against.

    `no_champion` says why there is no other champion to compare with. `number` is the version's, `champion_number` the
    champion's. `may_begin` lets gates begin what takes time; `again` has them begin anew what ended with a refusal. `shared` is
    what gates of one promotion have in common.
    """

    settings: Settings
    home: Home
    number: int
    alias: str
    candidate: Bundle
    champion: Bundle | None = None
    champion_number: int | None = None
    no_champion: str = "there is no other champion to compare with"
    may_begin: bool = True
    again: bool = False
    shared: dict[str, Any] = field(default_factory=dict)
    now_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)

    @property
    def limits(self) -> PromotionSettings:
        """What gates hold versions to."""
        return self.settings.promotion

    @contextmanager
    def state(self) -> Iterator[tuple["redis.Redis", Keys]]:
        """A connection to the state, with the catalogue's keys.

        Raises:
            StateError: Nothing answers there.
        """
        with connect(url_of(self.settings, self.home)) as client:
            yield client, open_keys(client, self.settings)


@dataclass(frozen=True)
class Gate:
    """One question.

    Args:
        name: Stays: results are kept under it.
        ask: Answers; an error other than a `TastemakerError` is a fault of ours.
        keys: Fields of `promotion` that the answer depends on.
        compares: The champion decides with.
        for_users: Asked only of a version that users are to see all: alias champion.
    """

    name: str
    ask: Callable[[Case], GateResult]
    keys: tuple[str, ...] = ()
    compares: bool = False
    for_users: bool = False

    def key(self, case: Case) -> str:
        """Hash of all that the answer depends on but the time."""
        settings = case.limits.model_dump(mode="json", include=set(self.keys))
        champion = case.champion.ref.sha256 if self.compares and case.champion else None
        known = json.dumps([self.name, case.candidate.ref.sha256, champion, settings], sort_keys=True)
        return hashlib.sha256(known.encode()).hexdigest()[:16]


def passed_if(passed: bool) -> Outcome:
    """The outcome of a gate that has what it looks at."""
    return "passed" if passed else "refused"
