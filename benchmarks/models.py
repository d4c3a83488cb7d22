"""Models of the zoo: what evaluation takes, and what ALS takes on top of `implicit`: `make bench-models`.

Times are processor seconds of one thread. Evaluation is of 6,040 users by all metrics, each user's last item held out.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import report
from models_sequences import sasrec
from turns import Effort, Part, column, ratios, shown, turns

KIB_OF_MIB = 1024.0
MEMORY_TARGET_MIB = 1024.0
ALS_TARGET = 1.05


def evaluation(effort: Effort) -> Part:
    """All metrics over the whole catalogue of ML-1M: seconds, and memory above the model."""
    part = Part(
        "Evaluation of ML-1M, whole catalogue, all metrics",
        ("model", "users", "CPU s", "MiB above the model"),
    )
    for kind in ("popular", "ease"):
        found = [_apart(kind) for _ in range(1 if effort.divide > 1 else 3)]
        memory = column(found, "mib")
        part.rows.append(
            (kind, f"{found[0]['users']:,.0f}", shown(column(found, "seconds")), shown(memory, 0))
        )
        part.target(f"evaluating {kind}: MiB above the model", max(memory), MEMORY_TARGET_MIB, "lower")
        part.figures[kind] = found
    part.notes.append(
        "Each in a process of its own; the seconds of `ease` are mostly its own scores, (users, items) by (items, items)."
    )
    return part


def als(effort: Effort) -> Part:
    """Fitting as a recommender beside `implicit` alone, the same matrix and settings."""
    import numpy as np
    from implicit.cpu.als import AlternatingLeastSquares
    from reproduce_data import ratings

    from tastemaker.models import zoo

    log = ratings("ml-1m").log()
    iterations = 15

    def timed(fit: Callable[[], object]) -> dict[str, float]:
        began = time.process_time()
        fit()
        return {"seconds": time.process_time() - began}

    def theirs() -> None:
        model = AlternatingLeastSquares(
            factors=64, regularization=0.05, alpha=1.0, iterations=iterations, num_threads=1, random_state=0
        )
        matrix_UI = log.matrix()
        matrix_UI.data = np.full_like(matrix_UI.data, 2.0)
        model.fit(matrix_UI, show_progress=False)

    jobs: dict[str, Callable[[], dict[str, float]]] = {
        "tastemaker": lambda: timed(lambda: zoo.fit("als", log, {"iterations": iterations})),
        "implicit": lambda: timed(theirs),
    }
    found = turns(1 if effort.divide > 1 else effort.turns, jobs)
    part = Part(
        f"ALS of ML-1M, 64 factors, {iterations} iterations, one thread", ("whose", "CPU s of a fit", "ratio")
    )
    over = ratios(column(found["tastemaker"], "seconds"), column(found["implicit"], "seconds"))
    part.rows += [
        ("tastemaker", shown(column(found["tastemaker"], "seconds")), shown(over, 3)),
        ("implicit", shown(column(found["implicit"], "seconds")), ""),
    ]
    part.target("ALS over implicit, median", sorted(over)[len(over) // 2], ALS_TARGET, "lower")
    part.figures["ratios"] = over
    return part


def _apart(kind: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", kind]
    done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, cwd=Path(__file__).parent)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _measure(kind: str) -> None:
    """In this process: fits, then evaluates, and prints what the evaluation alone took."""
    import pyarrow as pa
    from reproduce_data import folder, ratings

    from tastemaker.data.movielens import read_movielens
    from tastemaker.evaluation.measuring import Items, measure
    from tastemaker.evaluation.systems import ModelSystem
    from tastemaker.evaluation.windows import LastOut, folds
    from tastemaker.features.traits import ItemTraits
    from tastemaker.models import zoo

    found = ratings("ml-1m")
    _, table = read_movielens(folder("ml-1m"))
    row = {item_id: place for place, item_id in enumerate(table.column("item_id").to_pylist())}
    table = table.take(pa.array([row[item_id] for item_id in found.item_ids]))
    tags: list[list[str]] = [words or [] for words in table.column("tags").to_pylist()]
    items = Items.of(ItemTraits.from_items(table), tags)
    (fold,) = folds(found.log(), LastOut())
    system = ModelSystem(zoo.fit(kind, fold.train))
    system.answer(
        fold.askers[:1], fold.targets[:1], 10
    )  # what the model lays out when it is first asked is the model's
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far, which was the fit's, is forgotten
    before, began = _status("VmRSS"), time.process_time()
    measure(system, fold, (10, 50), items=items, threads=1)
    seconds = time.process_time() - began
    mib = (_status("VmHWM") - before) / KIB_OF_MIB
    print(json.dumps({"users": len(fold.askers), "seconds": seconds, "mib": mib}))


def _status(name: str) -> int:
    """A figure of this process in KiB: VmRSS, what it has, VmHWM, the most it had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


PARTS = {"evaluation": evaluation, "als": als, "sasrec": sasrec}

if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        _measure(sys.argv[2])
    else:
        report.main("models", "Models of the zoo", __doc__ or "", PARTS)
