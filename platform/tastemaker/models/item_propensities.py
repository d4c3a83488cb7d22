"""How likely items were to be seen, as fits of recommenders take it: guessed from what is popular, or given.

Where the mathematics of a correction holds is said at each model that takes it (`ease`, `ials`, `bpr`). Click models take a propensity of each
row instead (`ctr.model`); losses by propensities are in `propensity_losses`.

Shape letters: I items.
"""

from typing import Any, Self

import numpy as np
from pydantic import Field, model_validator

from tastemaker.errors import DataError
from tastemaker.models.log import Log
from tastemaker.strict import Strict
from tastemaker.types import Float32, Float64, Int64


def popularity_propensity(count_I: Int64, power: float) -> Float64:
    """(I,) the chance of an item to be seen, up to a factor: (its count / the largest) ** ((power + 1) / 2), above 0.

    [Yang et al. 2018, Eq. 7]; power 0 is half as steep as the counts, 1 as steep. An item that nobody took counts as one that one did.

    >>> popularity_propensity(np.array([100, 25, 0]), power=0.0).tolist()
    [1.0, 0.5, 0.1]

    Raises:
        DataError: A power below 0.
    """
    if power < 0:
        raise DataError("power of popularity", value=power, limit="0 or more", mend="correct it")
    share_I = np.maximum(count_I, 1) / max(int(count_I.max(initial=1)), 1)
    chance_I: Float64 = share_I ** ((power + 1) / 2)
    return chance_I


def given_propensity(log: Log, column: str) -> Float64:
    """(I,) the chance of an item to be seen, as a column of the log's items says.

    Raises:
        DataError: The log's items have no such column, or a value in it is no propensity.
    """
    if log.items is None or column not in log.items.column_names:
        mend = "import a table of items with a column `propensity`, and name that"
        raise DataError("a log's column of propensities", value=column, mend=mend)
    found: Any = log.items[column]
    chance_I: Float64 = found.to_numpy().astype(np.float64)
    if not ((chance_I > 0) & (chance_I <= 1)).all():  # NaN fails both
        wrong = int((~((chance_I > 0) & (chance_I <= 1))).sum())
        raise DataError(
            f"propensities in column {column} that are none, or out of range", value=wrong,
            limit="each item's, above 0 and at most 1", mend="correct them in the table of items, and import it again",
        )  # fmt: skip
    return chance_I


class ItemPropensity(Strict):
    """How likely each item was to be seen, whoever would have taken it."""

    power: float | None = Field(
        None, ge=0, description="guessed: (count / largest count) ** ((power + 1) / 2)"
    )
    column: str | None = Field(
        None,
        min_length=1,
        description="given: a column of the log's items, such as an import's `propensity`, above 0 and at most 1",
    )
    least: float = Field(0.05, gt=0, le=1, description="propensities below this count as this")

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.power is None) == (self.column is None):
            raise ValueError("power or column, one of them")
        return self

    def weights(self, log: Log) -> Float32:
        """(I,) 1 / propensity, over its mean over who has what in the log: the self-normalised estimator.

        Raises:
            DataError: The log's items have no such column, or a value in it is no propensity.
        """
        count_I = np.bincount(log.matrix().indices, minlength=log.num_items)
        chance_I = (
            popularity_propensity(count_I, self.power)
            if self.power is not None
            else given_propensity(log, str(self.column))
        )
        weight_I = 1.0 / np.maximum(chance_I, self.least)
        mean = float(weight_I @ count_I) / count_I.sum() if count_I.any() else 1.0
        return np.asarray(weight_I / mean, np.float32)
