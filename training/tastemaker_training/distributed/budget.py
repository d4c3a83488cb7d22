"""Whether the ranks have room for the tables and their optimizer state, before anything is placed and as it was placed."""

from collections.abc import Mapping, Sequence

import psutil
import torch
from torchrec.distributed.comm import get_local_size

from tastemaker.errors import TrainingError
from tastemaker.models.tables import TableSpec
from tastemaker_training.distributed.sharded_tables import device
from tastemaker_training.plan.fit_config import Placement, ShardingConfig, TableType

_ROW_BYTES: Mapping[TableType, int] = {"fp32": 4, "fp16": 2}
_ACCUMULATOR_BYTES = 4


def check_budget(
    specs: Sequence[TableSpec], placements: Mapping[str, Placement], sharding: ShardingConfig, num_ranks: int
) -> None:
    """Lets pass tables that the ranks' budget can hold at best.

    Raises:
        TrainingError: A table, or all together, needs more; says how much.
    """
    budget = rank_budget(sharding)
    together = 0
    for spec in specs:
        size = table_bytes(spec, sharding.type_of(spec.name))
        spread = placements[spec.name] in ("row_wise", "column_wise")
        together += size * (num_ranks if placements[spec.name] == "data_parallel" else 1)
        room = budget * num_ranks if spread else budget
        if size > room:
            where = f"{num_ranks} ranks have for it" if spread else "one rank has for it"
            raise _too_large(f"table {spec.name} and its optimizer state", size, room, where)
    if together > budget * num_ranks:
        raise _too_large(
            "the tables and their optimizer state", together, budget * num_ranks, f"{num_ranks} ranks have"
        )


def rank_budget(sharding: ShardingConfig) -> int:
    """Bytes that a rank may give to tables: the recipe's, or this rank's share of the device's memory."""
    if sharding.budget_mib is not None:
        return sharding.budget_mib * 2**20
    if device().type == "cuda":
        return int(torch.cuda.get_device_properties(device()).total_memory)
    return int(psutil.virtual_memory().total) // max(get_local_size(), 1)


def check_ranks(bytes_by_rank: Mapping[int, int], sharding: ShardingConfig) -> None:
    """Lets pass a plan that puts on no rank more than its budget.

    Raises:
        TrainingError: It does; says how much more.
    """
    budget = rank_budget(sharding)
    for rank, size in sorted(bytes_by_rank.items()):
        if size > budget:
            raise _too_large(f"what the plan puts on rank {rank}", size, budget, "a rank has")


def table_bytes(spec: TableSpec, table_type: TableType) -> int:
    """Bytes of a table with one float of optimizer state a row.

    >>> table_bytes(TableSpec(name="t", num_rows=10, dim=4, features=("f",)), "fp32")
    200
    """
    return part_bytes(spec.num_rows, spec.dim, table_type)


def part_bytes(num_rows: int, dim: int, table_type: TableType) -> int:
    """The same of a part of a table."""
    return num_rows * (dim * _ROW_BYTES[table_type] + _ACCUMULATOR_BYTES)


def _too_large(what: str, size: int, room: int, whose: str) -> TrainingError:
    return TrainingError(
        what, value=f"{size / 2**20:.1f} MiB", limit=f"at most the {room / 2**20:.1f} MiB that {whose}",
        mend=f"{(size - room) / 2**20:.1f} MiB are missing: add workers, raise sharding.budget_mib, place it row_wise "
        "or make it smaller",
    )  # fmt: skip
