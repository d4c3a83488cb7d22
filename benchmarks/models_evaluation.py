"""What evaluating takes: the whole catalogue of MovieLens-1M beside RecBole's evaluator, lists beside RecTools' metrics, memory.

Each user's last item is held out: 6,040 users, 3,706 items. All ask for the same order of items, by how often they were taken, so that
the model costs nothing and lists are alike. Times are processor seconds of one thread, each in a process of its own, without reading
the data. `models_evaluation_peers` has the others' side.
"""

import hashlib
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from peers import environment, told
from report import OUT
from turns import Effort, Part, column, ratios, shown, turns

KIB_OF_MIB = 1024.0
MEMORY_TARGET_MIB = 1024.0
OVER_RECBOLE = 20.0
OVER_RECTOOLS = 1.0
KS = (10, 50)
SCRIPT = Path(__file__).with_name("models_evaluation_peers.py")
_CODE = (Path(__file__), *sorted((Path(__file__).parents[1] / "platform/tastemaker/evaluation").glob("*.py")))
WORK = OUT / "evaluation" / hashlib.sha256(b"".join(file.read_bytes() for file in _CODE)).hexdigest()[:12]
"""What the others read; made anew where the code that makes it is another."""
RECBOLE = ("recbole==1.2.1", "numpy==1.26.4", "setuptools<81")
RECTOOLS = ("rectools==0.17.0", "numpy==1.26.4")
DEFAULT_BATCH = 4096
WHOLE_BATCH = 40_960_000
ALIKE = {
    "recall@10": "recall@10", "recall@50": "recall@50", "ndcg@10": "ndcg@10", "ndcg@50": "ndcg@50", "map@10": "map@10",
    "hit_rate@10": "hit@10", "precision@10": "precision@10", "mrr": "mrr@50", "gauc": "gauc",
}  # fmt: skip
"""Metrics that are the same by definition here and there."""


