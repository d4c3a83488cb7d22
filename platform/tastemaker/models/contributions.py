"""What each input of a model adds to the output of one row, beside what the model says of the rows that it competes with.

Numbers alone: without torch, which gateways do not load. Shape letters: K rows that compete, X inputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tastemaker.errors import DataError
from tastemaker.types import Float64

TOLERANCE: Final = 0.01
"""Of what is to be explained, or of 1 where that is more: what may be left unexplained without trying more points."""


@dataclass(frozen=True, slots=True)
class Contributions:
    """`base`, what each feature adds, and `rest` add up to a row's output; `base` is the rows' mean output, or that of a sample of them.

    `rest` is the error of an integral that was summed at points, for trees that of rounding.
    """

    base: float
    by_feature: Mapping[str, float]
    rest: float

    @property
    def output(self) -> float:
        """The row's output."""
        return self.base + sum(self.by_feature.values()) + self.rest

    @property
    def is_explained(self) -> bool:
        """Whether `rest` is within `TOLERANCE`."""
        return abs(self.rest) <= TOLERANCE * max(1.0, abs(self.output - self.base))

    def scaled(self, slope: float, intercept: float) -> "Contributions":
        """Those to `slope * output + intercept`.

        >>> Contributions(1.0, {"price": 2.0}, 0.0).scaled(0.5, 3.0)
        Contributions(base=3.5, by_feature={'price': 1.0}, rest=0.0)
        """
        by_feature = {name: slope * value for name, value in self.by_feature.items()}
        return Contributions(slope * self.base + intercept, by_feature, slope * self.rest)


def require_row(num_rows: int, at: int) -> None:
    """Passes where there is such a row.

    Raises:
        DataError: There is none.
    """
    if not 0 <= at < num_rows:
        raise DataError("row to explain", value=at, limit=f"0 to {num_rows - 1}", mend="name one of the rows")


def summed(of_input_X: Float64, names: Sequence[str], base: float, output: float) -> Contributions:
    """Contributions of inputs added up by feature.

    Args:
        of_input_X: What each input adds to a row's output, beside the mean of the rows.
        names: Of each input the feature whose it is.
        base: That mean.
        output: The row's output.
    """
    by_feature: dict[str, float] = {}
    for name, value in zip(names, of_input_X.tolist(), strict=True):
        by_feature[name] = by_feature.get(name, 0.0) + value
    return Contributions(base, by_feature, output - base - sum(by_feature.values()))
