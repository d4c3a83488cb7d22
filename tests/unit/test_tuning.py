"""Studies without trials: their record, what goes on from it, and what is refused before Ray starts."""

import json
import os
from dataclasses import replace

import pytest
from begun_study import DIM, RATE, RECIPE, begun, record, tuner

from tastemaker.config import RaySettings, Settings
from tastemaker.errors import ConfigError, DataError, TrainingError, UsageError
from tastemaker.home import Home
from tastemaker_training.studies.report import print_found, render
from tastemaker_training.studies.study import (
    EventLog,
    Study,
    check_same,
    decode,
    encode,
    latest,
    replay,
    scores,
)
from tastemaker_training.studies.tuning import tune


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(RECIPE)
    return Home.make(tmp_path / "home")


@pytest.fixture
def study(home):
    return begun(home)


def test_a_study_comes_back_as_it_was_saved(study):
    assert Study.open(study.folder) == study
    assert study.defaults == {DIM: 16, RATE: 0.1}
    assert (study.max_epochs, study.name) == (4, study.folder.name)
    assert study.folder.stat().st_mode & 0o777 == 0o700


def test_events_tell_each_trial_since_it_last_began(study):
    record(study, 0, [0.1, 0.3, 0.2])
    record(study, 1, [0.9], "running")
    record(study, 1, [0.2], "stopped")
    record(study, 2, [], "failed", "the loss is not a number")
    trials = study.trials()
    assert [(t.number, t.outcome, t.score, len(t.curve), t.reason) for t in trials] == [
        (0, "completed", 0.3, 3, None),
        (1, "stopped", 0.2, 1, None),
        (2, "failed", None, 0, "the loss is not a number"),
    ]
    assert trials[0].ended_ms >= trials[0].started_ms
    json.dumps([trial.summary() for trial in trials])


def test_a_line_that_a_killed_driver_left_unfinished_is_cut_off(study):
    record(study, 0, [0.1])
    whole = study.events()
    with (study.folder / "events.jsonl").open("a") as file:
        file.write('{"trial": 1, "event": "sta')
    assert study.events() == whole
    EventLog(study.folder).mend()
    record(study, 1, [0.2])
    assert [trial.number for trial in study.trials()] == [0, 1]
    EventLog(begun(Home.open(study.folder.parents[3])).folder).mend()  # nothing happened yet


def test_the_best_ran_to_the_end_and_of_equals_is_the_first(study):
    record(study, 0, [0.3])
    record(study, 1, [0.9], "stopped")
    record(study, 2, [0.5])
    record(study, 3, [0.5])
    assert study.best().number == 2
    less = replace(study, recipe=study.recipe_of({"tune.mode": "min"}))
    assert less.best().number == 0


def test_a_study_without_a_whole_trial_says_why(study):
    record(study, 0, [], "failed", "the loss of step 3 is nan")
    with pytest.raises(
        TrainingError, match=r"no trial of study small-\S+ ran to the end: the loss of step 3 is nan: "
    ):
        study.best()


def test_a_score_is_that_of_what_the_training_keeps(study):
    curve = [{"validation_ndcg@10": value} for value in (0.1, 0.3, 0.2)]
    assert scores(study, curve) == [0.1, 0.3, 0.3]  # the two-tower's best epoch
    ranker = replace(study, part="ranker", metric="held_out_ndcg@10")
    curve = [{"held_out_ndcg@10": value} for value in (0.1, 0.3, 0.2)]
    assert scores(ranker, curve) == [0.1, 0.3, 0.2]  # the ranker's last
    with pytest.raises(
        TrainingError, match=r"is 'held_out_ndcg@10', must be one of loss, which the ranker reports"
    ):
        scores(ranker, [{"loss": 0.5}])


@pytest.mark.parametrize("values", [{DIM: 8, RATE: 0.02}, {DIM: 16, RATE: 1.0}])
def test_values_come_back_from_what_optuna_has(study, values):
    assert encode(study, values)[DIM] in (0, 1)
    assert decode(study, encode(study, values) | {"home": "elsewhere"}) == values


def test_the_newest_study_of_the_recipes_part_goes_on(home, study):
    settings, newer = Settings(home=home.root), begun(home)
    assert latest(home, settings, study.recipe, "two_tower") == newer
    with pytest.raises(
        UsageError, match="there is no study of ranker of recipe small: run `tastemaker tune` without"
    ):
        latest(home, settings, study.recipe, "ranker")
    with pytest.raises(UsageError, match="there is no study of two_tower"):
        latest(home, Settings(home=home.root, catalogue="other"), study.recipe, "two_tower")


def test_a_study_goes_on_with_more_trials_and_nothing_else_changed(study):
    def changed(**values):
        return replace(study, recipe=study.recipe_of(values))

    check_same(study, changed(**{"tune.num_trials": 50, "tune.concurrency": 2}))
    for other in (changed(**{"two_tower.fit.epochs": 5}), changed(**{"tune.seed": 9})):
        with pytest.raises(
            UsageError, match=r"recipe of study small-\S+ is not what the recipe says now: run without"
        ):
            check_same(study, other)
    with pytest.raises(UsageError, match="spaces of study"):
        check_same(study, replace(study, spaces={}))


def test_the_search_begins_with_the_defaults_and_goes_on_elsewhere_than_it_was(study):
    fresh = tuner().search(study, [], [study.defaults])
    drawn = [decode(study, fresh.suggest(name)) for name in "abcd"]
    assert drawn[0] == study.defaults
    again = tuner().search(study, [], [study.defaults])
    assert [decode(study, again.suggest(name)) for name in "abcd"] == drawn  # seeded
    record(study, 0, [0.3])
    record(study, 1, [], "failed", "no number", drawn[1][RATE])
    resumed = tuner().search(study, study.trials(), [{DIM: 8, RATE: 0.5}])
    assert [trial.state.name for trial in resumed._ot_study.trials] == ["WAITING", "COMPLETE", "FAIL"]
    assert resumed._ot_study.best_value == 0.3
    asked = [decode(study, resumed.suggest(name)) for name in "abc"]
    assert asked[0] == {DIM: 8, RATE: 0.5}
    assert not [values for values in asked if values in drawn]


