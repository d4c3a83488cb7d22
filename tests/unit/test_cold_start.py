"""Shares of content and of collaborative sources by an item's number of interactions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.errors import ConfigError
from tastemaker.stages.cold_start import ColdStart, ColdStartConfig

NAMES = ("two_tower", "ease", "content", "popular")
WEIGHTS = np.array([2.0, 1.0, 1.0, 0.1], np.float32)
ROWS = np.arange(3, dtype=np.int32)


def cold_start(counts: list[float], **config: object) -> ColdStart:
    return ColdStart(ColdStartConfig.parse(config, "test"), NAMES, np.array(counts, np.float32))


@pytest.mark.parametrize(
    ("interactions", "content"),
    [(0, 1.0), (1, 0.8), (5, 0.8), (10, 0.8), (20, 0.5), (30, 0.5), (40, 0.5), (50, 0.2), (10_000, 0.2)],
)
def test_shares_of_the_fields_practice(interactions: int, content: float):
    (weights,) = cold_start([interactions]).weights(WEIGHTS, ROWS[:1])
    collaborative = weights[0] + weights[1]
    assert weights[2] / (weights[2] + collaborative) == pytest.approx(content, abs=1e-6)
    assert weights[3] == np.float32(0.1)  # popular is neither
    if collaborative:
        assert weights[0] / weights[1] == pytest.approx(2.0, abs=1e-5)
    assert weights[2] + collaborative == pytest.approx(content * 1.0 + (1 - content) * 3.0, abs=1e-5)


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=20))
def test_the_share_never_rises_with_interactions_and_has_no_jumps(numbers):
    numbers = np.sort(np.array(numbers, np.float32))
    share = cold_start([0]).share(numbers)
    assert ((share >= 0.2) & (share <= 1)).all()
    assert (np.diff(share) <= 1e-12).all()
    assert (
        np.abs(np.diff(share)) <= 0.2 * np.diff(numbers.astype(np.float64)) + 1e-9
    ).all()  # steepest from 0 to 1


def test_later_items_are_taken_by_none_and_one_kind_alone_keeps_its_weights():
    grown = cold_start([100.0]).weights(WEIGHTS, ROWS)
    assert grown[1].tolist() == grown[2].tolist() == [0.0, 0.0, 1.0, np.float32(0.1)]
    silent = np.array([0, 0, 1, 0.1], np.float32)  # no collaborative source has answered
    assert cold_start([100.0]).weights(silent, ROWS).tolist() == [silent.tolist()] * 3
    unknown = ColdStart(ColdStartConfig(), NAMES, None)
    assert unknown.weights(WEIGHTS, ROWS).tolist() == [WEIGHTS.tolist()] * 3


def test_shares_are_config_and_must_fall():
    flat = cold_start([0.0, 1000.0], content_share=[[0, 0.5]])
    assert flat.share(np.array([0, 3, 1000], np.float32)).tolist() == [0.5] * 3
    for knots in ([[0, 0.5], [1, 0.6]], [[1, 0.5], [1, 0.4]], [[-1, 0.5]], [[0, 1.5]]):
        with pytest.raises(ConfigError, match="content_share"):
            cold_start([0], content_share=knots)
