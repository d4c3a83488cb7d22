"""Golden loss curves: the real training loops on a small catalogue and a seed, as they were when they were last right.

A change of code that is to change nothing must give these curves. One that is meant to change them is shown by
`python tests/golden/test_loss_curves.py write`, and the difference belongs into the change's message.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ranks import main, run_ranks
from small import movielens_folder

from tastemaker.data.importers import import_events
from tastemaker.data.schema import build_dataset
from tastemaker.data.splits import leave_last
from tastemaker.features.ranking_batch import Bag
from tastemaker.features.ranking_data import RankingData
from tastemaker.features.vocabulary import VocabularyConfig
from tastemaker.models.dlrm import DlrmConfig
from tastemaker.models.two_tower import TwoTowerConfig
from tastemaker.types import Candidates
from tastemaker_training.plan.fit_config import OptimizerConfig, RankerFitConfig, TwoTowerFitConfig
from tastemaker_training.rows.example_set import write_example_set
from tastemaker_training.rows.ranking_file import save_ranking_data

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
GOLDEN = Path(__file__).with_name("loss_curves.json")
TOLERANCE = 2e-4  # relative: sums in another order, over some forty steps, on another processor
NOW_MS = 1_700_000_000_000
NEGATIVES = {"num_sampled": 32, "popularity": 0.7, "hard": 0.3, "memory_batches": 2, "memory_warmup_steps": 4}


def two_tower(folder: Path) -> dict[str, Any]:
    """A two-tower with all kinds of negatives and context."""
    imported = import_events(movielens_folder(folder / "ml"), None, NOW_MS)
    dataset = build_dataset(imported.interactions, imported.items)
    examples = folder / "examples"
    examples.mkdir()
    write_example_set(examples, dataset, leave_last(dataset, 2, 2), 10, 1000, VocabularyConfig(min_count=2))
    model = TwoTowerConfig(dim=8, hidden=8, max_history=10, context=("hours", "weekdays"))
    fit = TwoTowerFitConfig.parse(
        {
            "epochs": 3, "batch_size": 60, "negatives": NEGATIVES | {"frequency": "streaming"},
            "sharding": {"default": "data_parallel", "tables": {"item_ids": "row_wise"}},
            "optimizer": {"warmup_steps": 5, "dense_clip_norm": 1.0},
        },
        "golden",
    )  # fmt: skip
    config = {"model": model.model_dump(mode="json"), "fit": fit.model_dump(mode="json")}
    return config | {"examples": str(examples)}


def ranker(folder: Path) -> dict[str, Any]:
    """A ranker of clicks and likes over requests whose labels depend on features and tags."""
    random = np.random.default_rng(2)
    candidates, bags, taken, outcomes = [], [], [], []
    tables = {"tags": 5, "years": 4, "categories": 3}
    for _ in range(60):
        num = int(random.integers(8, 16))
        features_KF = random.normal(size=(num, 3)).astype(np.float32)
        rows = {name: random.integers(0, size, num) for name, size in tables.items()}
        chance_K = 1 / (1 + np.exp(2.5 - 1.5 * features_KF[:, 0] - 1.5 * (rows["tags"] == 1)))
        items = np.arange(num, dtype=np.int32)
        candidates.append(
            Candidates(
                items,
                np.zeros(num, np.float32),
                np.ones(num, np.uint32),
                np.zeros((num, 1), np.float32),
                features_KF,
            )
        )
        one = {f"item_{name}": Bag.singles(value) for name, value in rows.items()}
        bags.append(one | {f"recent_{name}": Bag.singles(value[::-1]) for name, value in rows.items()})
        taken.append(items[random.random(num) < chance_K])
        outcomes.append({"like": random.integers(0, 2, len(taken[-1])).astype(np.float32)})
    save_ranking_data(folder / "requests", RankingData.build(candidates, bags, taken, outcomes))
    model = DlrmConfig(
        dense_features=("a", "b", "c"),
        num_tags=5,
        num_years=4,
        num_categories=3,
        embedding_dim=4,
        targets=("click", "like"),
    )
    optimizers = OptimizerConfig(dense_learning_rate=0.01, table_learning_rate=0.3)
    fit = RankerFitConfig(
        epochs=3, requests_per_batch=6, loss="pointwise", negative_share=0.5, optimizer=optimizers
    )
    config = {"model": model.model_dump(mode="json"), "fit": fit.model_dump(mode="json")}
    return config | {"data": str(folder / "requests")}


def loop(module: str, folder: str, config: dict[str, Any]) -> None:
    """What each rank runs: the loop that training runs, its reports kept in a file."""
    from importlib import import_module

    import torch.distributed as dist

    reports: list[dict[str, Any]] = []
    found = import_module(f"tastemaker_training.fits.{module}")
    found.report_progress = reports.append
    getattr(found, f"{module}_loop")(config | {"folder": folder, "seed": 7})
    if dist.get_rank() == 0:
        # Ranks of items are left out: one that flips on another processor moves them by more than a tolerance.
        names = ("fit", "epoch", "loss")
        curve = [{key: r[key] for key in names if key in r} for r in reports if "epoch" in r]
        (Path(folder) / "curve.json").write_text(json.dumps(curve))


def curve(module: str, num_ranks: int, folder: Path) -> list[dict[str, Any]]:
    folder.mkdir()
    config = {"two_tower": two_tower, "ranker": ranker}[module](folder)
    run_ranks(__file__, num_ranks, "loop", module=module, folder=str(folder), config=config)
    found: list[dict[str, Any]] = json.loads((folder / "curve.json").read_text())
    return found


CASES = [("two_tower", 1), ("two_tower", 2), ("ranker", 1), ("ranker", 2)]


@pytest.mark.parametrize(("module", "num_ranks"), CASES)
def test_the_curve_is_the_golden_one(module, num_ranks, tmp_path):
    expected = json.loads(GOLDEN.read_text())[f"{module}, {num_ranks} ranks"]
    found = curve(module, num_ranks, tmp_path / "run")
    assert len(found) == len(expected)
    for mine, golden in zip(found, expected, strict=True):
        assert mine.keys() == golden.keys()
        assert mine == {
            key: value if isinstance(value, str | int) else pytest.approx(value, rel=TOLERANCE)
            for key, value in golden.items()
        }


@pytest.mark.parametrize("case", [f"{module}, {num_ranks} ranks" for module, num_ranks in CASES])
def test_golden_curves_are_of_fits_that_learn(case):
    losses = [report["loss"] for report in json.loads(GOLDEN.read_text())[case]]
    assert losses[2] < 0.95 * losses[0]


def write() -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        curves = {f"{m}, {n} ranks": curve(m, n, Path(folder) / f"{m}{n}") for m, n in CASES}
    GOLDEN.write_text(json.dumps(curves, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["write"]:
        write()
    else:
        main(globals())
