"""One rank of one contender: its steps on the bench DLRM, timed, and the memory that they took.

Contenders: `table_wise` and `row_wise` (TorchRec through `distribute` and `Pipeline`, as every fit steps), `sparse`
and `dense` (DDP over whole `nn.EmbeddingBag`s with Adagrad, with sparse and with dense gradients of the tables).
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function
from training_model import GLOBAL_BATCH, WARM_UP_STEPS, Batch, BenchDlrm, PlainBags, batches, bench_specs
from training_ranks import answer, forget_peak, peak_bytes, resident_bytes
from turns import Measured

from tastemaker_training.distributed import pipelining
from tastemaker_training.distributed.pipelining import Objective, Pipeline, StepBatch
from tastemaker_training.distributed.sharded_tables import ShardedTables, initial_rows
from tastemaker_training.distributed.sharding import distribute
from tastemaker_training.plan.fit_config import OptimizerConfig, ShardingConfig

Train = Callable[[Iterable[Batch]], Any]


def measure(job: dict[str, Any]) -> Measured:
    """Times `steps` steps after a few that warm up; with `profile` it also says where the time went."""
    forget_peak()
    imports = resident_bytes()
    drawn = batches(
        law=job["law"],
        num_rows=job["num_rows"],
        num_examples=GLOBAL_BATCH // dist.get_world_size(),
        count=WARM_UP_STEPS + job["steps"],
        rank=dist.get_rank(),
    )
    train = contender(job["contender"], job["num_rows"])
    train(drawn[:WARM_UP_STEPS])
    found = (_profile if job.get("profile") else _time)(train, drawn[WARM_UP_STEPS:])
    return found | {"above_imports_bytes": peak_bytes() - imports}


def contender(name: str, num_rows: int) -> Train:
    torch.manual_seed(0)
    specs = bench_specs(num_rows)
    return (
        _plain(BenchDlrm(PlainBags(specs, sparse=name == "sparse")))
        if name in ("sparse", "dense")
        else _sharded(ShardedTables(specs), name)
    )


def _sharded(tables: ShardedTables, placement: Any) -> Train:
    model = BenchDlrm(tables)
    distributed = distribute(
        Objective(model, lambda batch: model(*batch)),
        tables, ShardingConfig(default=placement), OptimizerConfig(), initial_rows(0),
    )  # fmt: skip

    def train(drawn: Iterable[Batch]) -> None:
        pipeline = Pipeline(distributed, parts=1)
        batches = (StepBatch.of(tables, bags=batch[1], content=batch) for batch in drawn)
        with suppress(StopIteration):
            while True:
                pipeline.step(batches, part=0, last=True)
        pipeline.close()

    return train


def _plain(model: nn.Module) -> Train:
    replicas = nn.parallel.DistributedDataParallel(
        model, broadcast_buffers=False, gradient_as_bucket_view=True
    )
    rates = OptimizerConfig()
    tables = [p for name, p in model.named_parameters() if name.startswith("tables.")]
    rest = [p for name, p in model.named_parameters() if not name.startswith("tables.")]
    adagrad = torch.optim.Adagrad(tables, lr=rates.table_learning_rate, eps=rates.table_epsilon)
    adam = torch.optim.AdamW(rest, lr=rates.dense_learning_rate, weight_decay=rates.dense_weight_decay)

    def train(drawn: Iterable[Batch]) -> None:
        for batch in drawn:
            loss = replicas(*batch)
            adagrad.zero_grad()
            adam.zero_grad()
            loss.backward()
            adagrad.step()
            adam.step()

    return train


def _time(train: Train, drawn: list[Batch]) -> Measured:
    dist.barrier()
    began, cpu_began = time.perf_counter(), time.process_time()
    train(drawn)
    dist.barrier()
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    return {"step_ms": 1e3 * seconds / len(drawn), "cpu_ms": 1e3 * cpu_seconds / len(drawn)}


_PARTS = {
    "exchange between the ranks": (
        "c10d::",
        "all2all",
        "## ",
        "[splits_dist]",
        "[output_dist",
        "[data_dist]",
    ),
    "embedding lookup and update": (
        "fbgemm::",
        "splitlookup",
        "torch::autograd::cppnode<splitlookup",
        "[lookup]",
    ),
    "bags into one jagged tensor": ("keyed",),
    "dense optimizer": ("optimizer.",),
    "cutting the lookup's answer by feature": ("slicebackward", "splitwithsizes"),
    "interactions": ("aten::bmm", "bmmbackward"),
}
"""Which part of a step an operator belongs to, by the beginning of its name or of an operator that holds it."""


def _profile(train: Train, drawn: list[Batch]) -> Measured:
    """Milliseconds of a step on the thread that trains, by part; the profiler itself slows a step."""
    _label_keyed()
    dist.barrier()
    began = time.perf_counter()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        train(drawn)
    wall_ms = 1e3 * (time.perf_counter() - began) / len(drawn)
    events = profiler.events()
    thread = next(e.thread for e in events if e.name.startswith("DistributedDataParallel.forward"))
    parts: Counter[str] = Counter()
    operators: Counter[str] = Counter()
    for event in events:
        if event.thread == thread:
            ms = event.self_cpu_time_total / 1e3 / len(drawn)
            parts[_part(event)] += ms
            operators[event.name] += ms
    parts["Python between operators"] = wall_ms - sum(parts.values())
    return {"step_ms": wall_ms, "parts_ms": dict(parts), "operators_ms": dict(operators.most_common(12))}


def _label_keyed() -> None:
    """Lets the profile tell the building of the exchange's input from the dense layers around it."""
    plain = pipelining.keyed

    def keyed(*arguments: Any) -> Any:
        with record_function("keyed"):
            return plain(*arguments)

    pipelining.keyed = keyed


def _part(event: Any) -> str:
    while event is not None:
        name = event.name.removeprefix("autograd::engine::evaluate_function: ").lower()
        for part, beginnings in _PARTS.items():
            if name.startswith(beginnings):
                return part
        event = event.cpu_parent
    return "dense layers, loss and all else"


if __name__ == "__main__":
    answer(measure)
