"""Ray Tune's part of a study: the search, the scheduler, and what they tell the event log. Not for a trial (`trials`).

Imports Ray: only after `start_ray`. Tune and Optuna would keep their state as pickles; a study that goes on builds it anew
from its own events instead, and what Tune writes while it runs is removed unread.
"""

import logging
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from tastemaker.config import Settings
from tastemaker.errors import TrainingError
from tastemaker.home import Home
from tastemaker_training.distributed.exchange import ABORT
from tastemaker_training.studies.study import EventLog, Outcome, Study, Trial, decode, encode, scores
from tastemaker_training.studies.trials import NUMBERS, SCORE, TRIALS, run_trial

_TUNE = "ray"
_COORDINATOR_CPUS = 0.01
"""Of a trial's own process, which waits: Tune refuses a trial that needs nothing."""
_QUIET = {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0"}


def run_trials(
    study: Study, settings: Settings, home: Home, *, num_workers: int, num_trials: int, concurrency: int
) -> None:
    """Runs trials until the study has `num_trials` that ended, those that did before included.

    Args:
        study: What is searched, and what is known of it.
        settings: Of the workers.
        home: Its `checkpoints` must be seen by all workers.
        num_workers: Of each trial.
        num_trials: When the study is done.
        concurrency: Trials at once.
    """
    os.environ.update(_QUIET)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for name in ("ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    ended = [trial for trial in study.trials() if trial.outcome != "running"]
    again = unfinished(study)
    taken = {trial.number for trial in ended} | again.keys()
    numbers = [*again, *(number for number in range(num_trials + len(taken)) if number not in taken)]
    fixed = {"study": str(study.folder), "home": str(home.root), "workers": num_workers}
    fixed["settings"] = settings.model_dump(mode="json", include={"catalogue", "ray", "training"})
    tuner = tune.Tuner(
        tune.with_resources(run_trial, {"CPU": _COORDINATOR_CPUS}),
        param_space=fixed,
        tune_config=tune.TuneConfig(
            search_alg=search(study, ended, list(again.values())),
            scheduler=scheduler(study, ended),
            num_samples=num_trials - len(ended),
            max_concurrent_trials=concurrency,
        ),
        run_config=tune.RunConfig(
            name=_TUNE, storage_path=str(study.folder), verbose=0, callbacks=[TrialLog(study, numbers)]
        ),
    )
    try:
        tuner.fit()
    finally:
        for name in (_TUNE, TRIALS):
            shutil.rmtree(study.folder / name, ignore_errors=True)


def unfinished(study: Study) -> dict[int, Mapping[str, Any]]:
    """Numbers and values of the trials to run first: that of the defaults, and what began and did not end."""
    trials = study.trials()
    left = {trial.number: trial.values for trial in trials if trial.outcome == "running"}
    return left if any(trial.number == 0 for trial in trials) else {0: study.defaults} | left


def search(study: Study, ended: Sequence[Trial], again: Sequence[Mapping[str, Any]]) -> OptunaSearch:
    """TPE that knows trials which ended, and asks for some values first.

    Its random numbers go on from another seed than theirs, or it would ask for the same again.
    """
    config, spaces = study.recipe.tune, study.spaces
    found = OptunaSearch(
        space={path: space.distribution() for path, space in spaces.items()},
        metric=SCORE,
        mode=config.mode,
        points_to_evaluate=[encode(study, values) for values in again],
        seed=config.seed + len(ended),
    )
    for trial in ended:
        found.add_evaluated_point(
            encode(study, trial.values), trial.score, error=trial.outcome == "failed" or trial.score is None
        )
    return found


class DefaultsRunWhole(ASHAScheduler):
    """ASHA that does not stop the trial of the defaults: all others are compared with it."""

    spare_next = False
    """Whether the next trial is that one."""
    _spared = ""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Called by Tune for each trial, in order."""
        super().on_trial_add(tune_controller, trial)
        if self.spare_next:
            self._spared, self.spare_next = trial.trial_id, False

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Called by Tune for each epoch; says whether the trial goes on."""
        action: str = super().on_trial_result(tune_controller, trial, result)
        whole = result["training_iteration"] >= self._max_t
        return TrialScheduler.CONTINUE if trial.trial_id == self._spared and not whole else action


def scheduler(study: Study, ended: Sequence[Trial]) -> ASHAScheduler:
    """ASHA that knows the curves of trials which ended."""
    config = study.recipe.tune
    found = DefaultsRunWhole(
        metric=SCORE,
        mode=config.mode,
        max_t=study.max_epochs,
        grace_period=config.grace_epochs,
        reduction_factor=config.reduction_factor,
    )
    for trial in ended:
        earlier = SimpleNamespace(trial_id=f"ended-{trial.number}")
        found.on_trial_add(None, earlier)
        # Of a whole trial the newest word is of its end, also where an earlier release heard less often of it.
        first = 1 + study.max_epochs - len(trial.curve) if trial.outcome == "completed" else 1
        for epoch, score in enumerate(scores(study, trial.curve), max(1, first)):
            found.on_trial_result(None, earlier, {"training_iteration": epoch, SCORE: score})
        found.on_trial_remove(None, earlier)
    found.spare_next = all(trial.number > 0 for trial in ended)
    return found


class TrialLog(tune.Callback):
    """Tells a study's event log what Tune does. Runs beside the driver, in Tune's thread.

    Args:
        study: Whose.
        numbers: Of the trials to come, in the order in which the search gives them.
    """

    def __init__(self, study: Study, numbers: Sequence[int]) -> None:
        self._study, self._numbers, self._log = study, list(numbers), EventLog(study.folder)
        self._number: dict[str, int] = {}

    def on_step_begin(self, trials: Any, **_: Any) -> None:
        """Called by Tune all the time; where the study was interrupted it ends the trials, and Tune's run by an error."""
        if (self._study.folder / ABORT).exists():
            for actor in (trial.temporary_state.ray_actor for trial in trials):
                if actor is not None:
                    ray.kill(actor)
            raise TrainingError("the study was interrupted")

    def on_trial_start(self, trials: Any, trial: Any, **_: Any) -> None:
        """Called by Tune when a trial's process begins: with several at once not in their order."""
        number = self._number[trial.trial_id] = self._numbers[trials.index(trial)]
        self._log.append(number, "start", values=decode(self._study, trial.config))

    def on_trial_result(self, trial: Any, result: Any, **_: Any) -> None:
        """Called by Tune for each report of a trial."""
        number = self._number[trial.trial_id]
        self._log.append(number, "report", numbers=result[NUMBERS], score=result[SCORE])

    def on_trial_complete(self, trial: Any, **_: Any) -> None:
        """Called by Tune when a trial is at its end, or was stopped."""
        whole = trial.last_result.get("training_iteration", 0) >= self._study.max_epochs
        self._end(trial, "completed" if whole else "stopped", None)

    def on_trial_error(self, trial: Any, **_: Any) -> None:
        """Called by Tune when a trial's process raised an error or is gone."""
        text = Path(trial.error_file).read_text(encoding="utf-8") if trial.error_file else ""
        self._end(trial, "failed", last_line(text) or "its process ended")

    def _end(self, trial: Any, outcome: Outcome, reason: str | None) -> None:
        self._log.append(self._number[trial.trial_id], "end", outcome=outcome, reason=reason)
        shutil.rmtree(self._study.folder / TRIALS / trial.trial_id, ignore_errors=True)


def last_line(text: str) -> str:
    r"""The last line of a traceback, without the error's class.

    >>> last_line("Traceback …\n  …\ntastemaker.errors.TrainingError: the loss, is nan\n")
    'the loss, is nan'
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return re.sub(r"^[\w.]+: ", "", lines[-1]) if lines else ""
