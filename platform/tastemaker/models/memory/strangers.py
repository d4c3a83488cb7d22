"""What models that know people by their history alone say to those who have none.

Shape letters: B askers, I items, J items of a range.
"""

from abc import abstractmethod
from collections.abc import Callable

import numpy as np
import scipy.sparse as sp

from tastemaker.models.log import Askers
from tastemaker.models.recommender import Recommender
from tastemaker.types import Bool, Float32


class ByHistory(Recommender):
    """Scores by the history; where there is none, the share of users who have each item."""

    popular_I: Float32
    """By item."""

    @abstractmethod
    def personal_scores(self, askers: Askers) -> Float32:
        """(B, I) for those who have a history; of others whatever."""

    def scores(self, askers: Askers) -> Float32:
        """See `Recommender.scores`."""
        score_BI = self.personal_scores(askers)
        score_BI[self._empty(askers)] = self.popular_I
        return score_BI

    def scores_of(self, askers: Askers, vector_ID: Float32 | None) -> Callable[[slice], Float32]:
        """See `Recommender.scores_of`."""
        found, empty_B = super().scores_of(askers, vector_ID), self._empty(askers)

        def of(items: slice) -> Float32:
            score_BJ = found(items)
            score_BJ[empty_B] = self.popular_I[items]
            return score_BJ

        return of

    def _empty(self, askers: Askers) -> Bool:
        """(B,) who has no item that is known."""
        place_N, _, _ = askers.taken(self.num_items)
        empty_B: Bool = np.bincount(place_N, minlength=len(askers)) == 0
        return empty_B


def popularity_of(taken_UI: sp.csr_matrix) -> Float32:
    """(I,) share of users who have each item."""
    count_I = np.bincount(taken_UI.indices, minlength=taken_UI.shape[1])
    share_I: Float32 = (count_I / max(taken_UI.shape[0], 1)).astype(np.float32)
    return share_I
