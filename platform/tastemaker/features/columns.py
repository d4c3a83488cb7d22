"""What models read of items: identity, tags, year and category as rows of tables, and histories as bags of items.

Rows that stand for unknown: 0 of years and of categories. Unknown tags are left out.

Shape letters: I catalogue, V values of all items, B bags.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute
from pydantic import Field

from tastemaker.data.schema import Column
from tastemaker.features.ragged import ranges, repeated
from tastemaker.features.ranking_batch import Bag
from tastemaker.features.recency import recency_weights
from tastemaker.features.rows import placed, spliced
from tastemaker.strict import Strict
from tastemaker.types import Float32, Int32, Int64

pc: Any = pyarrow.compute  # its stubs know neither list arrays nor chunked ones
HISTORY, ITEM, ITEM_TAGS, ITEM_YEARS = "history", "item", "item_tags", "item_years"


class FeatureSchema(Strict):
    """Vocabularies, fixed when a model is fitted: the same item gives the same rows ever after."""

    num_items: int = Field(ge=1, description="items of the catalogue that the fit saw")
    tags: tuple[str, ...] = Field(description="tag of each row of a table of tags")
    categories: tuple[str, ...] = Field(description="category of each row from 1")
    first_year: int = Field(1970, description="year where bucket 1 begins; earlier years are in it too")
    last_year: int = Field(1970, description="year that the last bucket holds; later years are in it too")
    years_per_bucket: int = Field(2, ge=1, description="width of a bucket")

    @classmethod
    def fit(cls, items: pa.Table) -> Self:
        """The vocabularies of a catalogue, in alphabetical order, and buckets over the years that it has."""
        tags = pc.unique(pc.list_flatten(items[Column.TAGS])).to_pylist()
        categories = pc.unique(items[Column.CATEGORY]).to_pylist()
        year_I = _years(items)
        known = year_I[~np.isnan(year_I)]
        span = {"first_year": int(known.min()), "last_year": int(known.max())} if len(known) else {}
        return cls(
            num_items=items.num_rows,
            tags=tuple(sorted(tag for tag in tags if tag)),
            categories=tuple(sorted(name for name in categories if name)),
            **span,
        )

    @property
    def num_tags(self) -> int:
        """Rows of a table of tags; at least one, so that the table can be made."""
        return max(len(self.tags), 1)

    @property
    def num_categories(self) -> int:
        """Rows of a table of categories."""
        return len(self.categories) + 1

    @property
    def num_years(self) -> int:
        """Rows of a table of years."""
        return (self.last_year - self.first_year) // self.years_per_bucket + 2

    def year_rows(self, year_I: Float32) -> Int32:
        """Buckets of years, 0 where a year is NaN."""
        inside = np.clip(np.nan_to_num(year_I, nan=self.first_year), self.first_year, self.last_year)
        bucket = (inside.astype(np.int32) - self.first_year) // self.years_per_bucket + 1
        return np.where(np.isnan(year_I), 0, bucket).astype(np.int32)


@dataclass(frozen=True)
class ItemColumns:
    """The columns of a catalogue, row i of item_index i.

    Item i has the tags `tags_V[tag_offsets_I1[i]:tag_offsets_I1[i + 1]]`. `year_I` is NaN where unknown.
    """

    schema: FeatureSchema
    tag_offsets_I1: Int64
    tags_V: Int32
    year_I: Float32
    year_row_I: Int32
    category_row_I: Int32

    def __len__(self) -> int:
        return len(self.year_I)

    @classmethod
    def from_items(cls, items: pa.Table, schema: FeatureSchema) -> Self:
        """The columns of a table with the schema of imported items."""
        lists: Any = items[Column.TAGS].combine_chunks()
        found = pc.index_in(lists.flatten(), pa.array(schema.tags, pa.string()))
        known = found.is_valid().to_numpy(zero_copy_only=False)
        item_V = repeated(np.arange(items.num_rows), lists.value_lengths().fill_null(0).to_numpy())[known]
        counts = np.bincount(item_V, minlength=items.num_rows)
        category = pc.index_in(items[Column.CATEGORY], pa.array(schema.categories, pa.string()))
        year_I = _years(items)
        return cls(
            schema,
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            found.drop_null().to_numpy().astype(np.int32),
            year_I,
            schema.year_rows(year_I),
            (pc.fill_null(category, -1).to_numpy() + 1).astype(np.int32),
        )

    def with_rows(self, rows_W: Int32 | Int64, items: "ItemColumns") -> "ItemColumns":
        """The columns with others at `rows_W`, ascending: in place of rows that are there, or next behind the last.

        Costs copies of arrays; only `items` were looked at one by one.
        """
        offsets_I1, tags_V = spliced(
            self.tag_offsets_I1, self.tags_V, rows_W, items.tag_offsets_I1, items.tags_V
        )
        return ItemColumns(
            self.schema,
            offsets_I1,
            tags_V,
            placed(self.year_I, rows_W, items.year_I),
            placed(self.year_row_I, rows_W, items.year_row_I),
            placed(self.category_row_I, rows_W, items.category_row_I),
        )

    def item_bags(self, rows_B: Int32 | Int64) -> dict[str, Bag]:
        """One bag per item of each feature of the item tower: identity, the mean of its tags, and its year."""
        begin = self.tag_offsets_I1[rows_B]
        lengths = self.tag_offsets_I1[rows_B + 1] - begin
        share = np.repeat(1.0 / np.maximum(lengths, 1), lengths).astype(np.float32)
        return {
            ITEM: Bag.singles(rows_B),
            ITEM_TAGS: Bag(self.tags_V[ranges(begin, lengths)].astype(np.int64), lengths, share),
            ITEM_YEARS: Bag.singles(self.year_row_I[rows_B]),
        }


def history_bag(histories: Sequence[Int32], half_life: float | None, max_length: int) -> Bag:
    """One bag per history of its newest `max_length` items: the mean weighted by recency, oldest first.

    An empty history gives an empty bag.
    """
    newest = [history[-max_length:] for history in histories]
    lengths = np.array([len(history) for history in newest], np.int64)
    weights = [share_of_history(len(history), half_life) for history in newest]
    values = np.concatenate([*newest, np.empty(0, np.int32)]).astype(np.int64)
    return Bag(values, lengths, np.concatenate([*weights, np.empty(0, np.float32)]))


def share_of_history(length: int, half_life: float | None) -> Float32:
    """Recency weights (L,) that sum to 1.

    >>> share_of_history(2, half_life=1.0).round(4)
    array([0.3333, 0.6667], dtype=float32)
    """
    weight_L = recency_weights(length, half_life)
    share_L: Float32 = weight_L / np.maximum(weight_L.sum(), np.float32(1e-12))
    return share_L


def _years(items: pa.Table) -> Float32:
    moments = items[Column.CREATED_AT_MS]
    unknown = moments.is_null().to_numpy()
    date = pc.fill_null(moments, 0).to_numpy().astype("datetime64[ms]")
    year = date.astype("datetime64[Y]").astype(np.int64) + 1970
    return np.where(unknown, np.nan, year).astype(np.float32)
