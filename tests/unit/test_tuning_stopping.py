"""When ASHA stops a trial, as Ray Tune asks it, without Ray."""

import pytest
from begun_study import RECIPE, begun, record, tuner

from tastemaker.home import Home


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(RECIPE)
    return Home.make(tmp_path / "home")


@pytest.fixture
def study(home):
    return begun(home)


class FakeTrial:
    """What ASHA asks of a trial."""

    def __init__(self, trial_id):
        self.trial_id = trial_id


def actions(asha, name, values):
    """What ASHA says to each epoch of a trial."""
    trial = FakeTrial(name)
    asha.on_trial_add(None, trial)
    return [
        asha.on_trial_result(None, trial, {"training_iteration": epoch, "score": value})
        for epoch, value in enumerate(values, 1)
    ]


def test_asha_stops_worse_trials_and_never_the_defaults(study):
    asha = tuner().scheduler(study, [])
    assert actions(asha, "defaults", [0.5, 0.6]) == ["CONTINUE", "CONTINUE"]
    assert actions(asha, "worse", [0.4]) == ["STOP"]
    assert actions(asha, "better", [0.7, 0.7, 0.7, 0.7]) == ["CONTINUE", "CONTINUE", "CONTINUE", "STOP"]


def test_a_better_trial_beside_the_defaults_does_not_stop_them(study):
    asha = tuner().scheduler(study, [])
    actions(asha, "defaults", [])
    actions(asha, "better", [0.7, 0.8])
    defaults = FakeTrial("defaults")
    told = [
        asha.on_trial_result(None, defaults, {"training_iteration": epoch, "score": 0.5})
        for epoch in range(1, 5)
    ]
    assert told == ["CONTINUE", "CONTINUE", "CONTINUE", "STOP"]  # whole at the fourth epoch


def test_asha_goes_on_from_the_curves_of_trials_that_ended(study):
    record(study, 0, [0.5, 0.6, 0.6, 0.6])
    record(study, 1, [], "failed", "no number")
    resumed = tuner().scheduler(study, study.trials())
    assert actions(resumed, "worse", [0.4]) == ["STOP"]
    assert actions(resumed, "later", [0.5, 0.55]) == ["CONTINUE", "STOP"]


def test_a_whole_trial_that_told_its_end_alone_stops_nobody_early(study):
    record(study, 0, [0.6])
    resumed = tuner().scheduler(study, study.trials())
    assert actions(resumed, "later", [0.3]) == ["CONTINUE"]
