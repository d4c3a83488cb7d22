"""Ranks hydrated candidates by the probability that the user takes them.

Shape letters: K candidates of one request, B candidates of all requests, F features, L history.
"""

from collections.abc import Sequence

import numpy as np
import torch
from pydantic import Field

from tastemaker.config import Strict
from tastemaker.errors import CompatibilityError
from tastemaker.features.columns import share_of_history
from tastemaker.features.ranking_data import Bag
from tastemaker.features.ranking_items import RankingItems
from tastemaker.models.calibration import Calibration
from tastemaker.models.dlrm import Dlrm
from tastemaker.models.tables import jagged
from tastemaker.types import Candidates, Float32, Query


class RankingConfig(Strict):
    """What of the history the ranker's tables see; training and serving must agree on it."""

    half_life: float = Field(5.0, gt=0, description="items back in the history where weight is half")
    recent: int = Field(10, ge=1, description="newest items whose tags, years and categories are read")


def candidate_bags(
    items: RankingItems, query: Query, candidates: Candidates, config: RankingConfig
) -> dict[str, Bag]:
    """The ranker's table rows for one request, one bag of each feature per candidate."""
    recent_L = query.history_L[-config.recent :]
    share_L = share_of_history(len(recent_L), config.half_life)
    return items.candidate_bags(candidates.item_index, recent_L, share_L)


class Ranking:
    """Scores candidates with the DLRM and sorts them. Thread-safe.

    Args:
        model: In `eval()` mode.
        calibration: Makes its logits probabilities.
        items: What the items are.
        feature_names: What hydration gives; must be what the model was trained on.
        config: What of the history the tables see.

    Raises:
        CompatibilityError: The model was trained on other features, or tables of another size.
    """

    def __init__(
        self,
        model: Dlrm,
        calibration: Calibration,
        items: RankingItems,
        feature_names: Sequence[str],
        config: RankingConfig | None = None,
    ) -> None:
        if tuple(feature_names) != model.config.dense_features:
            raise CompatibilityError(
                "features of the ranker", value=list(feature_names), limit=list(model.config.dense_features),
                mend="train the ranker with these sources and this hydration",
            )  # fmt: skip
        schema = items.columns.schema
        have = (schema.num_tags, schema.num_years, schema.num_categories)
        want = (model.config.num_tags, model.config.num_years, model.config.num_categories)
        if have != want:
            raise CompatibilityError(
                "tags, years and categories of the catalogue", value=have, limit=want,
                mend="train the ranker with this feature schema",
            )  # fmt: skip
        self.config = config or RankingConfig()
        self._model, self._calibration, self._items = model.eval(), calibration, items

    def __call__(self, queries: Sequence[Query], candidates: Sequence[Candidates]) -> list[Candidates]:
        """The candidates under their probabilities, best first; ties by item_index."""
        return [
            found.with_score(self._calibration(logit_K)).sorted()
            for found, logit_K in zip(candidates, self.logits(queries, candidates), strict=True)
        ]

    def logits(self, queries: Sequence[Query], candidates: Sequence[Candidates]) -> list[Float32]:
        """The model's logits (K,) of each request, before calibration."""
        return [
            self._logits(query, found) if len(found) else np.empty(0, np.float32)
            for query, found in zip(queries, candidates, strict=True)
        ]

    def _logits(self, query: Query, found: Candidates) -> Float32:
        features_KF = found.features_KF
        assert features_KF is not None, "hydrate first"
        bags = candidate_bags(self._items, query, found, self.config)
        with torch.inference_mode():
            logit_K: Float32 = self._model(torch.from_numpy(features_KF), jagged(bags)).numpy()
        return logit_K
