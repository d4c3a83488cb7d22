"""Vectors of people who were not in the log, for models that learn a vector of each user: guessed from their history.

Shape letters: U users, B askers, I items, D dimension of items, E of users.
"""

from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp

from tastemaker.types import Float32

_PENALTY = 1.0


class HistoryMap:
    """A linear map from the mean vector of a history's items to a user's vector, fitted to the users of the log.

    Ridge regression with an intercept; its target is the mapping function of [Man et al. 2017, EMCDR], within one domain. Whoever
    has no history gets the mean user.
    """

    def __init__(self, weight_DE: Float32, intercept_E: Float32, mean_E: Float32) -> None:
        self._weight_DE, self._intercept_E, self._mean_E = weight_DE, intercept_E, mean_E

    @classmethod
    def fit(cls, taken_UI: sp.csr_matrix, item_ID: Float32, user_UE: Float32) -> "HistoryMap":
        """Of users with what they took; those who took nothing do not count."""
        has_U = np.diff(taken_UI.indptr) > 0
        x_UD = _mean_items(taken_UI, item_ID)[has_U].astype(np.float64)
        y_UE = user_UE[has_U].astype(np.float64)
        x_D, y_E = x_UD.mean(axis=0), y_UE.mean(axis=0)
        gram_DD = (x_UD - x_D).T @ (x_UD - x_D)
        gram_DD += _PENALTY * np.eye(len(x_D)) * max(np.trace(gram_DD) / len(x_D), 1e-9) / len(x_UD)
        weight_DE = np.linalg.solve(gram_DD, (x_UD - x_D).T @ (y_UE - y_E))
        return cls(
            weight_DE.astype(np.float32), (y_E - x_D @ weight_DE).astype(np.float32), y_E.astype(np.float32)
        )

    def vectors(self, taken_BI: sp.csr_matrix, item_ID: Float32) -> Float32:
        """(B, E) of those who took these."""
        found_BE = _mean_items(taken_BI, item_ID) @ self._weight_DE + self._intercept_E
        found_BE[np.diff(taken_BI.indptr) == 0] = self._mean_E
        return found_BE.astype(np.float32)

    def tensors(self) -> dict[str, np.ndarray]:
        """As arrays."""
        return {
            "strangers.weight": self._weight_DE,
            "strangers.intercept": self._intercept_E,
            "strangers.mean": self._mean_E,
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray]) -> "HistoryMap":
        """What `tensors` gave."""
        return cls(*(tensors[f"strangers.{name}"] for name in ("weight", "intercept", "mean")))


def _mean_items(taken_BI: sp.csr_matrix, item_ID: Float32) -> Float32:
    size_B1 = np.maximum(np.diff(taken_BI.indptr), 1)[:, None]
    mean_BD: Float32 = np.asarray(taken_BI @ item_ID, np.float32) / size_B1.astype(np.float32)
    return mean_BD
