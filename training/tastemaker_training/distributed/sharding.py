"""The one place that applies TorchRec's planner: embedding tables spread over the ranks, the rest data-parallel.

Tables are updated by row-wise Adagrad fused into the backward pass, the dense rest by AdamW on gradients that are means
over the ranks, as DDP's are. Only device and backend differ between CPU with gloo and GPU with NCCL.
"""

import math
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

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
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

from tastemaker.errors import TrainingError
from tastemaker_training.distributed.budget import check_budget, check_ranks, part_bytes, rank_budget
from tastemaker_training.distributed.sharded_tables import RowsOf, ShardedTables, device
from tastemaker_training.plan.fit_config import OptimizerConfig, Placement, Precision, ShardingConfig

_KERNELS: Mapping[Placement, str] = {
    "table_wise": "fused", "row_wise": "fused", "column_wise": "fused", "data_parallel": "dense",
}  # fmt: skip
_PLANNER_SLACK_BYTES = 2**30
"""The planner also counts what lookups send around, which the budget for tables does not."""


class _Sharder(EmbeddingBagCollectionSharder):
    """Row- and column-wise work on CPU with gloo, though TorchRec's planner does not offer them there."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        offered = list(super().sharding_types(compute_device_type))
        more = (ShardingType.ROW_WISE.value, ShardingType.COLUMN_WISE.value)
        return offered + [kind for kind in more if kind not in offered]


@dataclass(frozen=True)
class TableShard:
    """Where a part of a table lies. `num_bytes` holds its optimizer state too."""

    table: str
    placement: str
    rank: int
    num_rows: int
    dim: int
    num_bytes: int


@dataclass
class Distributed:
    """A module over the ranks of the default process group, with its optimizers."""

    module: DistributedModelParallel
    tables: ShardedTables
    dense: torch.optim.AdamW
    replicated: RowWiseAdagrad | None
    plan: tuple[TableShard, ...]
    config: OptimizerConfig
    precision: Precision = "fp32"

    def step(self, loss: Tensor) -> float:
        """One update from a scalar loss of this rank's examples; gives the loss's value.

        Raises:
            TrainingError: The loss is not a number.
        """
        value = self.backward(loss)
        self.update()
        return value

    def backward(self, loss: Tensor, part: int = 0, parts: int = 1) -> float:
        """Updates the sharded tables, and gathers the gradients of the rest, from a scalar loss; gives its value.

        Args:
            loss: Mean over this rank's examples.
            part: Of an update of the rest that takes several backward passes, which one this is.
            parts: Backward passes of such an update.

        Raises:
            TrainingError: The loss is not a number.
        """
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingError(
                "the loss", value=value, limit="finite", mend="lower the recipe's learning rates"
            )
        if part == 0:
            self.dense.zero_grad(set_to_none=True)
            if self.replicated is not None:
                self.replicated.zero_grad(set_to_none=True)
        (loss / parts if parts > 1 else loss).backward()  # type: ignore[no-untyped-call]
        return value

    def update(self) -> None:
        """Updates what is not a sharded table, by the gradients gathered since the last update."""
        if self.config.dense_clip_norm is not None:
            nn.utils.clip_grad_norm_(self.dense.param_groups[0]["params"], self.config.dense_clip_norm)
        self.dense.step()
        if self.replicated is not None:
            self.replicated.step()

    def arithmetic(self) -> AbstractContextManager[Any]:
        """In which a forward pass belongs: it lets the dense parts compute in the configured precision."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(device().type, torch.bfloat16)

    def scale_learning_rates(self, factor: float) -> None:
        """Sets every learning rate to `factor` times that of its config, from the next step on."""
        dense_rate = self.config.dense_learning_rate * factor
        table_rate = self.config.table_learning_rate * factor
        _set_rate(self.dense, dense_rate)
        if self.replicated is not None:
            _set_rate(self.replicated, table_rate)
        _set_rate(self.module.fused_optimizer, table_rate)
        self.module.fused_optimizer.step()  # hands over the rate only; the backward pass does the update

    def dense_parameters(self) -> dict[str, nn.Parameter]:
        """All that is not a table, by name."""
        return {name: p for name, p in self.module.named_parameters() if not is_table(name)}

    def replicated_tables(self) -> dict[str, nn.Parameter]:
        """The data-parallel tables, by table."""
        mine = {shard.table for shard in self.plan if shard.placement == "data_parallel"}
        weights = {table_of(name): p for name, p in self.module.named_parameters() if is_table(name)}
        return {table: p for table, p in weights.items() if table in mine}


