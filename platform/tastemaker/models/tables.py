"""How a model sees its embedding tables: bags of rows in, weighted sums out.

Models call `Tables.lookup` and know nothing of where the rows lie. `PlainTables` keeps them in one process;
training puts TorchRec's sharded collections behind the same protocol, under the same names
(`embedding_bags.T.weight`). A weighted mean is a weighted sum whose weights were divided outside.

Shape letters: B bags, V values of all bags, D dimension.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from tastemaker.features.ranking_batch import Bag
from tastemaker.strict import Strict


@dataclass(frozen=True, slots=True)
class Jagged:
    """B bags of table rows, laid end to end: bag b holds the next `lengths[b]` of `values`.

    `values` is int64 (V,), `lengths` int64 (B,), `weights` float32 (V,), one for each value. An empty bag
    sums to zero.
    """

    values: Tensor
    lengths: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return len(self.lengths)

    @classmethod
    def from_lists(
        cls, values: Sequence[npt.ArrayLike], weights: Sequence[npt.ArrayLike] | None = None
    ) -> "Jagged":
        """One bag per entry; without `weights` every value weighs 1."""
        bags = [np.asarray(bag, np.int64).reshape(-1) for bag in values]
        lengths = np.array([len(bag) for bag in bags], np.int64)
        flat = np.concatenate(bags) if bags else np.empty(0, np.int64)
        if weights is None:
            flat_weights = np.ones(len(flat), np.float32)
        else:
            parts = [np.asarray(bag, np.float32).reshape(-1) for bag in weights]
            flat_weights = np.concatenate(parts) if parts else np.empty(0, np.float32)
        assert len(flat) == len(flat_weights)
        return cls(torch.from_numpy(flat), torch.from_numpy(lengths), torch.from_numpy(flat_weights))

    def offsets(self) -> Tensor:
        """Where each bag begins in `values`, int64 (B,)."""
        return torch.cumsum(self.lengths, 0) - self.lengths


class TableSpec(Strict):
    """One embedding table and the features that read it."""

    name: str = Field(description="the table's name in the state: embedding_bags.NAME.weight")
    num_rows: int = Field(ge=1, description="rows")
    dim: int = Field(ge=1, description="columns")
    features: tuple[str, ...] = Field(min_length=1, description="features that share the table")
    init_scale: float = Field(0.05, gt=0, description="rows start uniform in plus or minus this")


class Tables(Protocol):
    """What a model needs of its tables. Implementations are `nn.Module`s."""

    def lookup(self, bags: Mapping[str, Jagged]) -> dict[str, Tensor]:
        """For each feature in `bags` the weighted sums (B, D) of its bags' rows; features may differ in B."""
        ...


def init_table(weight: Tensor, spec: TableSpec) -> None:
    """Fills a table in place with its starting values, drawn from torch's global generator."""
    nn.init.uniform_(weight, -spec.init_scale, spec.init_scale)


def _bags(spec: TableSpec) -> nn.EmbeddingBag:
    """An empty table; on the device meta it draws nothing, for which torch would import its compiler: seconds, 100 MB."""
    weight = torch.empty(spec.num_rows, spec.dim)
    if not weight.is_meta:
        weight.normal_()
    return nn.EmbeddingBag(spec.num_rows, spec.dim, mode="sum", _weight=weight)


class PlainTables(nn.Module):
    """All tables in this process, as `nn.EmbeddingBag`. Lookups are thread-safe while nobody trains."""

    def __init__(self, specs: Sequence[TableSpec]) -> None:
        super().__init__()
        self.specs = tuple(specs)
        self.embedding_bags = nn.ModuleDict({spec.name: _bags(spec) for spec in specs})
        for spec in self.specs:
            if not self.weight(spec.name).is_meta:
                init_table(self.weight(spec.name).data, spec)
        self._table_of = {feature: spec.name for spec in specs for feature in spec.features}
        assert len(self._table_of) == sum(len(spec.features) for spec in specs), "a feature reads one table"

    def weight(self, table: str) -> Tensor:
        """The table's rows, (rows, D)."""
        weight = self.embedding_bags[table].weight
        assert isinstance(weight, Tensor)
        return weight

    def lookup(self, bags: Mapping[str, Jagged]) -> dict[str, Tensor]:
        """See `Tables.lookup`."""
        return {
            feature: self._sums(self.weight(self._table_of[feature]), bag) for feature, bag in bags.items()
        }

    @staticmethod
    def _sums(weight: Tensor, bag: Jagged) -> Tensor:
        return functional.embedding_bag(
            bag.values, weight, bag.offsets(), mode="sum", per_sample_weights=bag.weights.to(weight.dtype)
        )


def jagged(bags: Mapping[str, Bag]) -> dict[str, Jagged]:
    """The bags as tensors; they share the arrays' memory."""
    return {feature: Jagged(*(torch.from_numpy(array) for array in bag)) for feature, bag in bags.items()}
