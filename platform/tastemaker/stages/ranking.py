"""Ranks hydrated candidates by the probability that the user takes them, or by what else they are worth.

Shape letters: K candidates of one request, F features, T targets, L history.
"""

from collections.abc import Sequence
from typing import ClassVar, Final

import numpy as np
from pydantic import Field, field_validator

from tastemaker.errors import CompatibilityError
from tastemaker.features.columns import HISTORY, ITEM, share_of_history
from tastemaker.features.context import CONTEXT_TABLES, context_bags, query_rows
from tastemaker.features.ranking_batch import POSITION, Bag
from tastemaker.features.ranking_data import CLICK, Target
from tastemaker.features.ranking_items import RankingItems
from tastemaker.models.calibration import Calibration
from tastemaker.models.contributions import Contributions
from tastemaker.models.dlrm import MAX_POSITION
from tastemaker.models.rankers import Ranker
from tastemaker.strict import Strict
from tastemaker.types import Candidates, Float32, Int32, Int64, Query

_NOWHERE: Final = Bag.singles(np.zeros(1, np.int64))


class RankingConfig(Strict):
    """What of the history the ranker's tables see, on which training and serving must agree; and what counts how much."""

    LATER: ClassVar = frozenset({"item_ids"})

    half_life: float = Field(5.0, gt=0, description="items back in the history where weight is half")
    recent: int = Field(10, ge=1, description="newest items whose tags, years and categories are read")
    item_ids: bool = Field(
        False,
        description="whether the ranker knows candidates and these items by id; not the DLRM, and new items wait for a training",
    )
    score_weights: dict[Target, float] = Field(
        default_factory=lambda: {CLICK: 1.0},
        description="weights of the targets in the score, a weighted mean",
    )

    @field_validator("score_weights")
    @classmethod
    def _positive(cls, weights: dict[Target, float]) -> dict[Target, float]:
        if not weights or min(weights.values()) <= 0:
            raise ValueError("at least one target, each with a weight over 0")
        return weights


def candidate_bags(
    items: RankingItems,
    query: Query,
    candidates: Candidates,
    config: RankingConfig,
    position_K: Int64 | None = None,
) -> dict[str, Bag]:
    """All table rows that a ranker may read for one request, one bag of each feature per candidate.

    Args:
        items: What the items are.
        query: Its history, time and context are read.
        candidates: Of the request.
        config: What of the history is read.
        position_K: The slot where each candidate was shown, from 1; 0 where it was not. Unset, as in serving: nowhere.
    """
    num = len(candidates)
    position_K = np.zeros(num, np.int64) if position_K is None else np.minimum(position_K, MAX_POSITION)
    return {
        **item_bags(items, candidates.item_index, config),
        **{name: bag.times(num) for name, bag in query_bags(items, query, config).items()},
        POSITION: Bag.singles(position_K),
    }


def item_bags(items: RankingItems, item_K: Int32, config: RankingConfig) -> dict[str, Bag]:
    """What of `candidate_bags` says what the candidates are."""
    found = items.item_bags(item_K)
    return found | {ITEM: Bag.singles(item_K)} if config.item_ids else found


def query_bags(items: RankingItems, query: Query, config: RankingConfig) -> dict[str, Bag]:
    """What of `candidate_bags` is the same for all candidates of a request: one bag of each such feature."""
    recent_L = query.history_L[-config.recent :]
    share_L = share_of_history(len(recent_L), config.half_life)
    found = {**items.history_bags(recent_L, share_L), **context_bags(CONTEXT_TABLES, query_rows([query]))}
    if config.item_ids:
        found[HISTORY] = Bag(recent_L.astype(np.int64), np.array([len(recent_L)]), share_L)
    return found


class Ranking:
    """Scores candidates with a ranker and sorts them. Thread-safe.

    Args:
        model: The DLRM, or a click model.
        calibration: Makes its logits probabilities.
        items: What the items are.
        feature_names: What hydration gives; must be what the model was trained on.
        config: What of the history the tables see, and what makes the score.

    Raises:
        CompatibilityError: The model was trained on other features, tables of another size or other targets.
    """

    def __init__(
        self,
        model: Ranker,
        calibration: Calibration,
        items: RankingItems,
        feature_names: Sequence[str],
        config: RankingConfig | None = None,
    ) -> None:
        if tuple(feature_names) != model.dense_features:
            raise CompatibilityError(
                "features of the ranker", value=list(feature_names), limit=list(model.dense_features),
                mend="train the ranker with these sources and this hydration",
            )  # fmt: skip
        model.require(items.columns.schema)
        self.config = config or RankingConfig()
        for target in self.config.score_weights:
            if target not in model.targets:
                raise CompatibilityError(
                    f"target {target} of ranking.score_weights", value="not predicted", limit=list(model.targets),
                    mend="train the ranker with this target, or take its weight out",
                )  # fmt: skip
        self._model, self._calibration, self._items = model, calibration, items

    def __call__(self, queries: Sequence[Query], candidates: Sequence[Candidates]) -> list[Candidates]:
        """The candidates under their scores, best first; ties by item_index.

        A score is the mean, by `score_weights`, of what each target is expected to be: the calibrated probability of a
        click, like or purchase, and for watch that of a click times the predicted log(1 + seconds).
        """
        return [
            found.with_score(self._score(self._logits(query, found))).sorted() if len(found) else found
            for query, found in zip(queries, candidates, strict=True)
        ]

    def contributions(self, query: Query, found: Candidates, row: int) -> Contributions:
        """What each feature adds to the log-odds of a click of one of the candidates, calibrated, beside their mean.

        Args:
            query: As it was ranked for.
            found: The candidates, in any order, with their features.
            row: Of the one among them.
        """
        (at,) = np.flatnonzero(found.item_index == row)
        told = self._model.contributions(*self._inputs(query, found), int(at))
        click = self._calibration.of(CLICK)
        return told.scaled(click.slope, click.intercept)

    def _logits(self, query: Query, found: Candidates) -> Float32:
        """The model's outputs (K, T), before calibration."""
        return self._model.logits(*self._inputs(query, found))

    def _inputs(self, query: Query, found: Candidates) -> tuple[Float32, dict[str, Bag]]:
        features_KF = found.features_KF
        assert features_KF is not None, "hydrate first"
        # One bag stands for all candidates: what is the request's own is looked up once.
        bags = {
            **item_bags(self._items, found.item_index, self.config),
            **query_bags(self._items, query, self.config),
            POSITION: _NOWHERE,
        }
        return features_KF, bags

    def _score(self, logit_KT: Float32) -> Float32:
        weights = self.config.score_weights
        total_K = sum(weight * self._expected(logit_KT, target) for target, weight in weights.items())
        score_K: Float32 = np.asarray(total_K / sum(weights.values()), np.float32)
        return score_K

    def _expected(self, logit_KT: Float32, target: Target) -> Float32:
        column = self._model.targets.index
        if target == "watch":
            return self._expected(logit_KT, CLICK) * np.maximum(logit_KT[:, column(target)], 0)
        return self._calibration.of(target)(logit_KT[:, column(target)])
