"""How much each click of the ranker's data counts: what position and popularity added to it is taken away.

Shape letters: N candidates of all requests, I items.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any

import numpy as np

from tastemaker.config import Settings
from tastemaker.data.splits import Split
from tastemaker.features.ranking_data import RankingData
from tastemaker.home import Home
from tastemaker.offpolicy.examination import Examination, popularity_weights
from tastemaker.offpolicy.judging import Span
from tastemaker.offpolicy.position_bias import examination_by_em
from tastemaker.offpolicy.slots import measure_examination
from tastemaker.types import Float32, Float64, Int32, Int64
from tastemaker_training.plan.fit_config import ClickWeightsConfig

_WINDOW_MS = 1_800_000


@dataclass(frozen=True)
class ClickWeights:
    """Weighs the candidates of the ranker's requests.

    Args:
        config: What is made up for.
        interactions_I: Of each item, before the requests.
        examination: Of slots; None where EM is to find it in the requests, or positions are not made up for.
    """

    config: ClickWeightsConfig
    interactions_I: Float64
    examination: Examination | None = None

    @classmethod
    def of(
        cls, settings: Settings, home: Home, config: ClickWeightsConfig, split: Split, num_items: int
    ) -> "ClickWeights | None":
        """What a recipe asks for; None where all clicks count alike.

        Raises:
            ExperimentError: The decision log has too few clicks in slots that luck decided.
            DataError: The file or the log cannot be read.
        """
        if not config.weighs:
            return None
        counts_I = np.bincount(split.train.item_index, minlength=num_items).astype(np.float64)
        examination = None
        if config.position == "file":
            examination = Examination.load(Path(str(config.file)))
        elif config.position == "randomised":
            span = Span.days(config.days, int(time() * 1000), _WINDOW_MS)
            examination, _ = measure_examination(settings, home, span)
        return cls(config, counts_I, examination)

    @property
    def key(self) -> Mapping[str, Any]:
        """What the weights depend on beside the requests."""
        told = self.examination
        return {
            "config": self.config.model_dump(mode="json", exclude={"file", "days"}),
            "examination": None if told is None else told.probability_K.tolist(),
        }

    def __call__(self, data: RankingData, item_N: Int32, slot_N: Int64) -> Float32:
        """The weight (N,) of each candidate, should it be a click.

        Args:
            data: The requests; their dense features foretell interest where EM is asked for.
            item_N: Each candidate's item.
            slot_N: Where it was shown, from 1; 0 where that is unknown.

        Raises:
            ExperimentError: EM is asked for and there are no clicks in known slots.
        """
        weight_N = np.ones(len(item_N), np.float32)
        if self.config.position != "none":
            told = self.examination or examination_by_em(
                slot_N, data.clicks.astype(np.float64), data.dense_NF.astype(np.float64)
            )
            weight_N *= told.weights(slot_N, self.config.least_examination)
        if self.config.popularity > 0:
            weight_N *= popularity_weights(self.interactions_I[item_N], self.config.popularity)
        return weight_N
