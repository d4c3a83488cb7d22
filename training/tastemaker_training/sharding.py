"""The one place that applies TorchRec: embedding tables spread over the ranks, the rest data-parallel.

A model sees its tables through `Tables.lookup`. Here an `EmbeddingBagCollection` answers that call: it
starts on the meta device, is placed by TorchRec's planner, and is updated by row-wise Adagrad fused into
the backward pass. Gradients are means over the ranks, as DDP's are. Only device and backend differ
between CPU with gloo and GPU with NCCL.

Shape letters: B requests, D dimension, R rows of a table, V values of all bags.
"""

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from torch import Tensor, nn
from torchrec.distributed.comm import get_local_size
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints, Topology
from torchrec.distributed.planner.types import PlannerError
from torchrec.distributed.types import ShardingEnv, ShardingPlan, ShardingType
from torchrec.modules.embedding_configs import EmbeddingBagConfig, PoolingType
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from tastemaker.errors import TrainingError
from tastemaker.models.tables import Jagged, TableSpec
from tastemaker.types import Float32
from tastemaker_training.fit_config import OptimizerConfig, Placement, ShardingConfig

_KERNELS: Mapping[Placement, str] = {"table_wise": "fused", "row_wise": "fused", "data_parallel": "dense"}
_CHUNK_ROWS = 65_536
RowsOf = Callable[[TableSpec, int, int], Tensor]


class ShardedTables(nn.Module):
    """`Tables` over a TorchRec collection.

    Every lookup is an exchange between the ranks, so all ranks must make the same lookups in the same order,
    with equal numbers of bags. `prefetch` answers the following lookups of a step by a single exchange.
    """

    def __init__(self, specs: Sequence[TableSpec]) -> None:
        super().__init__()
        self.specs = tuple(specs)
        self.features = tuple(feature for spec in specs for feature in spec.features)
        self.collection = EmbeddingBagCollection(
            tables=[_bag_config(spec) for spec in specs], is_weighted=True, device=torch.device("meta")
        )
        self._prefetched: dict[str, Tensor] = {}

    def prefetch(self, bags: Mapping[str, Jagged]) -> None:
        """Looks all `bags` up at once; `lookup` then hands each feature out once."""
        self._prefetched = self._exchange(bags)

    def lookup(self, bags: Mapping[str, Jagged]) -> dict[str, Tensor]:
        """Weighted sums of each feature's bags, (B, D); B may differ between features."""
        if self._prefetched.keys() >= bags.keys():
            return {feature: self._prefetched.pop(feature) for feature in bags}
        return self._exchange(bags)

    def _exchange(self, bags: Mapping[str, Jagged]) -> dict[str, Tensor]:
        pooled = self.collection(keyed(bags, self.features))
        # A sharded collection's columns are not in config order: by key only.
        return {feature: pooled[feature][: len(bag.lengths)] for feature, bag in bags.items()}

    @torch.no_grad()
    def fill(self, rows: RowsOf) -> None:
        """Sets this rank's rows; `rows(spec, start, stop)` gives (stop - start, D)."""
        for spec in self.specs:
            for shard, start in self._local(spec.name):
                shard.copy_(rows(spec, start, start + len(shard)))

    def _local(self, table: str) -> list[tuple[Tensor, int]]:
        weight = self.collection.state_dict()[f"embedding_bags.{table}.weight"]
        if not hasattr(weight, "local_shards"):
            return [(weight, 0)]
        return [(shard.tensor, int(shard.metadata.shard_offsets[0])) for shard in weight.local_shards()]

    @torch.no_grad()
    def plain_tensors(self) -> dict[str, Float32]:
        """Whole tables under their plain names on rank 0, nothing elsewhere. Every rank must call it."""
        gathered: dict[str, Float32] = {}
        for name, weight in self.collection.state_dict().items():
            whole = self._gather(name.split(".")[-2], weight)
            if whole is not None:
                gathered[name] = whole.cpu().numpy()
        return gathered

    def _gather(self, table: str, weight: Any) -> Tensor | None:
        first = dist.get_rank() == 0
        if not hasattr(weight, "local_shards"):
            return weight.detach().clone() if first else None
        spec = next(spec for spec in self.specs if spec.name == table)
        whole = torch.empty(spec.num_rows, spec.dim, device=device()) if first else None
        weight.gather(dst=0, out=whole)
        return whole


