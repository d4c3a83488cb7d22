"""The state of a fit under one set of names, whatever the plan and the number of ranks.

    dense/NAME                       a dense parameter or buffer
    dense_optimizer/NAME/{step,exp_avg,exp_avg_sq}
    table/T/weight                   rows of a table, (R, D)
    table/T/accumulator/C            row-wise Adagrad's sums, (C * R,): those of each of the C column shards

Tensors are this rank's own, sharded or whole: writing into them changes the fit. Shape letters: R rows, C column shards.
"""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torch.distributed._shard.sharded_tensor.shard import Shard
from torch.distributed.remote_device import _remote_device

from tastemaker_training.distributed.sharding import Distributed, is_table, table_of

State = dict[str, Any]


def fit_state(distributed: Distributed) -> State:
    """All that a fit has learned. Every rank must call it."""
    state: State = {}
    for name, value in distributed.module.state_dict().items():
        state[f"table/{table_of(name)}/weight" if is_table(name) else f"dense/{name}"] = value
    for name, parameter in distributed.dense_parameters().items():
        moments = _moments(distributed.dense, parameter)
        state |= {f"dense_optimizer/{name}/{key}": value for key, value in moments.items()}
    for table, blocks, value in accumulators(distributed):
        state[accumulator_name(table, blocks)] = value
    return state


def accumulators(distributed: Distributed) -> list[tuple[str, int, Any]]:
    """Table, column shards C, and its sums of squares (C * R,)."""
    found = []
    num_rows = {spec.name: spec.num_rows for spec in distributed.tables.specs}
    for name, values in distributed.module.fused_optimizer.state_dict()["state"].items():
        table = table_of(name)
        momentum = values[f"{table}.momentum1"]
        found.append((table, int(momentum.shape[0]) // num_rows[table], momentum))
    for table, parameter in distributed.replicated_tables().items():
        assert distributed.replicated is not None
        found.append((table, 1, distributed.replicated.state[parameter]["sum"].view(-1)))
    return found


def accumulator_name(table: str, blocks: int) -> str:
    """Where the sums of a table lie that has `blocks` column shards."""
    return f"table/{table}/accumulator/{blocks}"


def local_parts(value: Any) -> list[tuple[int, Tensor]]:
    """Where this rank's parts of a state's one-dimensional value begin, and the parts."""
    if not isinstance(value, ShardedTensor):
        return [(0, value)]
    return [(int(shard.metadata.shard_offsets[0]), shard.tensor) for shard in value.local_shards()]


def _moments(optimizer: torch.optim.AdamW, parameter: torch.nn.Parameter) -> dict[str, Tensor]:
    """AdamW's state of a parameter; made where no step has made it yet."""
    state = optimizer.state[parameter]
    if not state:
        state["step"] = torch.tensor(0.0)
        state["exp_avg"] = torch.zeros_like(parameter)
        state["exp_avg_sq"] = torch.zeros_like(parameter)
    return {key: state[key] for key in ("step", "exp_avg", "exp_avg_sq")}


class Staging:
    """Copies of a state in this host's memory, whose buffers are used again by the next copy.

    A copy is quick because nothing is allocated but the first time; torch's own stager does not know sharded tensors.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, int], Tensor] = {}

    @torch.no_grad()
    def copy(self, state: State) -> State:
        """The state as it is now, under the same names; whatever was copied before is overwritten."""
        staged = {name: self._copy(name, value) for name, value in state.items()}
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return staged

    def _copy(self, name: str, value: Any) -> Any:
        if not isinstance(value, ShardedTensor):
            return self._buffer(name, 0, value)
        metadata = deepcopy(value.metadata())
        for part in metadata.shards_metadata:
            placement = part.placement
            assert placement is not None
            part.placement = _remote_device(f"rank:{placement.rank()}/cpu")
        mine = {tuple(part.shard_offsets): part for part in metadata.shards_metadata}
        shards = [
            Shard(self._buffer(name, number, shard.tensor), mine[tuple(shard.metadata.shard_offsets)])
            for number, shard in enumerate(value.local_shards())
        ]
        return ShardedTensor._init_from_local_shards_and_global_metadata(shards, metadata)

    def _buffer(self, name: str, number: int, value: Tensor) -> Tensor:
        key = (name, number)
        if key not in self._buffers or self._buffers[key].shape != value.shape:
            pinned = value.is_cuda
            self._buffers[key] = torch.empty(value.shape, dtype=value.dtype, pin_memory=pinned)
        return self._buffers[key].copy_(value.detach(), non_blocking=True)
