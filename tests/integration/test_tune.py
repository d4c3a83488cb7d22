"""A study by the command that a user types: interrupted, its driver killed, resumed, its best published."""

import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from small import SmallHome

from tastemaker.config import Settings
from tastemaker.home import Home
from tastemaker.registry.client import Registry
from tastemaker_training.plan.recipe import read_recipe
from tastemaker_training.studies.study import Study, replay

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]
RATE = "two_tower.fit.optimizer.table_learning_rate"
DEFAULT, SMALL, TOO_LARGE = 0.1, 0.0001, 1e38
# The search's seed asks for SMALL first, which ASHA stops after an epoch, then for TOO_LARGE, which gives no number.
RECIPE = """
memory: {item_knn: {num_neighbours: 20}, ease: {l2: 20.0}, als: {dim: 8, iterations: 3}, half_lives: [5.0]}
two_tower:
  model: {dim: {default: 16, search: [8, 16]}, hidden: 16, max_history: 10}
  fit:
    epochs: 3
    batch_size: 64
    negatives: {num_sampled: 32}
    optimizer: {table_learning_rate: {default: 0.1, search: [0.1, 0.0001, 1.0e+38]}}
    sharding: {default: data_parallel}
ranker: {fit: {epochs: 1, requests_per_batch: 8}}
pipeline:
  retrieval: {num_candidates: 30, sources: [{name: two_tower, quota: 20}, {name: popular, quota: 20}]}
tune: {num_trials: 3, reduction_factor: 2, seed: 12}
"""
RUNNING = """
SELECT 1 FROM runs JOIN tags USING (run_uuid)
WHERE status = 'RUNNING' AND key = 'tastemaker.trial' AND value = ? AND start_time > ?
"""


class Tuned(SmallHome):
    """A study that was interrupted in its second trial, then killed in it, then resumed to its end."""

    recipe = RECIPE

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.interrupted = self.stopped_in_trial(1, signal.SIGTERM)
        self.left = sorted(path.name for path in self.study.folder.rglob("*"))
        self.killed = self.stopped_in_trial(1, signal.SIGKILL, "--resume")
        self.before = self.study.events()
        self.found = self.json("tune", "small.yaml", "--resume", "--json")

    @property
    def study(self) -> Study:
        (record,) = (self.home / "checkpoints/tune/default").glob("*/study.json")
        return Study.open(record.parent)

    @property
    def registry(self) -> Registry:
        return Registry(Settings(home=self.home), Home.open(self.home))

    def is_running(self, number: int, after_ms: int) -> bool:
        """Whether MLflow has a run of the trial that began after a time and goes on."""
        file = self.home / "mlflow/mlflow.db"
        if not file.exists():
            return False
        with closing(sqlite3.connect(file, timeout=60)) as database:
            try:
                return database.execute(RUNNING, (str(number), after_ms)).fetchone() is not None
            except sqlite3.OperationalError:  # its tables are being made
                return False

    def stopped_in_trial(self, number: int, signum: int, *options: str) -> tuple[int, str, list[list[str]]]:
        """Exit code, last words and command lines of the processes left, after a signal in a trial of this driver's."""
        process = self.start("tune", "small.yaml", *options)
        began_ms, deadline = time.time_ns() // 1_000_000, time.monotonic() + 150
        while not self.is_running(number, began_ms):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signum)
        _, error = process.communicate(timeout=60)
        _, alive = psutil.wait_procs(children, timeout=15)
        return process.returncode, error.rstrip(), [child.cmdline() for child in alive]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    return Tuned(tmp_path_factory.mktemp("tune"))


def test_an_interrupted_study_ends_whole_and_keeps_its_record_alone(tuned):
    code, error, alive = tuned.interrupted
    assert (code, alive) == (130, []), error
    assert error.endswith("interrupted: stopped all that was started")
    assert tuned.left == ["abort", "events.jsonl", "study.json"]


def test_a_killed_driver_leaves_nothing_that_trains(tuned):
    code, _, alive = tuned.killed
    assert code == -signal.SIGKILL
    # Ray's agents of a node, and workers that it was starting and had given no work, end within a minute of the node.
    idle = ("ray::RuntimeEnvAgent", "ray::DashboardAgent", "default_worker.py")
    assert not [command for command in alive if not any(name in " ".join(command[:2]) for name in idle)]


