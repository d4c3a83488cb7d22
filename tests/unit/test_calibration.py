"""Calibration: scores become chances and keep their order."""

import numpy as np
import pytest

from tastemaker.errors import DataError
from tastemaker.models.calibration import Calibration


def test_calibration_finds_the_scaling_that_made_the_labels() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, 200_000).astype(np.float32)
    labels = generator.random(len(logits)) < 1 / (1 + np.exp(-(0.5 * logits - 3)))
    fitted = Calibration.fit(logits, labels)
    # standard errors at 200,000 rows of 5-8% positives are near .005 and .012
    assert (fitted.slope, fitted.intercept) == (pytest.approx(0.5, abs=0.02), pytest.approx(-3, abs=0.05))
    assert fitted(logits).mean() == pytest.approx(labels.mean(), abs=1e-4)


def test_calibration_never_turns_the_order_round() -> None:
    worse_than_chance = Calibration.fit(
        np.array([3.0, 2.0, -2.0, -3.0], np.float32), np.array([0, 0, 1, 1], np.float32)
    )
    assert worse_than_chance.slope > 0


def test_calibration_needs_both_labels() -> None:
    with pytest.raises(
        DataError, match=r"of target click, is '0 positives, 2 negatives.*hold out more requests"
    ):
        Calibration.fit(np.array([1.0, 2.0], np.float32), np.zeros(2, np.float32))


def test_calibration_survives_its_round_trip() -> None:
    calibration = Calibration(
        slope=2.0, intercept=-1.5, others={"like": Calibration(slope=0.5, intercept=1.0)}
    )
    assert Calibration.from_state(calibration.config_dict()) == calibration


def test_calibrations_of_the_previous_release_load() -> None:
    assert Calibration.from_state({"slope": 2.0, "intercept": -1.5}) == Calibration(slope=2.0, intercept=-1.5)


def test_each_binary_target_has_a_calibration_of_its_own() -> None:
    nan = float("nan")
    logits = np.array([[2, 1, 9], [1, 0, 9], [0, 5, 9], [-1, 2, 9]], np.float32)
    labels = np.array([[1, 0, nan], [0, 1, nan], [1, nan, 30], [0, 1, nan]], np.float32)
    fitted = Calibration.fit_targets(logits, labels, ("click", "like", "watch"))
    click, like = (
        Calibration.fit(logits[:, 0], labels[:, 0]),
        Calibration.fit(logits[[0, 1, 3], 1], labels[[0, 1, 3], 1]),
    )
    assert (fitted.of("click")(logits[:, 0]) == click(logits[:, 0])).all()
    assert fitted.of("like") == like
    assert fitted.others.keys() == {"like"}
