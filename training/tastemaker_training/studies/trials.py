"""A trial of a study, in a process of its own that Ray Tune starts and ends. Not for which trials there are (`tuner`).

It starts workers of its own and has them run the loop that a training runs; what they report goes to Tune. They end with
this process, which Tune kills as soon as ASHA gives the trial up. Imports Ray.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ray import tune

from tastemaker.config import Settings
from tastemaker.data.log import read_frozen
from tastemaker.home import Home
from tastemaker_training.distributed.workers import Task, Workers
from tastemaker_training.plan.recipe import Recipe
from tastemaker_training.runs.ranker_task import ranker_module
from tastemaker_training.runs.steps import TWO_TOWER_MODULE, Steps
from tastemaker_training.studies.study import Study, decode, scores

SCORE, NUMBERS = "score", "numbers"
TRIALS = "trials"
"""Folder, in a study's, of what trials write; it goes with them."""
_ARTIFACTS_SECONDS = 600.0
_POLL_SECONDS = 0.2


def run_trial(config: dict[str, Any]) -> None:
    """A trial, in a process of its own: reports every epoch's numbers to Tune.

    Args:
        config: `study` (folder), `home`, `settings`, `workers`, and a sample for each of the study's spaces.
    """
    study, home = Study.open(Path(config["study"])), Home.open(Path(config["home"]))
    settings = Settings.parse(config["settings"] | {"home": config["home"]}, "settings of the study")
    folder = study.folder / TRIALS / tune.get_context().get_trial_id()
    folder.mkdir(parents=True)
    recipe = study.recipe_of(decode(study, config))
    module = TWO_TOWER_MODULE if study.part == "two_tower" else ranker_module(recipe)
    workers = Workers(settings, home, config["workers"], (module,))
    workers.start()  # meanwhile the data is read; they are not stopped here: Tune ends this process, and Ray with it them
    loop, argument = _loop(study, settings, home, recipe, config["workers"])
    curve: list[Any] = []
    for report in _reports(workers.submit(loop, argument | {"only_fit": "train"}, folder)):
        if "epoch" in report:
            curve.append({key: value for key, value in report.items() if key not in ("task", "fit")})
            tune.report({SCORE: scores(study, curve)[-1], NUMBERS: curve[-1]})


def _loop(
    study: Study, settings: Settings, home: Home, recipe: Recipe, num_workers: int
) -> tuple[str, dict[str, Any]]:
    """The training loop of the study's part and its argument; trials that need the same artifact make it once."""
    dataset = read_frozen(home, settings.catalogue, study.fingerprint)
    steps = Steps.of(settings, home, recipe, num_workers, dataset=dataset)
    with home.lock("tuning", _ARTIFACTS_SECONDS):
        return steps.two_tower_loop() if study.part == "two_tower" else steps.ranker_loop()


def _reports(task: Task) -> Iterator[dict[str, Any]]:
    """What a task's rank 0 reports, as it does, until it is done."""
    seen = 0
    while True:
        reports = task.workers.reports(task.number)
        yield from reports[seen:]
        seen = len(reports)
        if reports and "done" in reports[-1]:
            return
        time.sleep(_POLL_SECONDS)
