"""Beginning a training from what an earlier one learned, though items, tags and years have come and gone since.

Rows are matched by what they stand for, not by their number, and read from the earlier training's files as they are
needed: no table is held whole. What is new starts as it would have anyway.

Shape letters: R rows of a table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from tastemaker.bundle.tensor_file import map_tensors
from tastemaker.data.schema import Column
from tastemaker.errors import TrainingError
from tastemaker.features.columns import FeatureSchema
from tastemaker.models.tables import TableSpec
from tastemaker.models.two_tower import ITEM_IDS, ITEM_ROWS, UNKNOWN_ROW
from tastemaker.types import Int64
from tastemaker_training.distributed.sharded_tables import RowsOf, chunks
from tastemaker_training.distributed.sharding import Distributed
from tastemaker_training.distributed.state import accumulators, local_parts

pc: Any = pyarrow.compute
ITEMS, ACCUMULATORS, MODEL, VOCABULARY, FIT = (
    "items.parquet", "accumulators.safetensors", "two_tower", "vocabulary", "refit",
)  # fmt: skip
"""Files of a finished two-tower training: its catalogue, and what each fit left."""
NEW = -1
"""The earlier row of what the earlier training did not have."""


@dataclass(frozen=True)
class WarmStart:
    """An earlier training of the two-tower, seen from a later catalogue.

    `rows_of` has for each table of a vocabulary the earlier row of each row (R,), `NEW` where there was none;
    `item_row_I` the earlier row of each item, `NEW` for new ones.
    """

    tensors: Mapping[str, np.ndarray]
    sums: Mapping[str, np.ndarray]
    rows_of: Mapping[str, Int64]
    item_row_I: Int64

    @classmethod
    def of(cls, folder: Path, items: pa.Table, schema: FeatureSchema) -> Self:
        """The training in `folder`.

        Raises:
            TrainingError: There is none, or it was not finished.
        """
        try:
            earlier = pq.read_table(folder / ITEMS)
            tensors = map_tensors(folder / FIT / f"{MODEL}.safetensors")
            sums = map_tensors(folder / FIT / ACCUMULATORS)
        except OSError as error:
            raise TrainingError(
                f"{folder} holds no finished two-tower training", mend="begin without a warm start"
            ) from error
        before = FeatureSchema.fit(earlier)
        tags = _found(pa.array(schema.tags, pa.string()), pa.array(before.tags, pa.string()))
        at_I = _found(items[Column.ITEM_ID], earlier[Column.ITEM_ID])
        row_I = np.where(at_I == NEW, NEW, tensors[ITEM_ROWS][np.maximum(at_I, 0)])
        return cls(tensors, sums, {"tags": tags, "years": _years(before, schema)}, row_I)

    def rows(self, fresh: RowsOf, item_rows: Int64) -> RowsOf:
        """First values of tables: those learned, `fresh` where there are none.

        Args:
            fresh: As of a training from nothing.
            item_rows: The row (I,) that each item has now.
        """

        def rows(spec: TableSpec, start: int, stop: int) -> Tensor:
            first_RD, learned = fresh(spec, start, stop), self.tensors.get(_weight(spec.name))
            from_R = self._from(spec.name, spec.num_rows, learned, item_rows)[start:stop]
            known_R = from_R != NEW
            if learned is not None and learned.shape[1] == spec.dim:
                values = learned[from_R[known_R]].astype(np.float32)
                first_RD[torch.from_numpy(known_R)] = torch.from_numpy(values)
            return first_RD

        return rows

    def set_dense(self, model: nn.Module) -> None:
        """Sets the parameters and buffers of `model` that are no tables and have their earlier shape."""
        for name, value in model.state_dict().items():
            learned = self.tensors.get(name)
            if not name.startswith("tables.") and learned is not None and learned.shape == value.shape:
                value.copy_(torch.from_numpy(np.array(learned)))

    @torch.no_grad()
    def set_accumulators(self, distributed: Distributed, item_rows: Int64) -> None:
        """Sets row-wise Adagrad's sums, so that rows that have learned much do not start to jump."""
        num_rows = {spec.name: spec.num_rows for spec in distributed.tables.specs}
        for table, _, value in accumulators(distributed):
            sums, rows = self.sums.get(table), num_rows[table]
            from_R = self._from(table, rows, sums, item_rows)
            for begin, part in local_parts(value):
                for start, stop in chunks(len(part)):
                    # A column shard has its sums behind those of the shards before it.
                    at = from_R[(begin + np.arange(start, stop)) % rows]
                    learned = np.zeros(stop - start, np.float32)
                    if sums is not None:
                        learned[at != NEW] = sums[at[at != NEW]]
                    part[start:stop] = torch.from_numpy(learned)

    def _from(self, table: str, num_rows: int, learned: np.ndarray | None, item_rows: Int64) -> Int64:
        """The earlier rows of a table; of one that no vocabulary stands behind the same, if its size is."""
        if table in self.rows_of:
            return self.rows_of[table]
        if table == ITEM_IDS:
            from_R = np.full(num_rows, NEW)
            from_R[UNKNOWN_ROW] = UNKNOWN_ROW
            both_I = (item_rows != UNKNOWN_ROW) & (self.item_row_I > UNKNOWN_ROW)
            from_R[item_rows[both_I]] = self.item_row_I[both_I]
            return from_R
        same = learned is not None and len(learned) == num_rows
        return np.arange(num_rows) if same else np.full(num_rows, NEW)


def _weight(table: str) -> str:
    return f"tables.embedding_bags.{table}.weight"


def _found(names: Any, among: Any) -> Int64:
    """Where each name stands among others, `NEW` where it does not."""
    rows_R: Int64 = pc.fill_null(pc.index_in(names, value_set=among), NEW).to_numpy().astype(np.int64)
    return rows_R


def _years(before: FeatureSchema, now: FeatureSchema) -> Int64:
    """The earlier bucket that holds each bucket's first year; row 0, the unknown year, stays.

    >>> span = {"num_items": 1, "tags": (), "categories": ()}
    >>> _years(FeatureSchema(**span, first_year=1990, last_year=1993), FeatureSchema(**span, first_year=1992, last_year=1995))
    array([ 0,  2, -1])
    """
    year_R = now.first_year + np.arange(now.num_years - 1) * now.years_per_bucket
    inside = (year_R >= before.first_year) & (year_R <= before.last_year)
    rows_R = np.where(inside, before.year_rows(year_R.astype(np.float32)), NEW)
    return np.concatenate([[0], rows_R]).astype(np.int64)
