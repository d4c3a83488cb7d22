"""Tuning: a study of one part of a recipe, from its search spaces to a bundle of the best trial.

Not for what Ray Tune does of it (`tuner`), nor for how a trial trains (`trials`).
"""

from typing import Any

from tastemaker.config import Settings
from tastemaker.data.log import freeze_log, read_frozen
from tastemaker.data.schema import Dataset
from tastemaker.errors import TrainingError
from tastemaker.home import Home, write_bytes
from tastemaker.registry.client import Registry
from tastemaker_training.artifacts import plain
from tastemaker_training.distributed.exchange import ABORT
from tastemaker_training.distributed.workers import Workers
from tastemaker_training.plan.recipe import Recipe, recipe_text
from tastemaker_training.plan.search_space import TuneConfig
from tastemaker_training.runs.publish import publish_run
from tastemaker_training.runs.run import train
from tastemaker_training.runs.steps import TWO_TOWER_MODULE, Steps
from tastemaker_training.studies.report import render
from tastemaker_training.studies.searching import Search
from tastemaker_training.studies.study import EventLog, Study, check_same, latest, new_folder
from tastemaker_training.studies.tracking import STUDY, TrialRuns
from tastemaker_training.studies.wanted import wanted_study

CANDIDATE = "tastemaker.candidate"
"""Tag of a version that a study found."""
BEST, REPORT = "best.yaml", "report.html"
"""Files of a study: the resolved recipe of its best trial, and its plots."""
_TUNED, _MAX_NAME = "-tuned", 55
_LOCK_SECONDS = 5.0


def tune(
    settings: Settings,
    home: Home,
    recipe: str,
    num_workers: int,
    *,
    part: str | None = None,
    num_trials: int | None = None,
    quick: bool = False,
    resume: bool = False,
    publish: bool = True,
) -> tuple[Study, dict[str, Any]]:
    """Searches the spaces of a recipe's part, trains the recipe whole with the best values, and publishes that.

    Args:
        settings: Which catalogue, and how ranks are run.
        home: Where data and studies lie.
        recipe: A packaged recipe, or a YAML file.
        num_workers: Ranks of each trial.
        part: Which part's spaces; unset is the first that has any.
        num_trials: Trials in all, instead of what the recipe says.
        quick: Whether the recipe's `quick` keys are applied.
        resume: Whether the newest study of the recipe goes on instead of another.
        publish: Whether the best is trained and published as a version, which no alias names.

    Returns:
        The study, and what it came to, JSON-able.

    Raises:
        UsageError: The recipe searches nothing, or there are not so many cores, or nothing to resume.
        TrainingError: No trial ran to the end.
    """
    wanted = wanted_study(settings, recipe, num_workers, part=part, num_trials=num_trials, quick=quick)
    with home.lock("training", _LOCK_SECONDS):
        study = _resumed(settings, home, wanted) if resume else _begun(settings, home, wanted)
        dataset = read_frozen(home, settings.catalogue, study.fingerprint)
        _run(settings, home, study, wanted.recipe.tune, num_workers, dataset)
    return study, _finish(settings, home, study, num_workers, dataset, publish=publish, resume=resume)


def _begun(settings: Settings, home: Home, wanted: Study) -> Study:
    """A new study of the log as of now."""
    fingerprint = freeze_log(home, settings.catalogue).fingerprint
    folder = new_folder(home, settings, wanted.recipe)
    with Registry(settings, home).run(folder.name, tags={STUDY: folder.name}) as run:
        study = Study(folder, wanted.part, wanted.recipe, wanted.spaces, wanted.metric, fingerprint, run.id)
        spaces = {path: space.plain() for path, space in study.spaces.items()}
        run.log_params({"recipe": plain(study.recipe), "spaces": spaces, "part": study.part})
        run.log_params({"metric": study.metric, "data": {"fingerprint": fingerprint}})
        run.log_text("recipe.yaml", recipe_text(study.recipe))
    study.save()
    return study


def _resumed(settings: Settings, home: Home, wanted: Study) -> Study:
    """The newest study like the one that is wanted."""
    study = latest(home, settings, wanted.recipe, wanted.part)
    check_same(study, wanted)
    found = read_frozen(home, settings.catalogue, study.fingerprint).fingerprint
    if found != study.fingerprint:
        raise TrainingError(
            f"data of catalogue {settings.catalogue}", value=found[:12],
            limit=f"{study.fingerprint[:12]}, which study {study.name} began with", mend="run without --resume",
        )  # fmt: skip
    (study.folder / ABORT).unlink(missing_ok=True)
    EventLog(study.folder).mend()
    return study


def _run(
    settings: Settings, home: Home, study: Study, config: TuneConfig, num_workers: int, dataset: Dataset
) -> None:
    """Runs the trials that are still to come, and tells MLflow of all."""
    registry = Registry(settings, home)
    with registry.run(study.name, again=study.mlflow_run_id) as run:
        with TrialRuns(registry, study) as runs:
            trials = study.trials()
            runs.catch_up(trials)
            if sum(trial.outcome != "running" for trial in trials) < config.num_trials:
                if study.part == "ranker":
                    _make_requests(settings, home, study, num_workers, dataset)
                with Search(study, settings, home, config, num_workers) as search:
                    search.follow(runs)
        best, reference = study.best(), study.reference()
        scores = {"best": best.score, "defaults": reference.score if reference else None}
        run.set_tags({"tastemaker.best_trial": str(best.number)})
        run.log_metrics({name: score for name, score in scores.items() if score is not None})
        write_bytes(study.folder / BEST, recipe_text(_best_recipe(study)).encode())
        write_bytes(study.folder / REPORT, render(study).encode())
        run.log_text(BEST, recipe_text(_best_recipe(study)))


def _make_requests(settings: Settings, home: Home, study: Study, num_workers: int, dataset: Dataset) -> None:
    """What all trials of the ranker read, from retrievers that are fitted first."""
    with Workers(settings, home, num_workers, (TWO_TOWER_MODULE,)) as workers:
        Steps.of(settings, home, study.recipe, num_workers, workers, dataset=dataset).requests  # noqa: B018


def _best_recipe(study: Study) -> Recipe:
    """Of another name than the recipe that was tuned: a run of it is not one of that."""
    tuned = study.recipe_of(study.best().values)
    return tuned.model_copy(update={"name": f"{tuned.name.removesuffix(_TUNED)[:_MAX_NAME]}{_TUNED}"})


def _finish(
    settings: Settings,
    home: Home,
    study: Study,
    num_workers: int,
    dataset: Dataset,
    *,
    publish: bool,
    resume: bool,
) -> dict[str, Any]:
    """Trains and publishes the best of the study, if wanted, and says all that it came to."""
    trials, best = study.trials(), study.best()
    found: dict[str, Any] = {"study": study.name, "part": study.part, "metric": study.metric}
    found |= {"trials": [trial.summary() for trial in trials], "best": best.number}
    found |= {"recipe": str(study.folder / BEST), "report": str(study.folder / REPORT)}
    found |= {"mlflow_run_id": study.mlflow_run_id, "run": None, "published": None}
    if publish:
        recipe = _best_recipe(study)
        (run,) = train(settings, home, [recipe], num_workers, resume=resume, dataset=dataset)
        published = publish_run(settings, home, run)
        tag = {CANDIDATE: f"tune/{study.name}"}
        Registry(settings, home).tag(settings.catalogue, published["version"], tag)
        found |= {"run": run.id, "published": published}
    return found
