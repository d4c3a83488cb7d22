"""One rank that saves a model of about 1 GiB and trains on meanwhile: how long a step waits, how long the save takes."""

import statistics
import time
from pathlib import Path
from typing import Any

import torch.distributed as dist
from training_model import GLOBAL_BATCH, WARM_UP_STEPS, BenchDlrm, batches, bench_specs
from training_ranks import answer
from turns import Measured

from tastemaker_training.distributed.checkpoint_files import MANIFEST, Position
from tastemaker_training.distributed.checkpoints import Checkpoints
from tastemaker_training.distributed.sharded_tables import ShardedTables, initial_rows
from tastemaker_training.distributed.sharding import distribute
from tastemaker_training.plan.fit_config import CheckpointConfig, OptimizerConfig, ShardingConfig

STEPS = 20


def measure(job: dict[str, Any]) -> Measured:
    """The pauses and seconds of `saves` saves, each under way while steps are timed, and what the last one wrote."""
    tables = ShardedTables(bench_specs(job["num_rows"]))
    distributed = distribute(BenchDlrm(tables), tables, ShardingConfig(), OptimizerConfig(), initial_rows(0))
    drawn = batches(
        law="zipf", num_rows=job["num_rows"], num_examples=GLOBAL_BATCH // dist.get_world_size(),
        count=WARM_UP_STEPS + STEPS, rank=dist.get_rank(),
    )  # fmt: skip
    folder = Path(job["folder"])
    checkpoints = Checkpoints(folder, CheckpointConfig(keep=1), {"model": "bench"})
    found: dict[str, list[float]] = {"pause": [], "save": [], "step_alone": [], "step_meanwhile": []}

    def steps() -> float:
        seconds = []
        for batch in drawn[WARM_UP_STEPS:]:
            began = time.perf_counter()
            distributed.step(distributed.module(*batch))
            seconds.append(time.perf_counter() - began)
        return statistics.median(seconds)

    checkpoints.open(distributed)  # as a fit does before its first step
    for batch in drawn[:WARM_UP_STEPS]:
        distributed.step(distributed.module(*batch))
    for number in range(job["saves"]):
        found["step_alone"].append(steps())
        dist.barrier()
        position, began = Position(epoch=number + 1), time.time()
        checkpoints.save(distributed, position)
        found["pause"].append(time.time() - began)
        found["step_meanwhile"].append(steps())
        checkpoints.wait()
        # Steps may still be under way when the save is done: the manifest, written last, has its time.
        found["save"].append((folder / position.name / MANIFEST).stat().st_mtime - began)
    written = sum(path.stat().st_size for path in folder.glob("*/__*"))
    return found | {"plan_bytes": sum(s.num_bytes for s in distributed.plan), "written_bytes": written}


if __name__ == "__main__":
    answer(measure)
