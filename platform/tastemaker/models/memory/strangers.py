"""What models that know people by their history alone say to those who have none.

Shape letters: B askers, I items.
"""

from abc import abstractmethod

import numpy as np
import scipy.sparse as sp

from tastemaker.models.log import Askers
from tastemaker.models.recommender import Recommender
from tastemaker.types import Float32


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
        place_N, _, _ = askers.taken(self.num_items)
        empty_B = np.bincount(place_N, minlength=len(askers)) == 0
        score_BI[empty_B] = self.popular_I
        return score_BI


def popularity_of(taken_UI: sp.csr_matrix) -> Float32:
    """(I,) share of users who have each item."""
    count_I = np.bincount(taken_UI.indices, minlength=taken_UI.shape[1])
    share_I: Float32 = (count_I / max(taken_UI.shape[0], 1)).astype(np.float32)
    return share_I
