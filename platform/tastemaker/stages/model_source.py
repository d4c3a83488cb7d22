"""Any model of the zoo as a source of candidates: by its vectors in an index where it has some, else by its scores.

Shape letters: B requests, K candidates, I catalogue, D dimension.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tastemaker.models.cold.attributes import demographics
from tastemaker.models.log import Askers
from tastemaker.models.recommender import Recommender
from tastemaker.stages.nearest import AskedIndex
from tastemaker.stages.source import Asked, Source, filled, has_history, top_allowed
from tastemaker.types import Bool, Float32, Int32, Query
from tastemaker.users.profile import DEMOGRAPHIC

if TYPE_CHECKING:
    import pyarrow as pa

    from tastemaker.index.vector_index import VectorIndex


class ModelSource(Source):
    """What a model proposes for the history of a request, the session under way included. The user's row says nothing here.

    A model that reads attributes is told the user's age band and gender, where the request knows them.

    Args:
        name: Of the source.
        model: Fitted.
        index: Of the model's item vectors; unset, an exact one is made where it has such.
    """

    def __init__(self, name: str, model: Recommender, index: "VectorIndex | None" = None) -> None:
        self.name, self.needs_history, self._model = name, model.needs_history, model
        if index is None and (vectors_ID := model.item_vectors()) is not None:
            from tastemaker.index.faiss_index import FaissIndex  # late: only those who search need FAISS

            index = FaissIndex.build(vectors_ID)
        self._index = index

    def ask(self, queries: Sequence[Query]) -> Asked:
        """See `Source.ask`."""
        askers = Askers.strangers([query.history_L for query in queries], self._attributes(queries))
        known_B = has_history(queries) if self.needs_history else np.ones(len(queries), bool)
        if self._index is None:
            return _AskedScores(queries, self._model.scores(askers), known_B)
        vector_BD = self._model.user_vectors(askers)
        assert vector_BD is not None, "who has item vectors has users' vectors"
        return AskedIndex(queries, vector_BD, known_B, self._index, self._index.vectors())

    def _attributes(self, queries: Sequence[Query]) -> "pa.Table | None":
        if not self._model.reads_attributes:
            return None
        return demographics([query.context.get(DEMOGRAPHIC) for query in queries])


class _AskedScores:
    """Scores of the whole catalogue; `known_B` says which queries have any."""

    def __init__(self, queries: Sequence[Query], score_BI: Float32, known_B: Bool) -> None:
        self._queries, self._score_BI, self._known_B = queries, score_BI, known_B

    def propose(self, k: int) -> tuple[Int32, Float32]:
        asked = zip(self._queries, self._score_BI, self._known_B, strict=True)
        nothing = np.empty(0, np.int32), np.empty(0, np.float32)
        return filled(
            [top_allowed(row_I, query, k) if known else nothing for query, row_I, known in asked], k
        )

    def score(self, items: Sequence[Int32]) -> list[Float32]:
        return [
            row_I[row_K] if known else np.full(len(row_K), np.nan, np.float32)
            for row_I, row_K, known in zip(self._score_BI, items, self._known_B, strict=True)
        ]
