"""Items by what a text says of them: its vector against theirs, in the bundle's content space.

Put items are found like all others. Not personal by itself; a stated share of the user's own content vector may be mixed in.

Shape letters: D dimension, K results.
"""

import numpy as np

from tastemaker.features.content import ContentSpace
from tastemaker.features.content.words import unit
from tastemaker.index.vector_index import VectorIndex
from tastemaker.stages.content import ContentSource
from tastemaker.stages.source import forbidden
from tastemaker.types import Float32, Int32, Query


class TextSearch:
    """Finds items by text. Thread-safe.

    Args:
        space: Encodes texts.
        index: Of the items' content vectors, in that space.
        users: Gives the users' vectors in it.
    """

    def __init__(self, space: ContentSpace, index: VectorIndex, users: ContentSource) -> None:
        self._space, self._index, self._users = space, index, users

    def encode(self, text: str) -> Float32:
        """The text's unit vector (D,); zeros where it has no word.

        Raises:
            MissingExtraError: The encoder is not installed.
        """
        vector_D: Float32 = self._space.encode_texts([text])[0]
        return vector_D

    def __call__(self, query: Query, text_D: Float32, share: float = 0.0) -> tuple[Int32, Float32]:
        """The at most `query.k` best items that the hard rules allow, best first, with their products with what was asked.

        Args:
            query: Its hard rules, its k and, for `share`, its user.
            text_D: See `encode`.
            share: Of the user's vector in what is asked, 0 to 1; a user of whom nothing is known has none.
        """
        asked_1D = text_D[None]
        if share:
            asked_1D = unit((1 - share) * asked_1D + share * self._users.user_vectors([query]))
        if not asked_1D.any():
            return np.empty(0, np.int32), np.empty(0, np.float32)
        rows_BK, score_BK = self._index.search(asked_1D, query.k, [query.allowed], [forbidden(query)])
        found_K = rows_BK[0] >= 0
        return rows_BK[0][found_K], score_BK[0][found_K]