def test_what_began_and_did_not_end_comes_first_and_the_defaults_before_it(study):
    assert tuner().unfinished(study) == {0: study.defaults}
    assert study.reference() is None
    record(study, 1, [0.2], "running", rate=0.5)  # with two at once the second may be the first to begin
    record(study, 2, [0.2], "stopped")
    assert list(tuner().unfinished(study)) == [0, 1]
    assert tuner().unfinished(study)[1][RATE] == 0.5
    record(study, 0, [0.2])
    assert list(tuner().unfinished(study)) == [1]
    assert study.reference().number == 0


def test_trials_have_the_numbers_that_the_search_gave_them(study):
    log, first, second = tuner().TrialLog(study, [0, 3]), FakeTrial("a"), FakeTrial("b")
    for trial, rate in ((second, 0.5), (first, 0.1)):
        trial.config = {DIM: 1, RATE: rate, "home": "elsewhere"}
        log.on_trial_start(trials=[first, second], trial=trial)
    second.last_result = {"training_iteration": 1}
    log.on_trial_result(trial=second, result={"numbers": {"validation_ndcg@10": 0.2}, "score": 0.2})
    log.on_trial_complete(trial=second)
    first.error_file = None
    log.on_trial_error(trial=first)
    assert [(t.number, t.values[RATE], t.outcome, t.reason) for t in study.trials()] == [
        (0, 0.1, "failed", "its process ended"),
        (3, 0.5, "stopped", None),
    ]


class FakeTrial:
    """What ASHA asks of a trial."""

    def __init__(self, trial_id):
        self.trial_id = trial_id


def test_the_page_and_the_table_show_every_trial(study, capsys):
    record(study, 0, [0.4, 0.5, 0.5, 0.5])
    record(study, 1, [0.6, 0.6, 0.6, 0.6], rate=0.5)
    record(study, 2, [], "failed", "the loss, is nan")
    record(study, 3, [0.3], "stopped")
    page = render(study)
    assert page.count("<script src=") == 0
    for word in ("Trials over time", "What they tried", "table_learning_rate = 0.5", "completed"):
        assert word in page
    published = {"version": 3, "bundle": "abc"}
    print_found(study, {"best": 1, "recipe": "best.yaml", "report": "report.html", "published": published})
    out = capsys.readouterr().out
    assert "+20.0%" in out  # 0.6 against 0.5
    assert "-25.0%" in out  # 0.3 against 0.4, after as many epochs
    assert "trial 2 failed: the loss, is nan" in out
    assert "best: trial 1; its recipe is best.yaml" in out
    assert "version 3 is its bundle abc, which no alias names yet" in out


@pytest.mark.parametrize(
    ("change", "options", "error", "named"),
    [
        ("", {"part": "ranker"}, UsageError, "recipe small searches nothing of its ranker: write a value as"),
        ("", {"part": "als"}, UsageError, "--part, is 'als', must be one of two_tower, ranker: choose one"),
        ("", {"num_trials": 0}, UsageError, "--trials, is 0, must be at least 1"),
        ("tune: {metric: mrr}", {}, ConfigError, r"tune\.metric, is 'mrr', must be one of validation_ndcg@10, loss"),
        ("tune: {grace_epochs: 5}", {}, ConfigError, r"tune\.grace_epochs, is 5, must be at most the 4 epochs of a"),
        ("tune: {concurrency: 999}", {}, UsageError, r"tune\.concurrency with 1 workers each, is 999, must be at most"),
    ],
)  # fmt: skip
def test_what_cannot_be_tuned_is_refused_before_anything_starts(
    home, tmp_path, change, options, error, named
):
    (tmp_path / "child.yaml").write_text(f"extends: small.yaml\nname: small\n{change}")
    with pytest.raises(error, match=named):
        tune(Settings(home=home.root), home, "child.yaml", 1, **options)
    assert not (home / "checkpoints/tune").exists()


def test_a_recipe_without_a_space_or_too_many_workers_or_no_data_is_refused(home, tmp_path):
    settings = Settings(home=home.root)
    (tmp_path / "plain.yaml").write_text("pipeline: {retrieval: {sources: [{name: popular, quota: 10}]}}")
    with pytest.raises(
        UsageError, match="recipe plain searches nothing of its two_tower or ranker: write a value as"
    ):
        tune(settings, home, "plain.yaml", 1)
    with pytest.raises(UsageError, match="--workers, is 999, must be at most"):
        tune(settings, home, "small.yaml", 999)
    with pytest.raises(DataError, match=r"catalogue default has no data: run `tastemaker"):
        tune(settings, home, "small.yaml", 1)
    with pytest.raises(UsageError, match="there is no study of two_tower of recipe small"):
        tune(settings, home, "small.yaml", 1, resume=True)


def test_a_cluster_may_have_more_cores_than_this_machine(home, tmp_path):
    (tmp_path / "wide.yaml").write_text(f"extends: small.yaml\ntune: {{concurrency: {os.cpu_count() + 1}}}")
    settings = Settings(home=home.root, ray=RaySettings(address="127.0.0.1:6"))
    with pytest.raises(DataError, match="has no data"):
        tune(settings, home, "wide.yaml", 1)


def test_replaying_nothing_gives_no_trials():
    assert replay([]) == []
