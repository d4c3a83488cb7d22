"""User-kNN: what those took who are most like the asker. For ratings see `rating_knn`.

Shape letters: B askers, U users, I items, K neighbours.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import numpy as np
import scipy.sparse as sp
from pydantic import Field

from tastemaker.errors import CompatibilityError
from tastemaker.models.log import Askers, Log
from tastemaker.models.memory.strangers import ByHistory, popularity_of
from tastemaker.strict import Strict
from tastemaker.types import Float32

_BLOCK_VALUES = 2**23


class UserKnnConfig(Strict):
    """User-kNN."""

    similarity: Literal["cosine", "jaccard"] = Field("cosine", description="how alike two users are")
    num_neighbours: int = Field(100, ge=1, description="users whose items count")
    shrinkage: float = Field(
        0.0, ge=0, description="added under the similarity, so that a few items in common weigh less"
    )


class UserKnn(ByHistory):
    """The score of an item is the sum of the similarities of the nearest users who took it [Herlocker et al. 1999].

    Similarity of two users with n and m items, c in common: cosine c / (sqrt(n m) + shrinkage),
    Jaccard c / (n + m - c + shrinkage). Nobody is a neighbour of their own.
    """

    kind = "user-knn"
    Config: ClassVar[type[Strict]] = UserKnnConfig

    def __init__(self, config: UserKnnConfig, taken_UI: sp.csr_matrix) -> None:
        self.config: UserKnnConfig = config
        self.num_items = taken_UI.shape[1]
        self._taken_UI = taken_UI
        self.popular_I = popularity_of(taken_UI)
        self._taken_IU = sp.csr_matrix(taken_UI.T)
        self._size_U = np.diff(taken_UI.indptr).astype(np.float32)

    @classmethod
    def fit(cls, log: Log, config: UserKnnConfig) -> Self:
        """See `Recommender.fit`: keeps who took what."""
        return cls(config, log.matrix())

    def personal_scores(self, askers: Askers) -> Float32:
        """See `ByHistory`."""
        num_users = self._taken_UI.shape[0]
        step = max(1, _BLOCK_VALUES // max(1, num_users))
        blocks = [self._block(askers[at : at + step]) for at in range(0, len(askers), step)]
        return np.concatenate([*blocks, np.empty((0, self.num_items), np.float32)])

    def _block(self, askers: Askers) -> Float32:
        alike_BU = self._similarities(askers)
        num_users, k = alike_BU.shape[1], self.config.num_neighbours
        if k < num_users:
            near_BK = np.argpartition(alike_BU, num_users - k, axis=1)[:, num_users - k :]
            kept_BU = np.zeros_like(alike_BU)
            np.put_along_axis(kept_BU, near_BK, np.take_along_axis(alike_BU, near_BK, axis=1), axis=1)
            alike_BU = kept_BU
        return np.asarray((sp.csr_matrix(alike_BU) @ self._taken_UI).toarray(), np.float32)

    def _similarities(self, askers: Askers) -> Float32:
        history_BI = askers.matrix(self.num_items)
        common_BU = np.asarray((history_BI @ self._taken_IU).toarray(), np.float32)
        size_B1 = np.diff(history_BI.indptr).astype(np.float32)[:, None]
        if self.config.similarity == "cosine":
            under_BU = np.sqrt(size_B1 * self._size_U)
        else:
            under_BU = size_B1 + self._size_U - common_BU
        under_BU += self.config.shrinkage
        alike_BU: Float32 = np.divide(common_BU, under_BU, out=np.zeros_like(common_BU), where=under_BU > 0)
        place, row = askers.users(len(self._size_U))
        alike_BU[place, row] = 0.0
        return alike_BU

    def config_dict(self) -> dict[str, Any]:
        """See `Recommender.config_dict`."""
        return super().config_dict() | {"num_items": self.num_items}

    def tensors(self) -> dict[str, np.ndarray]:
        """See `Recommender.tensors`."""
        return {
            "offsets": self._taken_UI.indptr.astype(np.int64),
            "items": self._taken_UI.indices.astype(np.int32),
        }

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        """See `Recommender.from_state`."""
        own = dict(config)
        num_items, offsets, items = int(own.pop("num_items")), tensors["offsets"], tensors["items"]
        if offsets[-1] != len(items) or (len(items) and items.max() >= num_items):
            raise CompatibilityError("items of the users of a user-kNN", mend="publish it again")
        taken_UI = sp.csr_matrix(
            (np.ones(len(items), np.float32), items, offsets), (len(offsets) - 1, num_items)
        )
        return cls(UserKnnConfig.parse(own, "model user-knn"), taken_UI)
