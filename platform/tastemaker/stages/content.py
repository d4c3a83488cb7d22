"""The source of items that are like what the user took, by content vectors: it knows an item before its first event.

A user's content vector is the mean of the vectors of what was taken, each counting by its event's weight and a tenth less
for each day. It is made from the record when asked for, and so is of the bundle that answers. What a new user said of
themselves is added to it, as much as all that was taken.

Shape letters: B requests, L items of a user, I catalogue, D dimension.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from tastemaker.features.content.words import unit
from tastemaker.features.recency import recency_weights
from tastemaker.features.user_state import AFFINITY_WINDOW_MS
from tastemaker.stages.nearest import AskedIndex
from tastemaker.stages.retrieval import ContentSourceConfig
from tastemaker.stages.signals import RowOf, taken
from tastemaker.stages.source import Asked, Source
from tastemaker.types import Bool, Float32, Float64, Int64, Query

if TYPE_CHECKING:
    from tastemaker.index.vector_index import VectorIndex

CONTENT_SPACE: Final = "content"
"""Of a bundle: the model that encodes items, in `content.json` and `content.safetensors`."""
CONTENT_INDEX: Final = "content.faiss"
"""Of a bundle: the items' content vectors."""


class ContentSource(Source):
    """Items whose content vectors are nearest to the user's.

    Args:
        name: Of the source.
        index: Of the items' content vectors.
        row_of: Of item ids.
        config: How a history without a record counts.
    """

    def __init__(
        self, name: str, index: "VectorIndex", row_of: RowOf, config: ContentSourceConfig | None = None
    ) -> None:
        self.name, self._index, self._row_of = name, index, row_of
        self._vectors_ID = index.vectors()
        self._config = config or ContentSourceConfig()

    def ask(self, queries: Sequence[Query]) -> Asked:
        """See `Source.ask`."""
        vector_BD = self.user_vectors(queries)
        known_B: Bool = np.any(vector_BD, axis=1)
        return AskedIndex(queries, vector_BD, known_B, self._index, self._vectors_ID)

    def user_vectors(self, queries: Sequence[Query]) -> Float32:
        """The users' unit vectors (B, D); zeros of one of whom nothing is known."""
        return unit(np.stack([self._user_vector(query) for query in queries]))

    def _user_vector(self, query: Query) -> Float32:
        signals = taken(query, self._row_of) if query.record else None
        if signals is not None and len(signals):
            row_L, weight_L = signals.row_L, faded(signals.weight_L, signals.at_ms_L)
        else:
            row_L = query.history_L[-self._config.max_history :]
            weight_L = recency_weights(len(row_L), self._config.half_life).astype(np.float64)
        known_L = row_L < len(self._vectors_ID)
        vector_D: Float32 = (weight_L[known_L] @ self._vectors_ID[row_L[known_L]]).astype(np.float32)
        return vector_D if query.interest_D is None else unit(vector_D[None])[0] + query.interest_D


def faded(weight_L: Float64, at_ms_L: Int64) -> Float64:
    """The weights (L,) as of the newest event: exp(-0.1) of them for each day before it. Their mean is that of any moment.

    >>> faded(np.array([1.0, 0.5]), np.array([0, 864_000_000])).round(3).tolist()  # ten days apart
    [0.368, 0.5]
    """
    age_L = at_ms_L.max(initial=0) - at_ms_L
    left_L: Float64 = weight_L * np.exp(-age_L / AFFINITY_WINDOW_MS)
    return left_L
