"""Which check of `tastemaker.testing.contracts_ctr` sees which fault: each is planted in a factorisation machine."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from tastemaker.errors import CompatibilityError, DataError
from tastemaker.models.ctr.fm import FactorisationMachine
from tastemaker.models.ctr.model import ClickModel, Labelled
from tastemaker.testing.contracts_ctr import CHECKS, ClickCase

SETTINGS = {"dim": 8, "fit": {"epochs": 9, "batch_size": 256, "learning_rate": 0.02}}
Plant = Callable[[ClickModel], None]


@dataclass
class PlantedCase(ClickCase):
    """A case whose models have a fault, each from its fit on."""

    plant: Plant = field(kw_only=True)

    def fit(self, learned: Labelled, validation: Labelled | None = None) -> ClickModel:
        model = super().fit(learned, validation)
        self.plant(model)
        return model


@dataclass
class LearnsFromNothing(PlantedCase):
    """Its models say nothing where there are no rows to learn from."""

    def fit(self, learned: Labelled, validation: Labelled | None = None) -> ClickModel:
        try:
            return super().fit(learned, validation)
        except DataError:
            return super().fit(self.world.learned)


@dataclass
class PassesPropensitiesOver(PlantedCase):
    """Its models learn as if all rows had been looked at alike."""

    def fit(self, learned: Labelled, validation: Labelled | None = None) -> ClickModel:
        return super().fit(Labelled.of(learned.rows, learned.label_N), validation)


def predicts(change: Callable[..., np.ndarray]) -> Plant:
    """A fault of what is predicted: `change` gets the rows and the predictions."""

    def plant(model: ClickModel) -> None:
        sound = model.predict
        model.predict = lambda rows: change(rows, sound(rows)).astype(np.float32)  # type: ignore[method-assign]

    return plant


def no_fault(model: ClickModel) -> None:
    del model


def draws_without_seed(model: ClickModel) -> None:
    luck = np.random.default_rng(int.from_bytes(os.urandom(8), "little")).normal()
    sound = model.tensors
    model.tensors = lambda: {name: value + luck for name, value in sound().items()}  # type: ignore[method-assign]


def passes_other_fields_over(model: ClickModel) -> None:
    sound = model.predict

    def predict(rows):
        try:
            return sound(rows)
        except CompatibilityError:
            return np.full(len(rows), 0.5, np.float32)

    model.predict = predict  # type: ignore[method-assign]


def changes_rows(model: ClickModel) -> None:
    sound = model.predict

    def predict(rows):
        found = sound(rows)
        rows.dense_NF[:] = 0.0
        return found

    model.predict = predict  # type: ignore[method-assign]


def scores_backwards(model: ClickModel) -> None:
    sound = model.scores
    model.scores = lambda rows: -sound(rows)  # type: ignore[method-assign]


def exaggerates(model: ClickModel) -> None:
    sound = model.contributions
    model.contributions = lambda rows, at: sound(rows, at).scaled(1.1, 0.0)  # type: ignore[method-assign]


def is_another_while_it_explains(model: ClickModel) -> None:
    sound, alone = model.contributions, threading.Lock()
    bias = model._network.vectors.bias  # type: ignore[attr-defined]

    def contributions(rows, at):
        with alone:
            kept = bias.data
            bias.data = kept + 1.0
            time.sleep(0.02)
            bias.data = kept
            return sound(rows, at)

    model.contributions = contributions  # type: ignore[method-assign]


def gets_worse(model: ClickModel) -> None:
    model.losses = model.losses[::-1]


def raises_on_nothing(rows, chance_N):
    return chance_N / (len(rows) > 0) if len(rows) else chance_N[[0]]  # an IndexError


FAULTS: dict[str, tuple[Plant, set[str]]] = {
    "draws without its seed": (
        draws_without_seed,
        {"the_same_seed_gives_the_same_model", "what_was_saved_answers_the_same"},
    ),
    "predicts by what is not saved": (
        predicts(lambda _, chance_N: 0.9 * chance_N),
        {"what_was_saved_answers_the_same"},
    ),
    "gives no probability where a number is missing": (
        predicts(lambda rows, chance_N: np.where(np.isnan(rows.dense_NF[:, 0]), 2.0, chance_N)),
        {"no_value_is_refused"},
    ),
    "raises where nothing is asked": (
        predicts(raises_on_nothing),
        {"one_row_and_none"},
    ),
    "compares the rows of a call": (
        predicts(lambda _, chance_N: chance_N / (1 + chance_N.sum())),
        {"what_was_saved_answers_the_same", "one_row_and_none", "it_learns_who_meets_what"},
    ),
    "goes by places": (
        predicts(lambda rows, chance_N: chance_N / (1 + np.arange(len(rows)))),
        {
            "what_was_saved_answers_the_same",
            "no_value_is_refused",
            "one_row_and_none",
            "the_order_of_rows_does_not_matter",
            "scores_order_as_probabilities",
            "it_learns_who_meets_what",
        },
    ),
    "looks up what it has not": (
        passes_other_fields_over,
        {"rows_of_other_fields_are_refused"},
    ),
    "changes rows": (
        changes_rows,
        {"nothing_that_was_given_is_changed", "it_learns_who_meets_what"},
    ),
    "learned nothing": (
        predicts(lambda rows, _: np.full(len(rows), 0.5)),
        {"what_was_saved_answers_the_same", "it_learns_who_meets_what"},
    ),
    "is right in order and far too low": (
        predicts(lambda _, chance_N: chance_N**20),
        {"what_was_saved_answers_the_same", "it_learns_who_meets_what"},
    ),
    "scores backwards": (
        scores_backwards,
        {"scores_order_as_probabilities", "contributions_add_up_to_the_score"},
    ),
    "says that each field adds more than it does": (
        exaggerates,
        {"contributions_add_up_to_the_score"},
    ),
    "is another while it explains": (
        is_another_while_it_explains,
        {"explaining_disturbs_nobody"},
    ),
    "gets worse": (
        gets_worse,
        {"its_loss_falls"},
    ),
}
"""By fault: how it is planted, and the checks that see it. Whoever was saved has no fault when it is read back."""


def seen_by(case: ClickCase) -> set[str]:
    """The checks that a case does not pass."""
    found = set()
    for name, check in CHECKS.items():
        try:
            check(case)
        except (AssertionError, IndexError):
            found.add(name)
    return found


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen_by_these_checks_and_no_others(fault):
    plant, checks = FAULTS[fault]
    assert seen_by(PlantedCase("fm", SETTINGS, plant=plant)) == checks


def test_learning_from_nothing_is_seen():
    with pytest.raises(AssertionError, match="it was not refused"):
        CHECKS["nothing_to_learn_from_is_said"](LearnsFromNothing("fm", SETTINGS, plant=no_fault))


def test_passing_propensities_over_is_seen():
    with pytest.raises(AssertionError, match="propensities changed nothing"):
        CHECKS["what_propensities_correct_changes_the_fit"](
            PassesPropensitiesOver("fm", SETTINGS, plant=no_fault)
        )


def test_taking_any_weights_is_seen(monkeypatch):
    monkeypatch.setattr(FactorisationMachine, "from_state", classmethod(lambda cls, *_: cls))
    with pytest.raises(AssertionError, match="it was not refused"):
        CHECKS["weights_of_another_are_refused"](PlantedCase("fm", SETTINGS, plant=no_fault))


def test_each_check_sees_a_fault():
    alone = {
        "nothing_to_learn_from_is_said",
        "weights_of_another_are_refused",
        "what_propensities_correct_changes_the_fit",
    }
    assert set().union(*(checks for _, checks in FAULTS.values())) | alone == CHECKS.keys()


def test_the_model_that_faults_are_planted_in_keeps_the_contract():
    assert not seen_by(PlantedCase("fm", SETTINGS, plant=no_fault))


class Mine(FactorisationMachine):
    """Of somebody else: no kind of `ctr.kinds`."""

    kind = "mine"


def test_a_model_that_is_of_no_kind_is_tried_by_its_class():
    assert not seen_by(ClickCase("mine", SETTINGS, model=Mine))
