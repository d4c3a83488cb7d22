"""How a bandit forgets: not at all, by a half life, or by a rolling window. What of a sum is stored under which name, and what it weighs now.

Sums are never touched again once they are written, so that those of partitions add up. Under a half life h the reward of time t weighs
`2^((t - l) / h)`, with l the landmark, the beginning of an era of `ERA_HALF_LIVES` half lives: weights grow towards the present instead of
shrinking into the past [Cormode, Shkapenyuk, Srivastava & Xu 2009, forward decay]; a reader divides by the weight of the newest reward. Under a
window each epoch has sums of its own, and a reader adds up those of the newest epochs, the one under way included: of the rewards in
them that is exact.
"""

from dataclasses import dataclass
from typing import Final, Protocol

ERA_HALF_LIVES: Final = 64
_MOST_HALF_LIVES: Final = 900.0
_NOTHING_HALF_LIVES: Final = 64
"""Of what is so old no double knows beside a whole count."""


class Forgetting(Protocol):
    """What is known is about rewards of a time before now, which is the newest reward's."""

    def stored(self, at_ms: int) -> tuple[str, float]:
        """Behind which name the reward of a time is added up, and with what weight."""

    def weight(self, suffix: str, newest_ms: int) -> float:
        """What the sums behind a name count for now; 0 of those that are forgotten, or another way's."""

    def is_over(self, suffix: str, newest_ms: int) -> bool:
        """Whether sums behind a name need not be kept: forgotten for ever, or another way's. Not those without a name."""


@dataclass(frozen=True, slots=True)
class HalfLife:
    """A reward of so many seconds ago counts half."""

    seconds: float

    def stored(self, at_ms: int) -> tuple[str, float]:
        """See `Forgetting`."""
        era = int(at_ms // (1000 * self.seconds * ERA_HALF_LIVES))
        return f"~{self.seconds!r}.{era}", self._grown(at_ms, era)

    def weight(self, suffix: str, newest_ms: int) -> float:
        """See `Forgetting`."""
        half_life, _, era = suffix.removeprefix("~").rpartition(".")
        if not suffix.startswith("~") or float(half_life) != self.seconds:
            return 0.0
        return 1 / self._grown(newest_ms, int(era))

    def is_over(self, suffix: str, newest_ms: int) -> bool:
        """See `Forgetting`; of an era whose last reward counts 2^-64 of the newest or less.

        >>> minute = HalfLife(60.0)
        >>> [minute.is_over("~60.0.0", half_lives * 60_000) for half_lives in (0, 127, 128)]
        [False, False, True]
        """
        half_life, _, era = suffix.removeprefix("~").rpartition(".")
        if not suffix.startswith("~") or float(half_life) != self.seconds:
            return bool(suffix)
        end_ms = (int(era) + 1) * ERA_HALF_LIVES * self.seconds * 1000
        return newest_ms - end_ms >= _NOTHING_HALF_LIVES * self.seconds * 1000

    def _grown(self, at_ms: int, era: int) -> float:
        """Of time `at_ms` by the landmark of `era`, from 1 to 2^64 within it; what is older than 900 half lives has no weight left."""
        half_lives = at_ms / (1000 * self.seconds) - era * ERA_HALF_LIVES
        return float(2.0 ** max(-_MOST_HALF_LIVES, min(half_lives, _MOST_HALF_LIVES)))


@dataclass(frozen=True, slots=True)
class Window:
    """The rewards of the newest `num_epochs` epochs of so many seconds count, each the same, and no others."""

    epoch_seconds: int
    num_epochs: int

    def stored(self, at_ms: int) -> tuple[str, float]:
        """See `Forgetting`.

        >>> Window(60, 5).stored(130_000)
        ('@60.2', 1.0)
        """
        return f"@{self.epoch_seconds}.{self._epoch(at_ms)}", 1.0

    def weight(self, suffix: str, newest_ms: int) -> float:
        """See `Forgetting`.

        >>> [Window(60, 2).weight(f"@60.{epoch}", 130_000) for epoch in (0, 1, 2)]
        [0.0, 1.0, 1.0]
        """
        return float(self._age(suffix, newest_ms) < self.num_epochs)

    def is_over(self, suffix: str, newest_ms: int) -> bool:
        """See `Forgetting`; of an epoch that is older than the window, or of another length."""
        return bool(suffix) and self._age(suffix, newest_ms) >= self.num_epochs

    def _age(self, suffix: str, newest_ms: int) -> float:
        """In epochs; endless where the name is not of such epochs."""
        length, _, epoch = suffix.removeprefix("@").rpartition(".")
        if not suffix.startswith("@") or length != str(self.epoch_seconds):
            return float("inf")
        return self._epoch(newest_ms) - int(epoch)

    def _epoch(self, at_ms: int) -> int:
        return at_ms // (1000 * self.epoch_seconds)
