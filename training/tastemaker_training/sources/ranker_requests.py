"""The requests that the ranker learns from: what users would have asked at their first held-out event. Not who fits it.

Shape letter: K candidates.
"""

from dataclasses import dataclass, replace

import numpy as np

from tastemaker.data.schema import Dataset
from tastemaker.data.splits import Split
from tastemaker.features.context import device_context
from tastemaker.features.impressions import Slots
from tastemaker.features.outcomes import Outcomes
from tastemaker.features.ranking_batch import POSITION, Bag
from tastemaker.features.ranking_data import RankingData
from tastemaker.stages.hydration import RequestFeatures
from tastemaker.stages.pipeline_config import PipelineConfig
from tastemaker.stages.ranking import candidate_bags
from tastemaker.terminal import progress
from tastemaker.types import Candidates, Int32, Int64, Query
from tastemaker_training.sources.click_weights import ClickWeights
from tastemaker_training.sources.fitted import Fitted

_AT_ONCE = 64


@dataclass(frozen=True)
class RankerRequests:
    """One request for each user of whom validation holds something.

    Args:
        config: Of the stages that make candidates and their features.
        dataset: Whose users.
        split: What is held out.
        outcomes: What became of the items that validation holds.
        slots: Where candidates were shown; None where nothing is learned from it.
        click_weights: How much each click counts; None where all count alike.
    """

    config: PipelineConfig
    dataset: Dataset
    split: Split
    outcomes: Outcomes
    slots: Slots | None
    click_weights: ClickWeights | None = None

    def gather(self, fitted: Fitted, request_features: RequestFeatures | None) -> RankingData:
        """Candidates of sources that have not seen validation, labelled by what validation holds.

        Args:
            fitted: The sources' fit on train.
            request_features: As of the requests' moments; None where the config names none.

        Raises:
            DataError: No candidate was taken.
            ExperimentError: Examination is to be learned from them, and no click has a known slot.
        """
        retrieval, hydration = fitted.retrieval(self.config), fitted.hydration(self.config, request_features)
        users = np.flatnonzero(self.split.validation.lengths > 0).tolist()
        candidates: list[Candidates] = []
        bags: list[dict[str, Bag]] = []
        with progress("gathering the ranker's requests", len(users)) as advance:
            for start in range(0, len(users), _AT_ONCE):
                block = users[start : start + _AT_ONCE]
                queries = [self.query(user) for user in block]
                found = hydration(queries, retrieval(queries))
                bags += [
                    candidate_bags(fitted.items, q, c, self.config.ranking, self.slots_of(user, c.item_index))
                    for user, q, c in zip(block, queries, found, strict=True)
                ]
                candidates += found
                advance(len(block))
        taken = [self.split.validation[user] for user in users]
        data = RankingData.build(candidates, bags, taken, [self.outcomes[user] for user in users])
        return data if self.click_weights is None else self._weighed(data, candidates, bags)

    def _weighed(
        self, data: RankingData, candidates: list[Candidates], bags: list[dict[str, Bag]]
    ) -> RankingData:
        assert self.click_weights is not None, "asked for"
        item_N = np.concatenate([found.item_index for found in candidates])
        slot_N = np.concatenate([mine[POSITION].values for mine in bags])
        return replace(data, weight_N=self.click_weights(data, item_N, slot_N))

    def query(self, user: int) -> Query:
        """What the user's first held-out event would have asked: when, and from what device."""
        held_out = self.split.validation
        return Query(
            self.split.train[user],
            user_id=self.dataset.user_ids[user],
            context=device_context(int(held_out.device_rows(user)[0])),
            now_ms=held_out.first_time_ms(user),
        )

    def slots_of(self, user: int, item_K: Int32) -> Int64 | None:
        """Slots (K,) of candidates, 0 where they were not shown."""
        return None if self.slots is None else self.slots(user, item_K)
