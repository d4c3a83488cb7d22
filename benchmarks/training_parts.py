"""The parts of the training benchmark: what contends, what is asked of it, and the table that comes of it."""

import statistics
import tempfile
from pathlib import Path
from typing import Any

import psutil
import training_input
from training_model import BOTTOM, DIM, GLOBAL_BATCH, NUM_DENSE, NUM_TABLES, TOP
from training_ranks import run
from turns import Effort, Measured, Part, column, ratios, shown, turns, worst

MIB = 2**20
NAMES = {
    "table_wise": "TorchRec, table-wise", "row_wise": "TorchRec, row-wise",
    "sparse": "DDP, sparse gradients", "dense": "DDP, dense gradients",
}  # fmt: skip


def contend(contender: str, num_rows: int, steps: int, *, law: str = "zipf", **ranks: int) -> Measured:
    """A contender's slowest and largest rank."""
    job = {"contender": contender, "num_rows": num_rows, "law": law, "steps": steps}
    return worst(run("training_contender.py", job, **ranks))


def with_reruns(part: Part) -> Part:
    """The part, with a note of the jobs that a signal ended and that were run again."""
    names = sorted(_rerun(part.figures))
    if names:
        part.notes.append(
            f"Ended by a signal and run again: {'; '.join(names)}. What they said is in `reruns` of the JSON."
        )
    return part


def _rerun(figures: Any, *names: str) -> set[str]:
    """By their keys in a part's figures."""
    if isinstance(figures, list):
        return {name for one in figures for name in _rerun(one, *names)}
    if not isinstance(figures, dict):
        return set()
    found = {name for key, one in figures.items() for name in _rerun(one, *names, key)}
    return found | {", ".join(names)} if figures.get("reruns") else found