def evaluation(effort: Effort) -> Part:
    """Full-catalogue evaluation by all metrics beside RecBole's own."""
    _prepare()
    python = environment("recbole", RECBOLE)
    count = 1 if effort.divide > 1 else effort.turns
    found: dict[str, list[Any]] = turns(
        count,
        {
            "tastemaker": lambda: _apart("--evaluate"),
            "RecBole, whole": lambda: told(python, SCRIPT, "recbole", WORK, WHOLE_BATCH),
            "RecBole, as it is set": lambda: told(python, SCRIPT, "recbole", WORK, DEFAULT_BATCH),
        },
    )
    part = Part(
        "Evaluation of 6,040 users by 3,706 items, all metrics of each",
        ("whose", "CPU s", "times ours"),
        num_turns=count,
    )
    ours = column(found["tastemaker"], "seconds")
    for name, each in found.items():
        over = ratios(column(each, "seconds"), ours)
        part.rows.append((name, shown(column(each, "seconds"), 2), shown(over, 1)))
        part.figures[name] = each
    mine, theirs = found["tastemaker"][0]["metrics"], found["RecBole, whole"][0]["metrics"]
    for setting in ("whole", "as it is set"):
        each = found[f"RecBole, {setting}"]
        over = ratios(column(each, "seconds"), ours)
        part.target(
            f"RecBole's evaluation ({setting}) over ours, median",
            sorted(over)[len(over) // 2],
            OVER_RECBOLE,
            "higher",
        )
    part.notes += [
        "RecBole asks for `eval_batch_size` scores at once: 4,096, a user's, as it is set; 40,960,000, all users', as in its benchmark. "
        "It measures Recall, MRR, NDCG, Hit, Precision and MAP at 10 and 50, GAUC and entropy (coverage, mean popularity, Gini and the tail's "
        "share raise an AttributeError in it, as `int` has no `cpu`); ours measures all of these but entropy, and coverage, Gini, mean popularity and its lift, novelty, "
        "diversity by tags, serendipity, miscalibration and exposure by tag.",
        "Farthest apart of what both measure by one definition: "
        + _gap((abs(mine[a] - theirs[b]), a) for a, b in ALIKE.items() if b in theirs),
    ]
    return part


def lists(effort: Effort) -> Part:
    """Metrics of given lists beside RecTools'."""
    _prepare()
    python = environment("rectools", RECTOOLS)
    count = 1 if effort.divide > 1 else effort.turns
    found: dict[str, list[Any]] = turns(
        count,
        {
            "tastemaker": lambda: _apart("--lists"),
            "RecTools": lambda: told(python, SCRIPT, "rectools", WORK),
        },
    )
    part = Part("Metrics of 6,040 given lists of 50", ("whose", "CPU s", "times ours"), num_turns=count)
    ours = column(found["tastemaker"], "seconds")
    for name, each in found.items():
        over = ratios(column(each, "seconds"), ours)
        part.rows.append((name, shown(column(each, "seconds"), 2), shown(over, 1)))
        part.figures[name] = each
    part.target("RecTools' metrics over ours, median", sorted(over)[len(over) // 2], OVER_RECTOOLS, "higher")
    mine, theirs = found["tastemaker"][0]["metrics"], found["RecTools"][0]["metrics"]
    names = ("recall@10", "precision@10", "hit_rate@10", "recall@50", "mrr", "coverage")
    apart = _gap((abs(mine[name] - theirs["mrr@50" if name == "mrr" else name]), name) for name in names)
    part.notes.append(
        "RecTools: precision, recall, NDCG, MAP, MRR and hit rate at 10 and 50, novelty, serendipity, diversity by Hamming distance of tags, "
        "mean popularity, coverage. Ours: all of these (diversity by Jaccard), and lift, miscalibration, Gini and exposure. "
        f"Farthest apart of what both measure by one definition: {apart}"
    )
    return part


def memory(effort: Effort) -> Part:
    """What evaluating takes above the model."""
    part = Part(
        "Memory of evaluating ML-1M, whole catalogue, all metrics",
        ("model", "users", "CPU s", "MiB above the model"),
    )
    for kind in ("popular", "ease"):
        found = [_apart("--memory", kind) for _ in range(1 if effort.divide > 1 or kind == "ease" else 3)]
        mib = column(found, "mib")
        part.rows.append((kind, f"{found[0]['users']:,.0f}", shown(column(found, "seconds")), shown(mib, 0)))
        part.target(f"evaluating {kind}: MiB above the model", max(mib), MEMORY_TARGET_MIB, "lower")
        part.figures[kind] = found
    part.notes.append("The seconds of `ease` are mostly its own scores, (users, items) by (items, items).")
    return part


def _gap(found: Iterable[tuple[float, str]]) -> str:
    """The largest difference and whose it is."""
    difference, name = max(found)
    return f"{name}, by {difference:.1g}."


def _apart(*arguments: str) -> Any:
    return told(Path(sys.executable), Path(__file__), *arguments)


def _world() -> tuple[Any, Any, Any]:
    """The fold, what metrics read of the items, and their tags (I, G)."""
    import pyarrow as pa
    from reproduce_data import folder, ratings

    from tastemaker.data.movielens import read_movielens
    from tastemaker.evaluation.measuring import Items
    from tastemaker.evaluation.windows import LastOut, folds
    from tastemaker.features.traits import ItemTraits

    found = ratings("ml-1m")
    _, table = read_movielens(folder("ml-1m"))
    row = {item_id: place for place, item_id in enumerate(table.column("item_id").to_pylist())}
    table = table.take(pa.array([row[item_id] for item_id in found.item_ids]))
    tags: list[list[str]] = [words or [] for words in table.column("tags").to_pylist()]
    items = Items.of(ItemTraits.from_items(table), tags)
    (fold,) = folds(found.log(), LastOut())
    return fold, items, (items.share_IG > 0).toarray()


def _popular(fold: Any) -> Any:
    """One order of the items by how often they were taken; no two score alike."""
    import numpy as np

    from tastemaker.models.memory.popular import Popular, PopularConfig

    count_I = np.bincount(fold.train.item_N, minlength=fold.train.num_items)
    score_I = np.empty(len(count_I), np.float32)
    score_I[np.argsort(-count_I, kind="stable")] = np.arange(len(count_I), 0, -1)
    return Popular(PopularConfig(), score_I)


def _prepare() -> None:
    """Writes what the others read, where it is not there."""
    if (WORK / "lists.npz").exists():
        return
    import numpy as np

    from tastemaker.evaluation.measuring import measure
    from tastemaker.evaluation.systems import ModelSystem

    (WORK / "ml").mkdir(parents=True, exist_ok=True)
    fold, _, tag_IG = _world()
    train, model = fold.train, _popular(fold)
    test_user = np.repeat(fold.askers.row_B, [len(items) for items in fold.targets])
    test_item = np.concatenate(fold.targets)
    # RecBole wants some rows for validation; it masks them with those of training.
    parts = {
        "train": (train.user_N[1:], train.item_N[1:]),
        "valid": (train.user_N[:1], train.item_N[:1]),
        "test": (test_user, test_item),
    }
    for name, (user_N, item_N) in parts.items():
        rows = "\n".join(f"{user}\t{item}" for user, item in zip(user_N, item_N, strict=True))
        (WORK / "ml" / f"ml.{name}.inter").write_text(f"user_id:token\titem_id:token\n{rows}\n")
    ranked_UK = measure(ModelSystem(model), fold, KS, threads=1).ranked_UK
    np.savez(
        WORK / "lists.npz", score=model.tensors()["scores"], ranked=ranked_UK, tags=tag_IG.astype(float),
        train_user=train.user_N, train_item=train.item_N, test_user=test_user, test_item=test_item,
    )  # fmt: skip


def _measured(how: str, kind: str) -> dict[str, Any]:
    """In this process, what the evaluation alone took."""
    import numpy as np

    from tastemaker.evaluation.measuring import measure
    from tastemaker.evaluation.systems import Answers, ModelSystem
    from tastemaker.models import zoo

    fold, items, _ = _world()
    if how == "--lists":
        ranked_UK = np.load(WORK / "lists.npz")["ranked"]

        class Given:
            """The lists that were made before."""

            def answer(self, askers: Any, targets: Any, k: int) -> Answers:
                del targets, k
                return Answers(ranked_UK[np.searchsorted(fold.askers.row_B, askers.row_B)])

        system: Any = Given()
    else:
        system = ModelSystem(zoo.fit(kind, fold.train) if how == "--memory" else _popular(fold))
        # What a model lays out when it is first asked is the model's.
        system.answer(fold.askers[:1], fold.targets[:1], 10)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far, which was the fit's, is forgotten
    before, began = status("VmRSS"), time.process_time()
    found = measure(system, fold, KS, items=items, threads=1).evaluation
    seconds, mib = time.process_time() - began, (status("VmHWM") - before) / KIB_OF_MIB
    means = {name: float(np.nanmean(value_U)) for name, value_U in found.per_user.items()} | found.overall
    return {"users": len(fold.askers), "seconds": seconds, "mib": mib, "metrics": means}


def status(name: str) -> int:
    """A figure of this process in KiB: VmRSS, what it has, VmHWM, the most it had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


if __name__ == "__main__":
    print(json.dumps(_measured(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "")))
