"""How likely a slot of a list is looked at, and the inverse-propensity weights that make up for it.

A click needs a look and interest: P(click) = examination of the slot times interest in the item [Craswell et al. 2008,
position-based model]. Only ratios can be told from clicks: the first slot has 1.

Shape letters: K slots, N candidates.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from tastemaker.errors import DataError
from tastemaker.home import write_json
from tastemaker.types import Float32, Float64, Int64

SCHEMA: Final = 1
LEAST: Final = 0.05
"""Weights are at most 1 / LEAST: a slot that is hardly looked at would otherwise decide all [Joachims et al. 2017, clipping]."""
Method = Literal["randomised", "em"]


@dataclass(frozen=True, slots=True)
class Examination:
    """Examination of slots from the first on, relative to it; `low_K` and `high_K` are its 95% interval, NaN where unknown."""

    probability_K: Float64
    low_K: Float64
    high_K: Float64
    method: Method

    def weights(self, slot_N: Int64, least: float = LEAST) -> Float32:
        """The weight of a click in each slot: 1 / examination; 1 where the slot is unknown (0).

        Slots below the last that is known are taken for that one.

        >>> told = Examination(np.array([1.0, 0.5]), np.ones(2), np.ones(2), "em")
        >>> told.weights(np.array([0, 1, 2, 9])).tolist()
        [1.0, 1.0, 2.0, 2.0]
        """
        examined_N = self.probability_K[np.clip(slot_N - 1, 0, len(self.probability_K) - 1)]
        weight_N = np.where(slot_N > 0, 1.0 / np.maximum(examined_N, least), 1.0)
        return weight_N.astype(np.float32)

    def save(self, path: Path) -> None:
        """Writes it as JSON."""
        arrays = {"examination": self.probability_K, "low": self.low_K, "high": self.high_K}
        found = {name: [None if np.isnan(x) else float(x) for x in array] for name, array in arrays.items()}
        write_json(path, {"schema": SCHEMA, "method": self.method} | found)

    @classmethod
    def load(cls, path: Path) -> "Examination":
        """What `save` wrote, or a list of probabilities of one's own under `examination`.

        Raises:
            DataError: The file cannot be read, or has no probabilities.
        """
        mend = 'give {"examination": [1.0, 0.6, …]}, or let `tastemaker position-bias` write it'
        try:
            content: Any = json.loads(path.read_text(encoding="utf-8"))
            probability_K = np.array(content["examination"], np.float64)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"examination file {path} cannot be read", value=str(error), mend=mend) from error
        if probability_K.ndim != 1 or not len(probability_K) or not (probability_K > 0).all():
            raise DataError(
                f"examination in {path}",
                value=str(content["examination"])[:80],
                limit="positive numbers",
                mend=mend,
            )
        unknown_K = np.full(len(probability_K), np.nan)
        low, high = (
            np.array([np.nan if x is None else x for x in content[name]], np.float64) if name in content else unknown_K
            for name in ("low", "high")
        )  # fmt: skip
        return cls(probability_K / probability_K[0], low, high, content.get("method", "randomised"))


def popularity_weights(interactions_N: Float64, exponent: float) -> Float32:
    """Weights (n + 1)^-exponent of items with n interactions, of mean 1: what is shown a lot counts less [Yang et al. 2018].

    Interactions stand for the probability of having been shown; exponent 0 weighs all alike, 1 is full inverse popularity.

    >>> (3 * popularity_weights(np.array([0.0, 3.0]), 0.5)).tolist()  # 1 and 1/2, over their mean 3/4
    [4.0, 2.0]
    """
    weight_N = (interactions_N.astype(np.float64) + 1.0) ** -exponent
    scaled_N: Float32 = (weight_N / weight_N.mean()).astype(np.float32)
    return scaled_N
