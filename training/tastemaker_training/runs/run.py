"""A whole training run: data in, fitted models and their offline table out. Not for releasing them (`publish`).

A second recipe that shares the retrievers costs its ranker alone (see `steps`).
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tastemaker.config import Settings
from tastemaker.data.log import freeze_log
from tastemaker.data.schema import Dataset
from tastemaker.errors import UsageError
from tastemaker.home import Home
from tastemaker_training.distributed.workers import Workers, check_workers, remove_left_over
from tastemaker_training.plan.recipe import Recipe
from tastemaker_training.runs import content_only, evaluate, run_record
from tastemaker_training.runs.ranker_task import ranker_module
from tastemaker_training.runs.run_record import Run
from tastemaker_training.runs.steps import TWO_TOWER_MODULE, Steps
from tastemaker_training.runs.tracking import log_run

_LOCK_SECONDS = 5.0
T = TypeVar("T")


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
        UsageError: More workers than cores, another training is under way in this home, or recipes of content alone stand
            beside others.
        DataError: There is no data, or too little to hold anything out.
        TrainingError: A worker failed, or the loss was not a number.
    """
    check_workers(num_workers, settings)
    if any(recipe.is_content_only for recipe in recipes):
        return _train_content(settings, home, recipes, dataset)
    modules = (TWO_TOWER_MODULE, *sorted({ranker_module(recipe) for recipe in recipes}))
    workers = Workers(settings, home, num_workers, modules)
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


def _train_content(
    settings: Settings, home: Home, recipes: Sequence[Recipe], dataset: Dataset | None
) -> list[Run]:
    """Runs of recipes that train content vectors alone: no worker is started."""
    others = [recipe.name for recipe in recipes if not recipe.is_content_only]
    if others:
        raise UsageError(
            "recipes beside those of content alone", value=", ".join(others), mend="train them apart"
        )
    with home.lock("training", _LOCK_SECONDS):
        frozen = freeze_log(home, settings.catalogue) if dataset is None else dataset
        return [_content_run(settings, home, recipe, frozen) for recipe in recipes]


def _content_run(settings: Settings, home: Home, recipe: Recipe, dataset: Dataset) -> Run:
    watch, folder = _Stopwatch(), run_record.new_folder(home, settings.catalogue, recipe)
    watch("content vectors", lambda: content_only.content_artifact(home, recipe, dataset))
    run_record.save_offline(folder, content_only.offline_report(dataset))
    log = content_only.log_content_run
    run_id = log(settings, home, recipe, dataset, folder.name, watch.timings)
    return run_record.finish(folder, recipe, dataset.fingerprint, 1, watch.timings, run_id)


def _fit(steps: Steps, watch: _Stopwatch) -> None:
    watch("two-tower and baselines", lambda: (steps.two_tower, steps.memory))
    if steps.recipe.models:
        watch("further models", lambda: steps.models)
    watch("ranker's requests", lambda: steps.requests)
    watch("ranker and retrievers' evaluation", lambda: (steps.ranker, steps.solo))


def _finish(steps: Steps, watch: _Stopwatch) -> Run:
    settings, home, recipe = steps.settings, steps.home, steps.recipe
    folder = run_record.new_folder(home, settings.catalogue, recipe)
    offline = watch("evaluation of pipeline", lambda: _evaluate(steps, folder))
    run_id = watch("tracking", lambda: log_run(settings, home, steps, folder.name, offline, watch.timings))
    return run_record.finish(
        folder,
        recipe,
        steps.dataset.fingerprint,
        steps.num_workers,
        watch.timings,
        run_id,
        steps.warm_start,
    )


def _evaluate(steps: Steps, folder: Path) -> dict[str, Any]:
    """The offline table of this run, written into its folder with every user's metrics."""
    pipeline, seed = steps.pipeline(), steps.recipe.seed
    systems = evaluate.pipeline_systems(pipeline)
    if (strangers := steps.pipeline_of_strangers()) is not None:
        systems[evaluate.STRANGERS] = evaluate.recommend_whole(strangers)
    mine = evaluate.evaluate_systems(systems, steps.split, steps.dataset)
    whole = {evaluate.PIPELINE: evaluate.recommend_whole(pipeline)}
    last_one = evaluate.load_evaluations(steps.solo / "last-one") | evaluate.evaluate_last_one(
        whole, steps.dataset
    )
    evaluations = evaluate.load_evaluations(steps.solo / "test") | mine
    report = evaluate.offline_report(evaluations, last_one, steps.dataset, seed)
    evaluate.save_evaluations(folder, mine)
    run_record.save_offline(folder, report)
    return report
