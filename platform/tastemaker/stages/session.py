"""A user's vector in the session under way: the long-term vector, moved by each of the session's events.

Each event makes one gradient step on (tanh(u·v) - w)², of the user's vector u alone, against the item's vector v, which
stays as it is, with w the event's weight, within -1 to 1: towards what was taken, away from what was skipped, disliked or
hidden. It is made anew from the user's record for each request, so it is of the bundle that answers.

Shape letters: B requests, L events, I catalogue, D dimension.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from pydantic import Field

from tastemaker.stages.signals import RowOf, under_way
from tastemaker.strict import Strict
from tastemaker.types import Float32, Float64, Query, VectorRows


class SessionConfig(Strict):
    """How much a session moves the user's vector."""

    learning_rate: float = Field(0.3, gt=0, description="length of an event's step")
    max_events: int = Field(5, ge=1, description="newest events of the session that count")
    weight: float = Field(0.5, ge=0, le=1, description="share of the session's vector in the query's; 0: off")


class QueryVectors(Protocol):
    """Makes a vector of a request, in the space of an index."""

    def encode_queries(self, queries: Sequence[Query]) -> Float32:
        """Vectors (B, D)."""
        ...


class SessionVectors:
    """Vectors of requests that heed the session under way; the long-term vectors where there is none, or it is not wanted.

    Args:
        encoder: Makes the long-term vectors.
        vectors_ID: Of the items, in the same space.
        row_of: Of item ids.
        config: How much a session counts.
    """

    def __init__(
        self, encoder: QueryVectors, vectors_ID: VectorRows, row_of: RowOf, config: SessionConfig
    ) -> None:
        self._encoder, self._vectors_ID, self._row_of, self.config = encoder, vectors_ID, row_of, config

    def encode_queries(self, queries: Sequence[Query]) -> Float32:
        """Vectors (B, D): both of them at length 1, fused by weight."""
        vector_BD = self._encoder.encode_queries(queries)
        if not self.config.weight:
            return vector_BD
        return np.stack([self._fused(query, vector_BD[b]) for b, query in enumerate(queries)])

    def _fused(self, query: Query, base_D: Float32) -> Float32:
        if query.long_term_only or not (query.record or len(query.visit_L)):
            return base_D
        signals = under_way(query, self._row_of)
        known_L = np.flatnonzero(signals.row_L < len(self._vectors_ID))[-self.config.max_events :]
        if not len(known_L):
            return base_D
        item_LD = self._vectors_ID[signals.row_L[known_L]]
        session_D = fold(base_D, item_LD, signals.weight_L[known_L], self.config.learning_rate)
        share = self.config.weight
        return _unit((1 - share) * _unit(base_D) + share * _unit(session_D)).astype(np.float32)


def fold(user_D: Float32, item_LD: Float32, weight_L: Float64, learning_rate: float) -> Float64:
    """The user's vector (D,) after one gradient step for each event, in order.

    By hand: of u·v = 0 the gradient is -2w v.

    >>> fold(np.array([0, 1], np.float32), np.array([[1, 0]], np.float32), np.array([0.5]), 0.1).tolist()
    [0.1, 1.0]
    """
    moved_D = user_D.astype(np.float64)
    for item_D, weight in zip(item_LD.astype(np.float64), np.clip(weight_L, -1.0, 1.0), strict=True):
        liked = np.tanh(moved_D @ item_D)
        moved_D = moved_D - learning_rate * 2 * (liked - weight) * (1 - liked**2) * item_D
    return moved_D


def _unit(vector_D: Float32 | Float64) -> Float64:
    length = float(np.linalg.norm(vector_D))
    scaled_D: Float64 = vector_D.astype(np.float64) / (length or 1.0)
    return scaled_D