def test_what_had_ended_is_not_run_again_and_what_had_not_is(tuned):
    starts = [event["trial"] for event in tuned.study.events() if event["event"] == "start"]
    assert starts == [0, 1, 1, 1, 2]
    assert [trial.outcome for trial in replay(tuned.before)] == ["completed", "running"]
    values = [event["values"] for event in tuned.study.events() if event["trial"] == 1 and "values" in event]
    assert values[0] == values[1] == values[2]


def test_trials_are_whole_stopped_or_failed_and_the_defaults_are_the_first(tuned):
    defaults, stopped, failed = tuned.study.trials()
    assert defaults.values == {"two_tower.model.dim": 16, RATE: DEFAULT}
    assert (stopped.values[RATE], failed.values[RATE]) == (SMALL, TOO_LARGE)
    assert [len(trial.curve) for trial in (defaults, stopped, failed)] == [3, 1, 0]
    assert [trial.outcome for trial in (defaults, stopped, failed)] == ["completed", "stopped", "failed"]
    assert defaults.score == max(point["validation_ndcg@10"] for point in defaults.curve)
    assert stopped.score < defaults.score
    assert "loss" in failed.reason
    assert tuned.found["trials"][2]["reason"] == failed.reason


def test_every_trial_is_a_run_nested_in_the_studys(tuned):
    client, study = tuned.registry._client, tuned.study
    experiment = client.get_run(study.mlflow_run_id).info.experiment_id
    nested = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{study.mlflow_run_id}'")
    found = [
        (run.data.tags["tastemaker.trial"], run.info.status, run.data.tags.get("tastemaker.outcome", ""))
        for run in nested
    ]
    assert sorted(found) == [
        ("0", "FINISHED", "completed"), ("1", "FINISHED", "stopped"),
        ("1", "KILLED", ""), ("1", "KILLED", ""), ("2", "FAILED", "failed"),
    ]  # fmt: skip
    whole = next(run for run in nested if run.data.tags.get("tastemaker.outcome") == "completed")
    assert whole.data.params == {"two_tower.model.dim": "16", RATE: "0.1"}
    curve = client.get_metric_history(whole.info.run_id, "validation_ndcg_at_10")
    assert [point.step for point in curve] == [1, 2, 3]
    parent = client.get_run(study.mlflow_run_id)
    assert (parent.info.status, parent.data.tags["tastemaker.best_trial"]) == ("FINISHED", "0")


def test_the_best_is_a_version_that_no_alias_names(tuned):
    published, registry = tuned.found["published"], tuned.registry
    tags = registry._client.get_model_version("default", str(published["version"])).tags
    assert tags["tastemaker.candidate"] == f"tune/{tuned.study.name}"
    assert registry.aliases("default") == {}
    assert published["recipe"] == "small-tuned"


def test_the_best_is_a_recipe_that_can_be_trained_again(tuned):
    best = read_recipe(tuned.found["recipe"])
    assert (best.name, best.two_tower.fit.optimizer.table_learning_rate) == ("small-tuned", DEFAULT)
    page = Path(tuned.found["report"]).read_text(encoding="utf-8")
    assert "Trials over time" in page
    assert "<script src=" not in page


def test_nothing_of_a_study_is_pickled_and_nothing_of_its_trials_is_left(tuned):
    assert sorted(path.name for path in tuned.study.folder.iterdir()) == [
        "best.yaml", "events.jsonl", "report.html", "study.json",
    ]  # fmt: skip
    assert not list((tuned.home / "checkpoints").glob("workers-*"))
    assert tuned.study.folder.stat().st_mode & 0o077 == 0


def test_a_changed_recipe_does_not_go_on_with_the_study(tuned):
    tuned.write("small.yaml", RECIPE.replace("search: [8, 16]", "search: [8, 16, 32]"))
    _, error = tuned.start("tune", "small.yaml", "--resume").communicate(timeout=60)
    assert "spaces of study" in error
    assert "is not what the recipe says now: run without --resume" in error
