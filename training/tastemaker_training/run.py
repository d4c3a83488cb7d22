"""A whole training run: data in, fitted models and their offline table out. Not for releasing them (`publish`).

A second recipe that shares the retrievers costs its ranker alone (see `steps`).
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from tastemaker.bundle.manifest import code_revision
from tastemaker.config import Settings
from tastemaker.data.log import freeze_log
from tastemaker.data.schema import Dataset
from tastemaker.errors import UsageError
from tastemaker.home import Home, write_json
from tastemaker.types import catalogue_name
from tastemaker_training import evaluate
from tastemaker_training.artifacts import plain
from tastemaker_training.recipe import Recipe
from tastemaker_training.steps import RANKER_MODULE, TWO_TOWER_MODULE, Steps
from tastemaker_training.tracking import log_run
from tastemaker_training.workers import Workers, check_workers, remove_left_over

_RECORD, _OFFLINE = "run.json", "offline.json"
_LOCK_SECONDS = 5.0
T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """One finished run: what it was told and where its results lie."""

    folder: Path
    recipe: Recipe
    fingerprint: str
    num_workers: int
    timings: Mapping[str, float]
    mlflow_run_id: str
    code_revision: str
    warm_start: str | None = None

    @property
    def id(self) -> str:
        """Recipe and time."""
        return self.folder.name

    def offline(self) -> dict[str, Any]:
        """The offline table."""
        table: dict[str, Any] = json.loads((self.folder / _OFFLINE).read_text(encoding="utf-8"))
        return table

    def summary(self) -> dict[str, Any]:
        """What `tastemaker train` says at the end, JSON-able."""
        return {
            "run": self.id,
            "recipe": self.recipe.name,
            "dataset": self.fingerprint,
            "workers": self.num_workers,
            "timings_seconds": dict(self.timings),
            "mlflow_run_id": self.mlflow_run_id,
        }


class _Stopwatch:
    """Seconds of named steps."""

    def __init__(self) -> None:
        self.timings: dict[str, float] = {}

    def __call__(self, name: str, make: Callable[[], T]) -> T:
        started = time.monotonic()
        made = make()
        self.timings[name] = round(time.monotonic() - started, 2)
        return made


def train(
    settings: Settings,
    home: Home,
    recipes: Sequence[Recipe],
    num_workers: int,
    *,
    resume: bool = False,
    warm_start: str | None = None,
    dataset: Dataset | None = None,
) -> list[Run]:
    """Fits all models of some recipes on the catalogue's data, by one start of the workers, and evaluates them.

    Args:
        settings: Which catalogue.
        home: Where data and artifacts lie.
        recipes: What to do.
        num_workers: Ranks.
        resume: Whether fits that were interrupted go on from their checkpoints.
        warm_start: Training id of an earlier two-tower, from which these begin: a bundle's manifest has it.
        dataset: What to train on, frozen; unset is the log as of now.

    Raises:
        UsageError: More workers than cores, or another training is under way in this home.
        DataError: There is no data, or too little to hold anything out.
        TrainingError: A worker failed, or the loss was not a number.
    """
    check_workers(num_workers, settings)
    workers = Workers(settings, home, num_workers, (TWO_TOWER_MODULE, RANKER_MODULE))
    dataset = freeze_log(home, settings.catalogue) if dataset is None else dataset
    planned = [
        Steps.of(
            settings,
            home,
            recipe,
            num_workers,
            workers,
            resume=resume,
            warm_start=warm_start,
            dataset=dataset,
        )
        for recipe in recipes
    ]
    watches = [_Stopwatch() for _ in planned]
    with home.lock("training", _LOCK_SECONDS), workers:
        remove_left_over(home)
        for steps, watch in zip(planned, watches, strict=True):
            _fit(steps, watch)
        workers.stop()
        return [_finish(steps, watch) for steps, watch in zip(planned, watches, strict=True)]


def _fit(steps: Steps, watch: _Stopwatch) -> None:
    watch("two-tower and baselines", lambda: (steps.two_tower, steps.memory))
    watch("ranker's requests", lambda: steps.requests)
    watch("ranker and retrievers' evaluation", lambda: (steps.ranker, steps.solo))


def _finish(steps: Steps, watch: _Stopwatch) -> Run:
    settings, home, recipe = steps.settings, steps.home, steps.recipe
    folder = _new_folder(home, settings.catalogue, recipe)
    offline = watch("evaluation of pipeline", lambda: _evaluate(steps, folder))
    run_id = watch("tracking", lambda: log_run(settings, home, steps, folder.name, offline, watch.timings))
    record = {"recipe": plain(recipe), "fingerprint": steps.dataset.fingerprint}
    record |= {"num_workers": steps.num_workers, "timings": watch.timings}
    record |= {"mlflow_run_id": run_id, "code_revision": code_revision(), "warm_start": steps.warm_start}
    write_json(folder / _RECORD, record)
    return _read(folder)


def _evaluate(steps: Steps, folder: Path) -> dict[str, Any]:
    """The offline table of this run, written into its folder with every user's metrics."""
    pipeline, seed = steps.pipeline(), steps.recipe.seed
    num_items = steps.dataset.num_items
    mine = evaluate.evaluate_systems(evaluate.pipeline_systems(pipeline), steps.split, num_items)
    whole = {evaluate.PIPELINE: evaluate.recommend_whole(pipeline)}
    last_one = evaluate.load_evaluations(steps.solo / "last-one") | evaluate.evaluate_last_one(
        whole, steps.dataset
    )
    evaluations = evaluate.load_evaluations(steps.solo / "test") | mine
    report = evaluate.offline_report(evaluations, last_one, steps.dataset, seed)
    evaluate.save_evaluations(folder, mine)
    write_json(folder / _OFFLINE, report)
    return report


def open_run(home: Home, catalogue: str, name: str) -> Run:
    """A finished run by its id, or the latest of a recipe.

    Raises:
        UsageError: There is none.
    """
    folder = _runs_folder(home, catalogue)
    known = sorted(
        (path.parent.name for path in folder.glob(f"*/{_RECORD}")), key=lambda run: run.rsplit("-", 1)[-1]
    )
    recipe = Path(name).stem
    chosen = [run for run in known if run == name] or [
        run for run in known if run.rsplit("-", 1)[0] == recipe
    ]
    if not chosen:
        recent = ", ".join(known[-5:]) or "none yet"
        mend = f"run `tastemaker train {name}`"
        raise UsageError("run", value=name, limit=f"a recipe that was trained, or one of {recent}", mend=mend)
    return _read(folder / chosen[-1])


def _read(folder: Path) -> Run:
    record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    recipe = Recipe.parse(record.pop("recipe"), f"recipe of run {folder.name}")
    return Run(folder=folder, recipe=recipe, **record)


def _new_folder(home: Home, catalogue: str, recipe: Recipe) -> Path:
    folder = _runs_folder(home, catalogue) / f"{recipe.name}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
    folder.mkdir(parents=True)
    return folder


def _runs_folder(home: Home, catalogue: str) -> Path:
    return home / "checkpoints" / "runs" / catalogue_name(catalogue)
