"""`Tables` over the ranks: a TorchRec collection that answers a model's lookups, and access to this rank's rows.

A table starts on the meta device and exists nowhere as a whole: it is filled, checkpointed and exported shard by
shard. Where the shards lie is decided by `sharding`.

Shape letters: B requests, D dimension, R rows of a table, V values of all bags.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchrec.modules.embedding_configs import EmbeddingBagConfig, PoolingType
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor, KeyedTensor
from torchrec.types import DataType

from tastemaker.models.tables import Jagged, TableSpec
from tastemaker_training.plan.fit_config import ShardingConfig, TableType

_TYPES: Mapping[TableType, DataType] = {"fp32": DataType.FP32, "fp16": DataType.FP16}
_CHUNK_ROWS = 65_536
RowsOf = Callable[[TableSpec, int, int], Tensor]
"""Gives the rows (stop - start, D) of a table from start to stop."""


@dataclass(frozen=True)
class Shard:
    """A rectangle of a table that this rank holds: `rows_RD` begins at `row` and `column` of the whole.

    Every rank holds all of a `replicated` table.
    """

    table: str
    row: int
    column: int
    rows_RD: Tensor
    replicated: bool = False


class ShardedTables(nn.Module):
    """`Tables` over a TorchRec collection.

    Every lookup is an exchange between the ranks, so all ranks must make the same lookups in the same order,
    with equal numbers of bags. `prefetch` answers the following lookups of a step by a single exchange.
    """

    def __init__(self, specs: Sequence[TableSpec], sharding: ShardingConfig | None = None) -> None:
        super().__init__()
        told = sharding or ShardingConfig()
        self.specs = tuple(specs)
        self.types: dict[str, TableType] = {spec.name: told.type_of(spec.name) for spec in specs}
        self.features = tuple(feature for spec in specs for feature in spec.features)
        self.collection = EmbeddingBagCollection(
            tables=[_bag_config(spec, self.types[spec.name]) for spec in specs],
            is_weighted=True,
            device=torch.device("meta"),
        )
        self._prefetched: dict[str, Tensor] = {}

    def prefetch(self, bags: Mapping[str, Jagged]) -> None:
        """Looks all `bags` up at once; `lookup` then hands each feature out once."""
        num_bags = {feature: len(bag) for feature, bag in bags.items()}
        self.hand_out(self.collection(keyed(bags, self.features).to(device())), num_bags)

    def hand_out(self, pooled: KeyedTensor, num_bags: Mapping[str, int]) -> None:
        """Lets the following lookups find what the collection gave; each feature has its first `num_bags` of them."""
        # A sharded collection's columns are not in config order: by key only. All features are cut at once: the backward
        # pass of a slice for each would fill and add as many gradients of the whole answer.
        found = pooled.to_dict()
        self._prefetched = {
            feature: _first(found[feature], number).float() for feature, number in num_bags.items()
        }

    def lookup(self, bags: Mapping[str, Jagged]) -> dict[str, Tensor]:
        """Weighted sums of each feature's bags, (B, D); B may differ between features."""
        if not self._prefetched.keys() >= bags.keys():
            self.prefetch(bags)
        return {feature: self._prefetched.pop(feature) for feature in bags}

    def spare_weight_gradients(self) -> None:
        """Has fbgemm leave out the gradients of the bags' weights, a tenth of a step on CPU: nobody learns weights.

        To be called once the collection is sharded. It reaches through attributes that TorchRec does not promise; where
        they are not there, the gradients are computed and thrown away.
        """
        lookups: Any = getattr(self.collection, "_lookups", ())
        for lookup in lookups:
            for kernel in getattr(getattr(lookup, "module", lookup), "_emb_modules", ()):
                module: Any = getattr(kernel, "emb_module", None)
                if hasattr(module, "feature_table_map"):
                    none_T = torch.zeros(len(module.feature_table_map), dtype=torch.int32, device=device())
                    module.register_forward_pre_hook(
                        partial(_without_weight_gradients, none_T), with_kwargs=True
                    )

    @torch.no_grad()
    def fill(self, rows: RowsOf) -> None:
        """Sets this rank's rows, a chunk at a time; `rows(spec, start, stop)` gives (stop - start, D)."""
        specs = {spec.name: spec for spec in self.specs}
        for shard in self.shards():
            width = shard.column + shard.rows_RD.shape[1]
            for start, stop in chunks(len(shard.rows_RD)):
                values_RD = rows(specs[shard.table], shard.row + start, shard.row + stop)
                shard.rows_RD[start:stop].copy_(values_RD[:, shard.column : width])

    def shards(self) -> Iterator[Shard]:
        """What this rank holds, table by table; a replicated table is one shard of every rank."""
        state = self.collection.state_dict()
        for spec in self.specs:
            weight = state[f"embedding_bags.{spec.name}.weight"]
            if not hasattr(weight, "local_shards"):
                yield Shard(spec.name, 0, 0, weight, replicated=True)
                continue
            for shard in weight.local_shards():
                row, column = shard.metadata.shard_offsets
                yield Shard(spec.name, int(row), int(column), shard.tensor)


