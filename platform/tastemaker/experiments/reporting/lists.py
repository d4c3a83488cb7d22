"""What all decisions of a log showed: item numbers, one list behind the other, in the narrowest numbers."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tastemaker.experiments.reporting.narrow import Narrow, wide
from tastemaker.types import Int64


@dataclass(frozen=True, slots=True)
class Lists:
    """Lists by number, from 0.

    `items` are the ids of the items that occur, in the order in which they first did; `item_S` are numbers of them, those of list l from
    `start_L[l]` to `start_L[l + 1]`.
    """

    items: Any
    start_L: Narrow
    item_S: Narrow

    def items_of(self, lists: Narrow) -> tuple[Narrow, Int64]:
        """The items of some lists, one list behind the other, and how many each has."""
        number = wide(lists)
        start = wide(self.start_L[number])
        lengths = wide(self.start_L[number + 1]) - start
        before = np.cumsum(lengths) - lengths
        places = np.repeat(start - before, lengths) + np.arange(int(lengths.sum()))
        return self.item_S[places], lengths
