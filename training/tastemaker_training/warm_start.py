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
from tastemaker.types import Int64
from tastemaker_training.sharded_tables import RowsOf, chunks
from tastemaker_training.sharding import Distributed
from tastemaker_training.state import accumulators, local_parts

pc: Any = pyarrow.compute
ITEMS, ACCUMULATORS, MODEL, FIT = "items.parquet", "accumulators.safetensors", "two_tower", "refit"
"""Files of a finished two-tower training: its catalogue, and what each fit left."""
NEW = -1
"""The earlier row of what the earlier training did not have."""


@dataclass(frozen=True)
class WarmStart:
    """An earlier training of the two-tower, seen from a later catalogue.

    `rows_of` has for each table the earlier row of each row (R,), `NEW` where there was none.
    """

    tensors: Mapping[str, np.ndarray]
    sums: Mapping[str, np.ndarray]
    rows_of: Mapping[str, Int64]

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
                f"a warm start from {folder}",
                value=error.strerror,
                mend="train without, or name a finished training",
            ) from error
        return cls(tensors, sums, _rows_of(earlier, items, schema))

    def rows(self, fresh: RowsOf) -> RowsOf:
        """First values of tables: those learned, `fresh` where there are none."""

        def rows(spec: TableSpec, start: int, stop: int) -> Tensor:
            first_RD, learned = fresh(spec, start, stop), self.tensors.get(_weight(spec.name))
            from_R = self._from(spec.name, spec.num_rows, learned)[start:stop]
            known_R = from_R != NEW
            if learned is not None and learned.shape[1] == spec.dim:
                first_RD[torch.from_numpy(known_R)] = torch.from_numpy(
                    learned[from_R[known_R]].astype(np.float32)
                )
            return first_RD

        return rows

    def set_dense(self, model: nn.Module) -> None:
        """Sets the parameters and buffers of `model` that are no tables and have their earlier shape."""
        own = model.state_dict()
        for name, value in own.items():
            learned = self.tensors.get(name)
            if not name.startswith("tables.") and learned is not None and learned.shape == value.shape:
                value.copy_(torch.from_numpy(np.array(learned)))

    @torch.no_grad()
    def set_accumulators(self, distributed: Distributed) -> None:
        """Sets row-wise Adagrad's sums, so that rows that have learned much do not start to jump."""
        num_rows = {spec.name: spec.num_rows for spec in distributed.tables.specs}
        for table, _, value in accumulators(distributed):
            sums, rows = self.sums.get(table), num_rows[table]
            from_R = self._from(table, rows, sums)
            for begin, part in local_parts(value):
                for start, stop in chunks(len(part)):
                    # A column shard has its sums behind those of the shards before it.
                    at = from_R[(begin + np.arange(start, stop)) % rows]
                    learned = np.zeros(stop - start, np.float32)
                    if sums is not None:
                        learned[at != NEW] = sums[at[at != NEW]]
                    part[start:stop] = torch.from_numpy(learned)

    def _from(self, table: str, num_rows: int, learned: np.ndarray | None) -> Int64:
        """The earlier rows of a table; of one that no vocabulary stands behind the same, if its size is."""
        if table in self.rows_of:
            return self.rows_of[table]
        same = learned is not None and len(learned) == num_rows
        return np.arange(num_rows) if same else np.full(num_rows, NEW)


def _weight(table: str) -> str:
    return f"tables.embedding_bags.{table}.weight"


def _rows_of(earlier: pa.Table, items: pa.Table, schema: FeatureSchema) -> dict[str, Int64]:
    before = FeatureSchema.fit(earlier)
    return {
        "item_ids": _found(items[Column.ITEM_ID], earlier[Column.ITEM_ID]),
        "tags": _found(pa.array(schema.tags, pa.string()), pa.array(before.tags, pa.string())),
        "years": _years(before, schema),
    }


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
