import json
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from tastemaker import context
from tastemaker.config import RaySettings, Settings
from tastemaker.errors import DataError, TrainingError, UsageError
from tastemaker.evaluation.offline import Evaluation
from tastemaker.home import Home
from tastemaker.runtime import free_port
from tastemaker_training.artifacts import plain
from tastemaker_training.commands import evaluate
from tastemaker_training.distributed.exchange import read_curves
from tastemaker_training.distributed.workers import check_cluster, check_workers
from tastemaker_training.plan.recipe import read_recipe
from tastemaker_training.runs.evaluate import load_evaluations, save_evaluations
from tastemaker_training.runs.run import train
from tastemaker_training.runs.run_record import open_run


@pytest.fixture
def home(tmp_path):
    return Home.make(tmp_path / "home")


def finished(home, run, catalogue="default"):
    folder = home / "checkpoints" / "runs" / catalogue / run
    folder.mkdir(parents=True)
    record = {
        "recipe": plain(read_recipe("movielens")), "fingerprint": "f" * 64, "num_workers": 1,
        "timings": {"ranker": 1.5}, "mlflow_run_id": "m", "code_revision": "c",
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(record))


def test_a_recipes_file_stands_for_its_latest_run_and_any_other_yaml_for_a_plan(
    home, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(context, "_settings", Settings(home=tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    finished(home, "mine-20260101T000000000000")
    (home / "checkpoints" / "runs" / "default" / "mine-20260101T000000000000" / "offline.json").write_text(
        '{"rows": [{"ndcg@10": NaN}]}'
    )
    evaluate("mine.yaml", as_json=True)  # the file need not be there any more
    assert json.loads(capsys.readouterr().out) == {"rows": [{"ndcg@10": None}]}
    (tmp_path / "mine.yaml").write_text("extends: movielens\nmodels: {more: {kind: ease}}\n")
    assert evaluate("mine.yaml", as_json=True).keys() == {"rows"}
    (tmp_path / "plan.yaml").write_text("models: {a: {kind: nothing}}\n")
    with pytest.raises(UsageError, match=r"plan\.yaml.*kind of model, is 'nothing'"):
        evaluate("plan.yaml", as_json=True)


def test_more_workers_than_cores_are_refused():
    cores = os.cpu_count()
    with pytest.raises(
        UsageError, match=rf"--workers, is {cores + 1}, must be at most the {cores} cores of this"
    ):
        check_workers(cores + 1, Settings())
    with pytest.raises(UsageError, match="--workers, is 0, must be at least 1"):
        check_workers(0, Settings())
    check_workers(cores, Settings())
    check_workers(cores + 1, Settings(ray=RaySettings(address=f"127.0.0.1:{free_port()}")))


def test_workers_that_no_live_node_has_room_for_are_refused(monkeypatch):
    nodes = [
        {"Alive": True, "Resources": {"CPU": 4.0}},
        {"Alive": False, "Resources": {"CPU": 16.0}},
        {"Alive": True, "Resources": {}},
    ]
    monkeypatch.setitem(
        sys.modules, "ray", SimpleNamespace(nodes=lambda: nodes)
    )  # a cluster with a dead host
    check_cluster(4)
    with pytest.raises(
        TrainingError, match=r"workers, is 5, must be at most 4, the CPUs of the cluster's live"
    ):
        check_cluster(5)


def test_an_error_of_ours_keeps_its_kind_and_words_on_its_way_from_a_rank():
    from tastemaker_training.distributed.workers import _fault

    fault = {"kind": "DataError", "what": "rows of a step", "value": 3, "limit": None, "mend": "import more"}
    found = _fault(dict(fault))
    assert isinstance(found, DataError)
    assert str(found) == "rows of a step, is 3: import more"


def test_reports_that_were_given_again_count_once():
    from tastemaker_training.distributed.workers import _latest

    reports = [
        {"fit": "train", "plan": []},
        {"fit": "train", "epoch": 1, "loss": 2.0},
        {"fit": "train", "plan": []},
    ]
    again = [
        {"fit": "train", "epoch": 1, "loss": 2.5},
        {"fit": "train", "epoch": 2, "loss": 1.0},
        {"done": True},
    ]
    kept = _latest(reports + again)
    assert [report.get("loss") for report in kept if "epoch" in report] == [2.5, 1.0]
    assert sum("plan" in report for report in kept) == 1
    assert "done" in kept[-1]


def test_training_without_data_says_how_to_get_some(home):
    with pytest.raises(DataError, match=r"catalogue default has no data: run `tastemaker"):
        train(Settings(home=home.root), home, [read_recipe("movielens")], 1)


def test_a_recipe_names_its_latest_run_and_an_id_that_run(home):
    for run in ("a-20260101T000000000000", "a-20260102T000000000000", "a-b-20260103T000000000000"):
        finished(home, run)
    assert open_run(home, "default", "a").id == "a-20260102T000000000000"
    assert open_run(home, "default", "somewhere/a.yaml").id == "a-20260102T000000000000"
    assert open_run(home, "default", "a-b").id == "a-b-20260103T000000000000"
    assert open_run(home, "default", "a-20260101T000000000000").timings == {"ranker": 1.5}


def test_an_unknown_run_names_those_there_are(home):
    with pytest.raises(
        UsageError, match=r"run, is 'a', must be a recipe that was trained, or one of none yet: run"
    ):
        open_run(home, "default", "a")
    finished(home, "b-20260101T000000000000")
    with pytest.raises(UsageError, match="one of b-20260101T000000000000"):
        open_run(home, "default", "a")
    with pytest.raises(UsageError, match="none yet"):
        open_run(home, "other", "b")


def test_a_half_written_run_does_not_count(home):
    (home / "checkpoints" / "runs" / "default" / "a-20260101T000000000000").mkdir(parents=True)
    with pytest.raises(UsageError, match="none yet"):
        open_run(home, "default", "a")


def test_evaluations_come_back_as_they_were_saved(tmp_path):
    evaluations = {
        name: Evaluation(np.array([0, 2], np.int32), {"ndcg@10": np.array([0.5, value])}, {"gini": value})
        for name, value in (("EASE, recency", 0.25), ("two-tower", 0.75))
    }
    save_evaluations(tmp_path / "folder", evaluations)
    back = load_evaluations(tmp_path / "folder")
    assert list(back) == list(evaluations)
    for name, evaluation in evaluations.items():
        np.testing.assert_array_equal(back[name].users, evaluation.users)
        np.testing.assert_array_equal(back[name].per_user["ndcg@10"], evaluation.per_user["ndcg@10"])
        assert back[name].overall == evaluation.overall


def test_curves_leave_out_a_line_that_is_still_being_written(tmp_path):
    assert read_curves(tmp_path) == []
    (tmp_path / "curves.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n{"epo')
    assert read_curves(tmp_path) == [{"epoch": 1}, {"epoch": 2}]


def test_a_workers_own_error_reaches_the_user():
    from tastemaker_training.distributed.workers import _cause

    class WorkersFailedError(Exception):
        def __init__(self):
            self.worker_failures = {
                0: RuntimeError("other"),
                1: TrainingError("the loss", value=float("nan")),
            }

    assert str(_cause(WorkersFailedError())) == "the loss, is nan"
    assert "worker failed, is 'last line'" in str(_cause(RuntimeError("first\n\nlast line\n")))