def against_plain(effort: Effort) -> Part:
    num_rows = 100_000 // effort.divide
    part = Part(
        f"Samples a second, {NUM_TABLES} x {num_rows:,} x {DIM}, 2 ranks of 1 thread, batch {GLOBAL_BATCH}",
        ("ids", "job", "ms a step", "CPU ms a step and rank", "samples/s", "TorchRec table-wise is faster"),
    )
    steps = {"dense": max(effort.steps // 10, 2)}
    for law in ("zipf", "uniform"):
        jobs = {
            name: lambda name=name, law=law: contend(name, num_rows, steps.get(name, effort.steps), law=law)
            for name in NAMES
        }
        part.num_turns = effort.turns
        found = turns(part.num_turns, jobs)
        sharded = column(found["table_wise"], "step_ms")
        for name, measured in found.items():
            ms = column(measured, "step_ms")
            speed = ratios(ms, sharded)
            part.rows.append(
                (law, NAMES[name], shown(ms), shown(column(measured, "cpu_ms")),
                 shown([GLOBAL_BATCH / m for m in ms], 0, 1e3), shown(speed, 2))
            )  # fmt: skip
            if name in ("sparse", "dense"):
                goal = {"sparse": 1.8, "dense": 8.0}[name]
                label = f"sharded over {NAMES[name]}, {law} ids, samples/s"
                part.target(label, statistics.median(speed), goal, "higher")
        part.figures[law] = found
    part.notes.append(
        f"The model: {NUM_DENSE} dense features, MLPs {[NUM_DENSE, *BOTTOM, DIM]} and {list(TOP)}, dot interactions, "
        "one id a bag. Sharded tables use row-wise Adagrad, plain ones Adagrad; the plain jobs drop the bags' weights."
    )
    return with_reruns(part)


def memory(effort: Effort) -> Part:
    num_rows = 1_000_000 // effort.divide
    part = Part(
        f"Peak memory of a rank above what the imports take, {NUM_TABLES} x {num_rows:,} x {DIM}, 2 ranks",
        ("job", "MiB", "sharded is this share of it"),
    )
    jobs = {name: lambda name=name: contend(name, num_rows, 3) for name in ("table_wise", "sparse", "dense")}
    part.num_turns = min(effort.turns, 2)
    found = turns(part.num_turns, jobs)
    sharded = column(found["table_wise"], "above_imports_bytes")
    for name, measured in found.items():
        held = column(measured, "above_imports_bytes")
        share = ratios(sharded, held)
        part.rows.append((NAMES[name], shown(held, 0, 1 / MIB), shown(share, 3)))
        if name != "table_wise":
            label = f"sharded peak memory over that of {NAMES[name]}"
            part.target(label, statistics.median(share), 0.6, "lower")
    part.figures = found
    return with_reruns(part)


def ranks(effort: Effort) -> Part:
    num_rows = 100_000 // effort.divide
    part = Part(
        f"One rank and two, table-wise, {NUM_TABLES} x {num_rows:,} x {DIM}, batch {GLOBAL_BATCH} in all",
        ("ranks x threads", "ms a step", "CPU ms a step, all ranks", "time over 1 x 2"),
    )
    shapes = {"1 x 2": (1, 2), "1 x 1": (1, 1), "2 x 1": (2, 1)}
    jobs = {
        name: lambda shape=shape: contend(
            "table_wise", num_rows, effort.steps, num_ranks=shape[0], threads=shape[1]
        )
        for name, shape in shapes.items()
    }
    part.num_turns = effort.turns
    found = turns(part.num_turns, jobs)
    base = column(found["1 x 2"], "step_ms")
    for name, measured in found.items():
        ms, cpu = column(measured, "step_ms"), column(measured, "cpu_ms")
        part.rows.append((name, shown(ms), shown(cpu, scale=shapes[name][0]), shown(ratios(ms, base), 2)))
    two, one = column(found["2 x 1"], "step_ms"), column(found["1 x 1"], "step_ms")
    part.notes.append(
        f"Overhead of distribution: two ranks take {shown(ratios(two, base), 2)} times as long as one process with two "
        f"threads, and {shown([2 * r for r in ratios(two, one)], 2)} times half of what one process with one thread takes."
    )
    profiled = run(
        "training_contender.py",
        {
            "contender": "table_wise",
            "num_rows": num_rows,
            "law": "zipf",
            "steps": effort.steps,
            "profile": True,
        },
    )[0]
    part.notes += _profile_notes(profiled)
    part.figures = found | {"profile": profiled}
    return with_reruns(part)


def _profile_notes(profiled: Measured) -> list[str]:
    whole = profiled["step_ms"]
    lines = ["Where rank 0 of two spends a step (torch's profiler, which slows it: read the shares):", ""]
    lines += ["| part | share |", "|---|---|"]
    parts = sorted(profiled["parts_ms"].items(), key=lambda item: -item[1])
    lines += [f"| {name} | {ms / whole:.0%} |" for name, ms in parts]
    lines += ["", "| operator | share of its own |", "|---|---|"]
    lines += [f"| `{name}` | {ms / whole:.0%} |" for name, ms in profiled["operators_ms"].items()]
    return ["\n".join(lines)]


def tables(effort: Effort) -> Part:
    sizes = [n // effort.divide for n in (100_000, 1_000_000, 10_000_000)]
    needed = int(1.3 * NUM_TABLES * sizes[-1] * (DIM + 1) * 4)
    part = Part(
        "A step as every table grows, table-wise, 2 ranks, Zipf 1.05 ids",
        ("rows of each of 8 tables", "ms a step", "time over the smallest"),
    )
    if psutil.virtual_memory().available < needed:
        part.notes.append(f"Left out: it needs {needed / 2**30:.0f} GiB of free memory.")
        return part
    jobs = {f"{n:,}": lambda n=n: contend("table_wise", n, effort.steps) for n in sizes}
    part.num_turns = min(effort.turns, 3)
    found = turns(part.num_turns, jobs)
    base = column(found[f"{sizes[0]:,}"], "step_ms")
    for name, measured in found.items():
        ms = column(measured, "step_ms")
        part.rows.append((name, shown(ms), shown(ratios(ms, base), 2)))
    last = ratios(column(found[f"{sizes[-1]:,}"], "step_ms"), base)
    part.target("step at 10M rows over step at 100k", statistics.median(last), 2.0, "lower")
    part.figures = found
    return with_reruns(part)


def rows(effort: Effort) -> Part:
    small = 400_000 // effort.divide
    part = Part(
        "Peak memory of a rank as the data grow, streamed from Parquet, 2 ranks, one epoch",
        ("rows of data", "peak MiB", "of it above the imports"),
    )
    with tempfile.TemporaryDirectory() as folder:
        paths = {f"{n:,}": Path(folder) / str(n) for n in (small, 10 * small)}
        for path in paths.values():
            training_input.write_rows(path, int(path.name))
        jobs = {
            name: lambda path=path: worst(run("training_input.py", {"kind": "train", "folder": str(path)}))
            for name, path in paths.items()
        }
        part.num_turns = min(effort.turns, 2)
        found = turns(part.num_turns, jobs)
    once, tenfold = found.values()
    for name, measured in found.items():
        part.rows.append(
            (name, shown(column(measured, "peak_bytes"), 0, 1 / MIB),
             shown(column(measured, "above_imports_bytes"), 0, 1 / MIB))
        )  # fmt: skip
    growth = ratios(column(tenfold, "peak_bytes"), column(once, "peak_bytes"))
    part.target("peak memory of a rank with 10 times the data", statistics.median(growth), 1.1, "lower")
    above = ratios(column(tenfold, "above_imports_bytes"), column(once, "above_imports_bytes"))
    part.notes.append(f"Above the imports it is {shown(above, 2)} times as much.")
    part.figures = found
    return with_reruns(part)


def checkpoint(effort: Effort) -> Part:
    num_rows = 2**20 // effort.divide
    part = Part(
        f"Saving a model of {NUM_TABLES} x {num_rows:,} x {DIM} while it trains, 2 ranks",
        ("", "first save", "later saves"),
    )
    with tempfile.TemporaryDirectory() as folder:
        job = {"num_rows": num_rows, "saves": 2 + effort.turns, "folder": folder}
        found = run("training_checkpoint.py", job)
    pause = [max(pair) for pair in zip(*(rank["pause"] for rank in found), strict=True)]
    save = [max(pair) for pair in zip(*(rank["save"] for rank in found), strict=True)]
    share = ratios(pause, save)
    slower = ratios(found[0]["step_meanwhile"], found[0]["step_alone"])
    for name, values, digits in (
        ("seconds that training waits", pause, 3), ("seconds of the save", save, 2),
        ("share of the save that training waits", share, 3), ("a step meanwhile over a step alone", slower, 2),
    ):  # fmt: skip
        part.rows.append((name, f"{values[0]:.{digits}f}", shown(values[1:], digits)))
    part.target("pause over the save's own time, worst save", max(share), 0.1, "lower")
    part.notes.append(
        f"{found[0]['written_bytes'] / MIB:,.0f} MiB written, {found[0]['plan_bytes'] / MIB:,.0f} MiB of tables and their "
        "optimizer state by the plan. The first save also makes the buffers that later ones use again."
    )
    part.figures = {"ranks": found}
    return with_reruns(part)


def input_path(effort: Effort) -> Part:
    num_rows = 1_000_000 // effort.divide
    part = Part(
        f"Rows a second from Parquet on one core, {num_rows:,} rows, batches of {GLOBAL_BATCH}",
        ("rows", "path", "rows/s", "share of the bare scan's"),
    )
    stages = {
        "scan": "PyArrow scan",
        "stream": "RowStream: shuffled batches",
        "tensors": "the same as tensors",
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows"
        training_input.write_rows(path, num_rows)
        for kind in training_input.COLUMNS:
            jobs = {
                stage: lambda stage=stage, kind=kind: run(
                    "training_input.py", {"kind": stage, "rows": kind, "folder": str(path)}, num_ranks=1
                )[0]
                for stage in stages
            }
            part.num_turns = min(effort.turns, 3)
            found = turns(part.num_turns, jobs)
            scan = column(found["scan"], "rows_per_second")
            for stage, measured in found.items():
                speed = column(measured, "rows_per_second")
                part.rows.append((kind, stages[stage], shown(speed, 0), shown(ratios(speed, scan), 2)))
            part.figures[kind] = found
    return with_reruns(part)
