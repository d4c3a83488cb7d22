"""What a contract tries: a kind of model, how it is set, in which world, and who asks it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from tastemaker.models.log import NOBODY, Askers, Log
from tastemaker.models.recommender import Recommender
from tastemaker.models.zoo import Packed, model_class
from tastemaker.testing.saved import written_and_read
from tastemaker.testing.worlds import Stars, Tastes
from tastemaker.types import Int32

_SEED = 7


@dataclass
class Case:
    """A kind of model, and how it is set for small logs.

    Args:
        kind: Of the zoo, or any name for a model of your own.
        settings: What of its config differs from the defaults.
        floor: Share of the best possible hit rate (of lists that do not heed order) that it must reach; None: that of the items
            most often taken is enough.
        is_ordered: Whether its lists depend on the order of a history, so that its floor is a share of the best that do.
        model: A class that is not of the zoo; unset, the kind's.
        keeps_histories: Whether strangers are answered by the histories of others, so that what is released has rows of users.
    """

    kind: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    floor: float | None = 0.8
    is_ordered: bool = False
    model: type[Recommender] | None = None
    keeps_histories: bool = False

    @property
    def model_class(self) -> type[Recommender]:
        """What is tried."""
        return self.model or model_class(self.kind)

    @cached_property
    def world(self) -> Tastes | Stars:
        """Which it is tried in."""
        return Stars.of(_SEED) if self.model_class.predicts_values else Tastes.of(_SEED)

    @cached_property
    def fitted(self) -> Recommender:
        """On that world's log."""
        return self.fit(self.world.log)

    def fit(self, log: Log) -> Recommender:
        """On another log."""
        config = self.model_class.Config.parse(self.settings, f"model {self.kind}")
        return self.model_class.fit(log, config)

    def read_again(self, model: Recommender) -> Recommender:
        """What comes of a model that is written as a bundle's tensor file and JSON."""
        config, tensors = written_and_read(Packed(model))
        if self.model is not None:
            return self.model.from_state(config["model"], tensors)
        return Packed.from_state(config, tensors)

    @cached_property
    def askers(self) -> Askers:
        """Some who were in the log, and some who were not."""
        known = Askers.known(self.world.log, np.arange(12, dtype=np.int32))
        strange = [known.histories[0], rows(), rows(3), rows(5, 1, 4)]
        return Askers(
            np.append(known.row_B, np.full(len(strange), NOBODY)).astype(np.int32),
            [*known.histories, *strange],
            [*(known.values or ()), *(np.full(len(one), np.nan, np.float32) for one in strange)],
            None
            if known.attributes is None
            else pa.concat_tables([known.attributes, known.attributes[: len(strange)]]),
        )


def rows(*item: int) -> Int32:
    """A history, or items asked for."""
    return np.array(item, np.int32)
