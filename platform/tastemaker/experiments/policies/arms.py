"""What a policy without context knows of an arm: how many rewards, their sum and the sum of their squares."""

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Arm:
    """Sufficient statistics of the rewards of one arm; discounted ones are real numbers.

    Statistics of parts add up to those of the whole:

    >>> Arm.of([1.0, 0.0]) + Arm.of([3.0]) == Arm.of([1.0, 0.0, 3.0])
    True
    """

    count: float = 0.0
    total: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, rewards: list[float]) -> Self:
        """Those of some rewards, each counting 1."""
        return cls(float(len(rewards)), sum(rewards), sum(reward * reward for reward in rewards))

    def __add__(self, other: "Arm") -> "Arm":
        return Arm(self.count + other.count, self.total + other.total, self.squares + other.squares)

    def times(self, number: float) -> "Arm":
        """As if each reward had come so often: the same mean, known better (posterior reshaping, [Chapelle & Li 2011, section 4]).

        >>> Arm.of([1.0, 3.0]).times(2.0)
        Arm(count=4.0, total=8.0, squares=20.0)
        """
        return self if number == 1 else Arm(self.count * number, self.total * number, self.squares * number)

    @property
    def mean(self) -> float:
        """Mean reward; 0 without any."""
        return self.total / self.count if self.count > 0 else 0.0

    @property
    def deviations(self) -> float:
        """Sum of squared deviations from the mean, never negative; 0 without any reward.

        >>> Arm.of([1.0, 3.0]).deviations  # mean 2: 1 + 1
        2.0
        """
        return max(0.0, self.squares - self.total * self.mean)
