"""How click models see fields: one table of embeddings for all of them, looked up once.

Shape letters: B rows of a batch, C fields of one value, V vectors of a row, D dimension, E = D + 1, F dense features.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tastemaker.models.ctr.fields import Fields, Rows
from tastemaker.models.ctr.model import Labelled

_START = 0.01


@dataclass(frozen=True, slots=True)
class Bags:
    """Rows of the table of a field with many values: bag b begins at `begin_B[b]`, `weight_V` makes sums means."""

    row_V: Tensor
    begin_B: Tensor
    weight_V: Tensor
    length_B: Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows as networks read them: rows of the table instead of values; of a table of the batch's own, where it has one."""

    row_BC: Tensor
    bags: Mapping[str, Bags]
    dense_BF: Tensor
    table_RE: Tensor | None = None


class FieldVectors(nn.Module):
    """One table for all fields. A row of it is an embedding and, last, the value's weight in a linear model.

    Values that are not known start as nothing: zeros. Numbers are standardised, a missing one is the mean.
    """

    starts_C: Tensor
    mean_F: Tensor
    scale_F: Tensor

    def __init__(self, fields: Fields, dim: int, *, sparse: bool) -> None:
        super().__init__()
        self.fields, self.dim, self.sparse = fields, dim, sparse
        starts, rows = {}, 0
        for name, num_rows in fields.num_rows.items():
            starts[name] = rows
            rows += num_rows
        for many in fields.multi:
            if many.like is not None:
                starts[many.name] = starts[many.like]
        self._starts = starts
        table = torch.randn(rows, dim + 1) * _START
        table[:, dim] = 0
        table[list(starts.values())] = 0
        self.table = nn.Parameter(table)
        num_dense = len(fields.dense)
        self.dense = nn.Parameter(torch.randn(num_dense, dim) * _START)
        self.dense_weight = nn.Parameter(torch.zeros(num_dense))
        self.bias = nn.Parameter(torch.zeros(()))
        self.register_buffer(
            "starts_C",
            torch.tensor([starts[one.name] for one in fields.categorical]).long(),
            persistent=False,
        )
        self.register_buffer("mean_F", torch.zeros(num_dense))
        self.register_buffer("scale_F", torch.ones(num_dense))

    @property
    def num_vectors(self) -> int:
        """V: one for each field."""
        return len(self.fields.names)

    def learn_scale(self, learned: Labelled) -> None:
        """Takes the numbers' mean and deviation, and the share of yes, from what is to be learned."""
        dense_NF = learned.rows.dense_NF.astype(np.float64)
        there_NF = ~np.isnan(dense_NF)
        count_F = np.maximum(there_NF.sum(0), 1)
        mean_F = np.where(there_NF, dense_NF, 0).sum(0) / count_F
        deviation_F = np.sqrt((np.where(there_NF, dense_NF - mean_F, 0) ** 2).sum(0) / count_F)
        self.mean_F.copy_(torch.from_numpy(mean_F))
        self.scale_F.copy_(torch.from_numpy(np.where(deviation_F > 1e-6, deviation_F, 1.0)))
        yes, num = float(learned.label_N.sum()), len(learned)
        self.bias.data.fill_(float(np.log((yes + 1) / (num - yes + 1))))

    def batch(self, rows: Rows) -> Batch:
        """What `forward` takes, of rows of the same fields."""
        bags = {}
        for many in self.fields.multi:
            values = rows.multi[many.name]
            length_B = np.diff(values.offsets)
            weight_V = values.weight_V
            if weight_V is None:
                weight_V = np.repeat(1.0 / np.maximum(length_B, 1), length_B).astype(np.float32)
            row_V = values.value_V.astype(np.int64) + self._starts[many.name]
            bags[many.name] = Bags(*map(torch.from_numpy, (row_V, values.offsets[:-1], weight_V, length_B)))
        dense_BF = (torch.from_numpy(rows.dense_NF) - self.mean_F) / self.scale_F
        row_BC = torch.from_numpy(rows.categorical_NC).long() + self.starts_C
        return Batch(row_BC, bags, torch.nan_to_num(dense_BF))

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Vectors (B, V, D): of one value, of many, of numbers; and the linear model's log-odds (B,)."""
        vector_BVD, linear_B = self.looked_up(batch)
        if self.fields.dense:
            vector_BVD = torch.cat([vector_BVD, batch.dense_BF[:, :, None] * self.dense], 1)
        return vector_BVD, linear_B

    def looked_up(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The same without the numbers' vectors; the linear model has the numbers."""
        parts = [self.rows_of(batch.row_BC, batch)]
        parts += [self.mean(bags, batch.table_RE)[:, None] for bags in batch.bags.values()]
        both_BVE = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
        linear_B = both_BVE[:, :, self.dim].sum(1) + batch.dense_BF @ self.dense_weight + self.bias
        return both_BVE[:, :, : self.dim], linear_B

    def rows_of(self, row: Tensor, batch: Batch) -> Tensor:
        """(..., D + 1) rows of the table that the batch is read by."""
        table_RE, is_sparse = self._read_by(batch.table_RE)
        return functional.embedding(row, table_RE, sparse=is_sparse)

    def mean(self, bags: Bags, table_RE: Tensor | None = None) -> Tensor:
        """(B, D + 1) means of the rows in each bag, of another table than the module's where one is given; an empty one gives zeros."""
        table_RE, is_sparse = self._read_by(table_RE)
        return functional.embedding_bag(
            bags.row_V, table_RE, bags.begin_B, mode="sum", sparse=is_sparse,
            per_sample_weights=bags.weight_V,
        )  # fmt: skip

    def _read_by(self, table_RE: Tensor | None) -> tuple[Tensor, bool]:
        """A table, and whether its gradient is sparse: that of one that was worked out cannot be."""
        return (self.table, self.sparse) if table_RE is None else (table_RE, False)


class Network(nn.Module):
    """What learns: logits (B,) of a batch, and what is added to the loss."""

    vectors: FieldVectors
    read_singly: frozenset[str] = frozenset()
    """Fields of many values of which it reads more than their mean."""

    def penalty(self) -> Tensor | None:
        """Added to each step's mean loss."""
        return None
