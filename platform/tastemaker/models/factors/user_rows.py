"""What models share that keep a vector for each user of the log: users by their row, strangers by their history.

Shape letters: B askers, I items, D dimension of items, E of users.
"""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
from pydantic import Field

from tastemaker.errors import CompatibilityError
from tastemaker.models.factors.strangers import HistoryMap
from tastemaker.models.log import Askers, Log
from tastemaker.models.recommender import Recommender
from tastemaker.strict import Strict
from tastemaker.types import Float32


class UserRows(Recommender):
    """Vectors of users, of items, and of who is neither in the log."""

    user_tensors = ("users",)

    def __init__(self, config: Strict, user_UE: Float32, item_ID: Float32, strangers: HistoryMap) -> None:
        self.config, self.num_items = config, len(item_ID)
        self._user_UE, self._item_ID, self._strangers = user_UE, item_ID, strangers

    @classmethod
    def learned(cls, config: Strict, log: Log, user_UE: Float32, item_ID: Float32, **more: Any) -> Self:
        """With the map for strangers, fitted to the log; users who have nothing in it are strangers."""
        taken_UI = log.matrix()
        strangers = HistoryMap.fit(taken_UI, item_ID, user_UE)
        has_U1 = (np.diff(taken_UI.indptr) > 0)[:, None]
        user_UE = np.where(has_U1, user_UE, strangers.vectors(sp.csr_matrix((1, log.num_items)), item_ID))
        return cls(config, user_UE, item_ID, strangers, **more)

    def _users(self, askers: Askers) -> Float32:
        """(B, E)."""
        place, row = askers.users(len(self._user_UE))
        rest, strangers = askers.without(place)
        user_BE = np.empty((len(askers), self._user_UE.shape[1]), np.float32)
        user_BE[place] = self._user_UE[row]
        user_BE[rest] = self._strangers.vectors(strangers.matrix(self.num_items), self._item_ID)
        return user_BE

    def tensors(self) -> dict[str, np.ndarray]:
        """See `Recommender.tensors`."""
        return {"users": self._user_UE, "items": self._item_ID, **self._strangers.tensors()}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        """See `Recommender.from_state`."""
        parsed, strangers = cls.Config.parse(config, f"model {cls.kind}"), HistoryMap.from_tensors(tensors)
        return cls(parsed, tensors["users"], tensors["items"], strangers, **cls._more(tensors))

    @classmethod
    def _more(cls, _tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """What else the constructor takes."""
        return {}


class FactorsConfig(Strict):
    """Of a model whose scores are inner products."""

    dim: int = Field(64, ge=1, description="factors")


class InnerProducts(UserRows):
    """Scores are inner products of users and items."""

    scores_are_products = True

    def __init__(
        self, config: FactorsConfig, user_UE: Float32, item_ID: Float32, strangers: HistoryMap
    ) -> None:
        if not user_UE.shape[1] == item_ID.shape[1] == config.dim:
            widths = (user_UE.shape[1], item_ID.shape[1])
            raise CompatibilityError("factors of users and items", value=widths, limit=f"{config.dim} each")
        super().__init__(config, user_UE, item_ID, strangers)

    def item_vectors(self) -> Float32:
        """See `Recommender.item_vectors`."""
        return self._item_ID

    def user_vectors(self, askers: Askers) -> Float32:
        """See `Recommender.user_vectors`."""
        return self._users(askers)

    def scores(self, askers: Askers) -> Float32:
        """See `Recommender.scores`."""
        return self._users(askers) @ self._item_ID.T