def keyed(bags: Mapping[str, Jagged], features: Sequence[str]) -> KeyedJaggedTensor:
    """One jagged tensor over all `features`, in that order.

    Absent features, and the end of those that have fewer bags than the longest, become empty bags.
    """
    to = device()
    stride = max(len(bag.lengths) for bag in bags.values())
    values, weights, lengths = [], [], []
    for feature in features:
        length = torch.zeros(stride, dtype=torch.int64)
        if feature in bags:
            bag = bags[feature]
            length[: len(bag.lengths)] = bag.lengths
            values.append(bag.values)
            weights.append(bag.weights)
        lengths.append(length)
    return KeyedJaggedTensor(
        keys=list(features),
        values=torch.cat(values).to(to),
        weights=torch.cat(weights).to(to),
        lengths=torch.cat(lengths).to(to),
        stride=stride,
    )


class _Sharder(EmbeddingBagCollectionSharder):
    """Row-wise works on CPU with gloo, though TorchRec's planner does not offer it there."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        offered = list(super().sharding_types(compute_device_type))
        return offered if ShardingType.ROW_WISE.value in offered else [*offered, ShardingType.ROW_WISE.value]


@dataclass(frozen=True)
class TableShard:
    """Where a part of a table lies."""

    table: str
    placement: str
    rank: int
    num_rows: int
    dim: int


@dataclass
class Distributed:
    """A module over the ranks of the default process group, with its optimizers."""

    module: DistributedModelParallel
    tables: ShardedTables
    dense: torch.optim.Optimizer
    replicated: RowWiseAdagrad | None
    plan: tuple[TableShard, ...]
    config: OptimizerConfig

    def step(self, loss: Tensor) -> float:
        """One update of all parameters from a scalar loss of this rank's examples; gives the loss's value.

        Raises:
            TrainingError: The loss is not a number.
        """
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingError(
                "the loss", value=value, limit="finite", mend="lower the recipe's learning rates"
            )
        self.dense.zero_grad(set_to_none=True)
        if self.replicated is not None:
            self.replicated.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.dense.step()
        if self.replicated is not None:
            self.replicated.step()
        return value

    def scale_learning_rates(self, factor: float) -> None:
        """Sets every learning rate to `factor` times that of its config, from the next step on."""
        dense_rate = self.config.dense_learning_rate * factor
        table_rate = self.config.table_learning_rate * factor
        _set_rate(self.dense, dense_rate)
        if self.replicated is not None:
            _set_rate(self.replicated, table_rate)
        _set_rate(self.module.fused_optimizer, table_rate)
        self.module.fused_optimizer.step()  # hands over the rate only; the backward pass does the update


def _set_rate(optimizer: Any, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def distribute(
    module: nn.Module,
    tables: ShardedTables,
    sharding: ShardingConfig,
    optimizers: OptimizerConfig,
    rows: RowsOf,
) -> Distributed:
    """Spreads `module`, which holds `tables`, over the default process group.

    Args:
        module: Single-device module whose forward gives the loss; its dense parameters become replicas (DDP).
        tables: The module's tables, still on the meta device.
        sharding: Where each table goes.
        optimizers: The same arithmetic whether a table is sharded or replicated.
        rows: First values of the tables, the same for every plan (see `initial_rows`).

    Raises:
        TrainingError: `sharding` names a table that the model has not, or no rank has room for one.
    """
    placements = sharding.placements([spec.name for spec in tables.specs])
    fused = {
        "optimizer": EmbOptimType.EXACT_ROWWISE_ADAGRAD,
        "learning_rate": optimizers.table_learning_rate,
        "eps": optimizers.table_epsilon,
    }
    sharders: list[Any] = [_Sharder(fused_params=fused)]
    plan = _plan(module, placements, sharders)
    distributed = DistributedModelParallel(
        module, env=ShardingEnv.from_process_group(_world()), device=device(), plan=plan, sharders=sharders
    )
    tables.fill(rows)
    weights = [(name, p) for name, p in distributed.named_parameters() if ".embedding_bags." in name]
    replicated = [p for name, p in weights if placements[name.split(".")[-2]] == "data_parallel"]
    dense = [p for name, p in distributed.named_parameters() if ".embedding_bags." not in name]
    return Distributed(
        distributed,
        tables,
        torch.optim.AdamW(
            dense, lr=optimizers.dense_learning_rate, weight_decay=optimizers.dense_weight_decay
        ),
        RowWiseAdagrad(replicated, lr=optimizers.table_learning_rate, eps=optimizers.table_epsilon)
        if replicated
        else None,
        _shards(plan, tables.specs),
        optimizers,
    )


def plain_state(model: nn.Module, tables: ShardedTables) -> dict[str, np.ndarray]:
    """The state of the single-device model, under its names; its tables are at `model.tables`.

    Whole on rank 0, dense parts only elsewhere. Every rank must call it.
    """
    dense = {name: value for name, value in model.state_dict().items() if not name.startswith("tables.")}
    state = {name: value.detach().cpu().numpy().copy() for name, value in dense.items()}
    return state | {f"tables.{name}": value for name, value in tables.plain_tensors().items()}


def initial_rows(seed: int) -> RowsOf:
    """First values of tables, uniform within plus or minus each spec's `init_scale`.

    A row's values depend on nothing but the seed, the table's name and size, and the row, so that every plan
    and every number of ranks starts from the same.
    """

    def rows(spec: TableSpec, start: int, stop: int) -> Tensor:
        first = start // _CHUNK_ROWS
        chunks = [_chunk(seed, spec, chunk) for chunk in range(first, -(-stop // _CHUNK_ROWS))]
        return torch.cat(chunks)[start - first * _CHUNK_ROWS : stop - first * _CHUNK_ROWS]

    return rows


def _chunk(seed: int, spec: TableSpec, chunk: int) -> Tensor:
    key = zlib.crc32(f"{seed}/{spec.name}/{chunk}".encode())
    generator = torch.Generator().manual_seed(key)
    num_rows = min(_CHUNK_ROWS, spec.num_rows - chunk * _CHUNK_ROWS)
    uniform_RD = torch.rand(num_rows, spec.dim, generator=generator)
    return (2 * uniform_RD - 1) * spec.init_scale


def device() -> torch.device:
    """Where this rank computes: its GPU under NCCL, else the CPU."""
    if dist.is_initialized() and dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def _world() -> dist.ProcessGroup:
    group = dist.group.WORLD
    assert group is not None, "needs an initialised process group"
    return group


def _bag_config(spec: TableSpec) -> EmbeddingBagConfig:
    return EmbeddingBagConfig(
        name=spec.name,
        num_embeddings=spec.num_rows,
        embedding_dim=spec.dim,
        feature_names=list(spec.features),
        pooling=PoolingType.SUM,
    )


def _plan(module: nn.Module, placements: Mapping[str, Placement], sharders: list[Any]) -> ShardingPlan:
    constraints = {
        table: ParameterConstraints(
            sharding_types=[placement],
            compute_kernels=[_KERNELS[placement]],
            is_weighted=True,
        )
        for table, placement in placements.items()
    }
    topology = Topology(
        world_size=dist.get_world_size(), local_world_size=get_local_size(), compute_device=device().type
    )
    planner = EmbeddingShardingPlanner(topology=topology, constraints=constraints)
    try:
        return planner.collective_plan(module, sharders, _world())
    except PlannerError as error:
        raise TrainingError(
            "no rank has room for the tables",
            value=str(error),
            mend="add workers or place large tables row_wise",
        ) from error


def _shards(plan: ShardingPlan, specs: Sequence[TableSpec]) -> tuple[TableShard, ...]:
    sizes = {spec.name: (spec.num_rows, spec.dim) for spec in specs}
    found = []
    for parameters in plan.plan.values():
        for table, parameter in parameters.items():
            if parameter.sharding_spec is None:
                parts = [(rank, sizes[table]) for rank in parameter.ranks]
            else:
                parts = [
                    (shard.placement.rank(), tuple(shard.shard_sizes))
                    for shard in parameter.sharding_spec.shards
                ]
            found += [TableShard(table, parameter.sharding_type, rank, *size) for rank, size in parts]
    return tuple(found)