def is_table(name: str) -> bool:
    """Whether a parameter's name is that of a table's weight."""
    return ".embedding_bags." in name


def table_of(name: str) -> str:
    """The table whose weight a parameter is.

    >>> table_of("model.tables.collection.embedding_bags.item_ids.weight")
    'item_ids'
    """
    return name.split(".")[-2]


def _set_rate(optimizer: Any, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def distribute(
    module: nn.Module,
    tables: ShardedTables,
    sharding: ShardingConfig,
    optimizers: OptimizerConfig,
    rows: RowsOf,
    precision: Precision = "fp32",
) -> Distributed:
    """Spreads `module`, which holds `tables`, over the default process group.

    Args:
        module: Single-device module whose forward gives the loss; its dense parameters become replicas (DDP).
        tables: The module's tables, still on the meta device.
        sharding: Where each table goes.
        optimizers: The same arithmetic whether a table is sharded or replicated.
        rows: First values of the tables, the same for every plan (see `initial_rows`).
        precision: Of the dense parts' arithmetic.

    Raises:
        TrainingError: `sharding` names a table that the model has not, or the ranks have no room for the tables.
    """
    placements = sharding.placements([spec.name for spec in tables.specs])
    check_budget(tables.specs, placements, sharding, dist.get_world_size())
    fused = {
        "optimizer": EmbOptimType.EXACT_ROWWISE_ADAGRAD,
        "learning_rate": optimizers.table_learning_rate,
        "eps": optimizers.table_epsilon,
    }
    sharders: list[Any] = [_Sharder(fused_params=fused)]
    plan = _plan(module, placements, sharding, sharders)
    shards = _shards(plan, tables)
    by_rank: Counter[int] = Counter()
    for shard in shards:
        by_rank[shard.rank] += shard.num_bytes
    check_ranks(by_rank, sharding)
    distributed = DistributedModelParallel(
        module, env=ShardingEnv.from_process_group(_world()), device=device(), plan=plan, sharders=sharders
    )
    tables.spare_weight_gradients()
    tables.fill(rows)
    dense = [p for name, p in distributed.named_parameters() if not is_table(name)]
    adam = torch.optim.AdamW(
        dense, lr=optimizers.dense_learning_rate, weight_decay=optimizers.dense_weight_decay
    )
    found = Distributed(distributed, tables, adam, None, shards, optimizers, precision)
    if replicas := list(found.replicated_tables().values()):
        rate, epsilon = optimizers.table_learning_rate, optimizers.table_epsilon
        found.replicated = RowWiseAdagrad(replicas, lr=rate, eps=epsilon)
    return found


def _world() -> dist.ProcessGroup:
    group = dist.group.WORLD
    assert group is not None, "needs an initialised process group"
    return group


def _plan(
    module: nn.Module, placements: Mapping[str, Placement], sharding: ShardingConfig, sharders: list[Any]
) -> ShardingPlan:
    constraints = {
        table: ParameterConstraints(
            sharding_types=[placement],
            compute_kernels=[_KERNELS[placement]],
            min_partition=sharding.column_width,
            is_weighted=True,
        )
        for table, placement in placements.items()
    }
    to = device().type
    room = rank_budget(sharding) * 5 // 4 + _PLANNER_SLACK_BYTES
    topology = Topology(
        world_size=dist.get_world_size(),
        local_world_size=get_local_size(),
        compute_device=to,
        **{"hbm_cap" if to == "cuda" else "ddr_cap": room},
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


def _shards(plan: ShardingPlan, tables: ShardedTables) -> tuple[TableShard, ...]:
    sizes = {spec.name: (spec.num_rows, spec.dim) for spec in tables.specs}
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
            for rank, (rows, dim) in parts:
                size = part_bytes(rows, dim, tables.types[table])
                found.append(TableShard(table, parameter.sharding_type, rank, rows, dim, size))
    return tuple(found)
