"""The source `nearby`: items near the place that a request comes from, the nearest first.

Shape letters: I catalogue, N rows with a place, K candidates.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from pydantic import Field

from tastemaker.features.places import Place, Places, chord_of, km_of, place_of, unit_vector
from tastemaker.stages.source import Asked, Source, best_allowed, filled, forbidden
from tastemaker.strict import Strict
from tastemaker.types import Float32, Int32, Query

_SHARE_OF_RULES: Final = 0.05
"""Where rules leave less of the catalogue, all that they leave is looked at."""

_WIDEN: Final = 4


class NearbyConfig(Strict):
    """How far is near."""

    max_km: float = Field(100.0, gt=0, le=20_100, description="items farther away are not proposed")


class PlaceTree:
    """Finds items near a point. Immutable; any thread may ask."""

    def __init__(self, places: Places) -> None:
        from scipy.spatial import cKDTree  # late: only those who search need it

        self._rows = np.flatnonzero(~np.isnan(places.point_I3[:, 0])).astype(np.int32)
        self._tree: Any = cKDTree(places.point_I3[self._rows]) if len(self._rows) else None

    def nearest(self, place: Place, k: int, max_km: float) -> tuple[Int32, float]:
        """The at most k rows nearest to a place, none farther than `max_km`; and how far away no other is nearer."""
        if self._tree is None:
            return self._rows, np.inf
        k = min(k, len(self._rows))
        bound = chord_of(max_km)
        away_K, at_K = self._tree.query(unit_vector(*place), range(1, k + 1), distance_upper_bound=bound)
        found = self._rows[at_K[np.isfinite(away_K)]]
        is_all = len(found) < k or k == len(self._rows)
        return found, np.inf if is_all else float(km_of(away_K[-1]))


class NearbySource(Source):
    """Items near where the request's context says that it comes from; scores are -log(1 + km).

    It has nothing to say of items whose place is unknown, nor to a request that comes from nowhere.

    Args:
        name: Of the source.
        places: Of all items.
        tree: Of the items' places before any was put anew.
        config: How far is near.
    """

    needs_history = False

    def __init__(
        self, name: str, places: Places, tree: PlaceTree, config: NearbyConfig | None = None
    ) -> None:
        self.name, self._places, self._tree = name, places, tree
        self._config = config or NearbyConfig()

    def ask(self, queries: Sequence[Query]) -> Asked:
        """See `Source.ask`."""
        return _AskedNearby(queries, self._places, self._tree, self._config.max_km)


class _AskedNearby:
    def __init__(self, queries: Sequence[Query], places: Places, tree: PlaceTree, max_km: float) -> None:
        self._queries, self._places, self._tree, self._max_km = queries, places, tree, max_km
        self._from = [place_of(query.context) for query in queries]

    def propose(self, k: int) -> tuple[Int32, Float32]:
        found = zip(self._queries, self._from, strict=True)
        return filled([self._best(query, place, k) for query, place in found], k)

    def _best(self, query: Query, place: Place | None, k: int) -> tuple[Int32, Float32]:
        if place is None:
            return np.empty(0, np.int32), np.empty(0, np.float32)
        if query.allowed is not None and np.count_nonzero(query.allowed) < _SHARE_OF_RULES * len(
            self._places
        ):
            return self._near(np.flatnonzero(query.allowed).astype(np.int32), query, place, k)
        wanted = k + len(forbidden(query)) + len(self._places.written)
        while True:
            rows, reach_km = self._tree.nearest(place, wanted, self._max_km)
            # What was put since may have moved, or be new: it is looked at in any case, and by its place of now.
            best = self._near(np.union1d(rows, self._places.written).astype(np.int32), query, place, k)
            if np.isinf(reach_km) or (len(best[0]) == k and best[1][-1] >= -np.log1p(reach_km)):
                return best
            wanted *= _WIDEN

    def _near(self, rows: Int32, query: Query, place: Place, k: int) -> tuple[Int32, Float32]:
        km = self._places.distance_km(place, rows)
        near = km <= self._max_km  # not so where it is unknown
        return best_allowed(rows[near], _score(km[near]), query, k)

    def score(self, items: Sequence[Int32]) -> list[Float32]:
        return [
            np.full(len(rows), np.nan, np.float32)
            if place is None
            else _score(self._places.distance_km(place, rows))
            for rows, place in zip(items, self._from, strict=True)
        ]


def _score(km: Any) -> Float32:
    return np.asarray(-np.log1p(km), np.float32)
