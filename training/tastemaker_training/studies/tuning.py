"""Tuning: a study of one part of a recipe, from its search spaces to a bundle of the best trial.

Not for what Ray Tune does of it (`tuner`), nor for how a trial trains (`trials`).
"""

import os
import shutil
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tastemaker.config import Settings
from tastemaker.data.log import freeze_log, read_frozen
from tastemaker.data.schema import Dataset
from tastemaker.errors import ConfigError, TrainingError, UsageError
from tastemaker.home import Home, write_bytes
from tastemaker.registry.client import Registry
from tastemaker.terminal import progress
from tastemaker_training.artifacts import plain
from tastemaker_training.distributed.exchange import ABORT
from tastemaker_training.distributed.workers import Workers, check_workers, start_ray
from tastemaker_training.plan.recipe import Recipe, read_recipe, recipe_text, search_space
from tastemaker_training.plan.search_space import PARTS, Part, Space, TuneConfig, with_values
from tastemaker_training.runs.publish import publish_run
from tastemaker_training.runs.run import train
from tastemaker_training.runs.steps import TWO_TOWER_MODULE, Steps
from tastemaker_training.studies.report import render
from tastemaker_training.studies.study import EventLog, Study, check_same, latest, new_folder, reported
from tastemaker_training.studies.tracking import STUDY, TrialRuns

CANDIDATE = "tastemaker.candidate"
"""Tag of a version that a study found."""
BEST, REPORT = "best.yaml", "report.html"
"""Files of a study: the resolved recipe of its best trial, and its plots."""
_TUNED, _MAX_NAME = "-tuned", 55
_LOCK_SECONDS = 5.0
_POLL_SECONDS = 0.5
_STOP_SECONDS = 20.0


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


def wanted_study(
    settings: Settings,
    recipe: str,
    num_workers: int,
    *,
    part: str | None = None,
    num_trials: int | None = None,
    quick: bool = False,
) -> Study:
    """The study that these arguments of `tune` ask for, without a record.

    Raises:
        UsageError: The recipe searches nothing, or there are not so many cores.
        ConfigError: The recipe is no recipe.
    """
    wanted = _wanted(recipe, part, num_trials, quick)
    check_workers(num_workers, settings)
    _check_concurrency(num_workers, wanted.recipe.tune.concurrency, settings)
    return wanted


def _wanted(name: str, asked: str | None, num_trials: int | None, quick: bool) -> Study:
    recipe = read_recipe(name, quick=quick)
    part, spaces = _part(recipe, search_space(name, quick=quick), asked)
    config = recipe.tune
    if num_trials is not None and num_trials < 1:
        raise UsageError("--trials", value=num_trials, limit="at least 1", mend="ask for one or more")
    told = reported(recipe, part)
    if config.metric not in (None, *told):
        raise ConfigError(
            f"recipe {recipe.name}: tune.metric", value=config.metric,
            limit=f"one of {', '.join(told)}, which the {part} reports", mend="correct it",
        )  # fmt: skip
    is_click_model = part == "ranker" and recipe.ranker.is_click_model
    epochs = 1 if is_click_model else config.max_epochs or getattr(recipe, part).fit.epochs
    if config.grace_epochs > epochs:
        limit = f"at most the {epochs} epochs of a trial"
        raise ConfigError(
            f"recipe {recipe.name}: tune.grace_epochs",
            value=config.grace_epochs,
            limit=limit,
            mend="lower it",
        )
    changes = {"tune.num_trials": num_trials or config.num_trials}
    if not is_click_model:
        changes[f"{part}.fit.epochs"] = epochs
    recipe = Recipe.parse(with_values(plain(recipe), changes), f"recipe {recipe.name}")
    return Study(Path(), part, recipe, spaces, config.metric or told[0], "", "")


def _part(recipe: Recipe, spaces: dict[str, Space], asked: str | None) -> tuple[Part, dict[str, Space]]:
    """What is tuned, and its spaces."""
    found = {part: {path: spaces[path] for path in spaces if path.startswith(f"{part}.")} for part in PARTS}
    if asked is not None and asked not in PARTS:
        raise UsageError("--part", value=asked, limit=f"one of {', '.join(PARTS)}", mend="choose one")
    chosen = next((part for part in PARTS if (found[part] if asked is None else part == asked)), PARTS[0])
    if not found[chosen]:
        what = f"recipe {recipe.name} searches nothing of its {asked or ' or '.join(PARTS)}"
        raise UsageError(what, mend="write a value as {default: 0.1, search: {low: 0.01, high: 1.0}}")
    return chosen, found[chosen]


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


def _check_concurrency(num_workers: int, concurrency: int, settings: Settings) -> None:
    cores = os.cpu_count() or 1
    if settings.ray.address is None and num_workers * concurrency > cores:
        raise UsageError(
            f"tune.concurrency with {num_workers} workers each", value=concurrency, mend="lower one of them",
            limit=f"at most {cores // num_workers}, for this machine has {cores} cores",
        )  # fmt: skip


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
                with _Search(study, settings, home, config, num_workers) as search:
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


class _Search:
    """Ray Tune's run, in a thread: there Ray leaves Ctrl-C to us. An error in the block ends it."""

    def __init__(
        self, study: Study, settings: Settings, home: Home, config: TuneConfig, num_workers: int
    ) -> None:
        self._study, self._settings, self._home = study, settings, home
        self._config, self._num_workers = config, num_workers
        self._thread = threading.Thread(target=self._run, name="tuning", daemon=True)
        self._failure: Exception | None = None

    def __enter__(self) -> Self:
        start_ray(self._settings, self._home)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._thread.is_alive():
            write_bytes(self._study.folder / ABORT, b"")
            self._thread.join(_STOP_SECONDS)
        for left in (self._home / "checkpoints").glob("workers-*"):  # of trials; no other runs under the lock
            shutil.rmtree(left, ignore_errors=True)

    def follow(self, runs: TrialRuns) -> None:
        """Runs the trials to their end, and tells MLflow meanwhile.

        Raises:
            TrainingError: Tune itself failed; trials that fail do not end a study.
        """
        seen, alive = len(self._study.events()), True
        num_ended = sum(trial.outcome != "running" for trial in self._study.trials())
        self._thread.start()
        with progress(f"tuning {self._study.part}", self._config.num_trials) as advance:
            advance(num_ended)
            while alive:
                alive = self._thread.is_alive()
                events = self._study.events()[seen:]
                for event in events:
                    runs.write(event)
                    advance(event["event"] == "end")
                seen += len(events)
                time.sleep(_POLL_SECONDS)  # Ctrl-C in `join` would make Python take the thread for ended
        if self._failure is not None:
            lines = [line for line in str(self._failure).splitlines() if line.strip()]
            what = f"study {self._study.name} ended early: {lines[-1] if lines else type(self._failure).__name__}"
            raise TrainingError(what, mend="run again with --resume") from self._failure

    def _run(self) -> None:
        from tastemaker_training.studies.tuner import run_trials

        try:
            run_trials(
                self._study,
                self._settings,
                self._home,
                num_workers=self._num_workers,
                num_trials=self._config.num_trials,
                concurrency=self._config.concurrency,
            )
        except Exception as error:  # noqa: BLE001 (`follow` raises it)
            self._failure = error


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
