"""What the ranker reads of the items: rows of its tables, and how an item fits a history.

Shape letters: I catalogue, K candidates, L history, T tags, V values of histories, U of candidates.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tastemaker.features.columns import ItemColumns
from tastemaker.features.ragged import ranges, repeated
from tastemaker.features.ranking_batch import Bag
from tastemaker.types import Float32, Int32, Int64


@dataclass(frozen=True)
class RankingItems:
    """The columns of a catalogue, as the ranker sees them.

    How rare tags are is counted in the first `num_counted` items, those that the fit saw; unset: in all.
    """

    columns: ItemColumns
    num_counted: int | None = None

    @cached_property
    def _tag_weights(self) -> Float32:
        """Inverse document frequency, each item's to unit length; an item without rare tags has zeros."""
        num = len(self.columns) if self.num_counted is None else self.num_counted
        counted_V = self.columns.tags_V[: self.columns.tag_offsets_I1[num]]
        weight_T = np.log(num / np.maximum(np.bincount(counted_V, minlength=self.columns.schema.num_tags), 1))
        weight_V = weight_T[self.columns.tags_V]
        item_V = repeated(np.arange(len(self.columns)), np.diff(self.columns.tag_offsets_I1))
        length_I = np.sqrt(np.bincount(item_V, weight_V**2, len(self.columns)))
        return np.asarray(weight_V / np.maximum(length_I[item_V], 1e-6), np.float32)

    def prepare(self) -> None:
        """Does now what else the first request would wait for."""
        _ = self._tag_weights

    def tag_affinities(self, rows_K: Int32, history_L: Int32, *weights: Float32) -> list[Float32]:
        """Cosine (K,) between each item's tags and the weighted tags of the history, by inverse document frequency.

        0 where either has no tags.

        Args:
            rows_K: The items.
            history_L: The history.
            weights: Each gives the history's items weights (L,) of its own, and has a cosine of its own.
        """
        at_V, lengths_L = self._tag_positions(history_L)
        tag_V, rarity_V = self.columns.tags_V[at_V], self._tag_weights[at_V]
        at_U, lengths_K = self._tag_positions(rows_K)
        tag_U, rarity_U = self.columns.tags_V[at_U], self._tag_weights[at_U]
        item_U = np.repeat(np.arange(len(rows_K)), lengths_K)
        found = []
        for weight_L in weights:
            values_V = rarity_V * np.repeat(weight_L, lengths_L)
            profile_T = np.bincount(tag_V, values_V, self.columns.schema.num_tags)
            profile_T = np.divide(profile_T, max(float(np.linalg.norm(profile_T)), 1e-9))
            found.append(np.bincount(item_U, rarity_U * profile_T[tag_U], len(rows_K)).astype(np.float32))
        return found

    def year_distance(self, rows_K: Int32, history_L: Int32, weight_L: Float32) -> Float32:
        """Decades (K,) between each item's year and the history's weighted mean year; 0 where either is unknown."""
        known_L = ~np.isnan(self.columns.year_I[history_L])
        if not known_L.any():
            return np.zeros(len(rows_K), np.float32)
        mean = np.average(self.columns.year_I[history_L[known_L]], weights=weight_L[known_L])
        distance_K: Float32 = np.nan_to_num(np.abs(self.columns.year_I[rows_K] - mean) / 10).astype(
            np.float32
        )
        return distance_K

    def item_bags(self, rows_K: Int32) -> dict[str, Bag]:
        """The ranker's bags of the candidates themselves, one of each feature per candidate."""
        at_V, lengths_K = self._tag_positions(rows_K)
        share_V = np.repeat(1.0 / np.maximum(lengths_K, 1), lengths_K).astype(np.float32)
        return {
            "item_tags": Bag(self.columns.tags_V[at_V].astype(np.int64), lengths_K, share_V),
            "item_years": Bag.singles(self.columns.year_row_I[rows_K]),
            "item_categories": Bag.singles(self.columns.category_row_I[rows_K]),
        }

    def history_bags(self, history_L: Int32, weight_L: Float32) -> dict[str, Bag]:
        """The ranker's bags of a history, one of each feature: the weighted mean of its items."""
        at_V, lengths_L = self._tag_positions(history_L)
        share_L = weight_L / np.maximum(lengths_L, 1)
        return {
            "recent_tags": _together(self.columns.tags_V[at_V], np.repeat(share_L, lengths_L)),
            "recent_years": _together(self.columns.year_row_I[history_L], weight_L),
            "recent_categories": _together(self.columns.category_row_I[history_L], weight_L),
        }

    def _tag_positions(self, rows: Int32) -> tuple[Int64, Int64]:
        """Positions in `tags_V` of all tags of `rows`, end to end, and how many each row has."""
        begin = self.columns.tag_offsets_I1[rows]
        lengths = self.columns.tag_offsets_I1[rows + 1] - begin
        return ranges(begin, lengths), lengths


def _together(rows_V: Int32, weight_V: Float32) -> Bag:
    """One bag, its equal rows summed."""
    values, inverse = np.unique(rows_V, return_inverse=True)
    weights = np.bincount(inverse, weight_V, len(values)).astype(np.float32)
    return Bag(values.astype(np.int64), np.array([len(values)]), weights)