def _without_weight_gradients(
    none_T: Tensor, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    del module
    return args, kwargs | {"feature_requires_grad": none_T}


def _first(pooled_BD: Tensor, num_bags: int) -> Tensor:
    return pooled_BD if len(pooled_BD) == num_bags else pooled_BD[:num_bags]


def keyed(bags: Mapping[str, Jagged], features: Sequence[str]) -> KeyedJaggedTensor:
    """One jagged tensor in this host's memory over all `features`, in that order.

    Absent features, and the end of those that have fewer bags than the longest, become empty bags.
    """
    stride = max(len(bag.lengths) for bag in bags.values())
    values, weights = [], []
    length_FB = torch.zeros(len(features), stride, dtype=torch.int64)
    for row, feature in enumerate(features):
        if feature in bags:
            bag = bags[feature]
            length_FB[row, : len(bag.lengths)] = bag.lengths
            values.append(bag.values)
            weights.append(bag.weights)
    return KeyedJaggedTensor(
        keys=list(features),
        values=torch.cat(values),
        weights=torch.cat(weights),
        lengths=length_FB.view(-1),
        stride=stride,
    )


def initial_rows(seed: int) -> RowsOf:
    """First values of tables, uniform within plus or minus each spec's `init_scale`.

    A row's values depend on nothing but the seed, the table's name and size, and the row, so that every plan
    and every number of ranks starts from the same.
    """

    def rows(spec: TableSpec, start: int, stop: int) -> Tensor:
        first = start // _CHUNK_ROWS
        parts = [_chunk(seed, spec, chunk) for chunk in range(first, -(-stop // _CHUNK_ROWS))]
        return torch.cat(parts)[start - first * _CHUNK_ROWS : stop - first * _CHUNK_ROWS]

    return rows


def _chunk(seed: int, spec: TableSpec, chunk: int) -> Tensor:
    key = zlib.crc32(f"{seed}/{spec.name}/{chunk}".encode())
    generator = torch.Generator().manual_seed(key)
    num_rows = min(_CHUNK_ROWS, spec.num_rows - chunk * _CHUNK_ROWS)
    uniform_RD = torch.rand(num_rows, spec.dim, generator=generator)
    return (2 * uniform_RD - 1) * spec.init_scale


def chunks(num_rows: int) -> Iterator[tuple[int, int]]:
    """Begin and end of the parts in which long tables are read and written."""
    for start in range(0, num_rows, _CHUNK_ROWS):
        yield start, min(start + _CHUNK_ROWS, num_rows)


def device() -> torch.device:
    """Where this rank computes: its GPU under NCCL, else the CPU."""
    if dist.is_initialized() and dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def _bag_config(spec: TableSpec, table_type: TableType) -> EmbeddingBagConfig:
    return EmbeddingBagConfig(
        name=spec.name,
        num_embeddings=spec.num_rows,
        embedding_dim=spec.dim,
        feature_names=list(spec.features),
        pooling=PoolingType.SUM,
        data_type=_TYPES[table_type],
    )
