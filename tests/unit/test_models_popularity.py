import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.errors import CompatibilityError
from tastemaker.models.popularity import Popularity, fit_popularity, newest_first
from tastemaker.models.segments import Segments

DAY_MS = 86_400_000
# Item 0 four times 60 days ago, item 1 twice today, item 2 once 30 days ago, item 3 never.
ITEMS = np.array([0, 0, 0, 0, 1, 1, 2], np.int32)
TIMES = np.array([0, 0, 0, 0, 60, 60, 30], np.int64) * DAY_MS
TAGS = [["old"], ["new", "war"], ["war"], []]


@pytest.fixture
def model() -> Popularity:
    return fit_popularity(ITEMS, TIMES, 4, tags=TAGS, trend_half_life_days=30.0)


def test_counts_are_of_all_time(model):
    assert model.counts_I.tolist() == [4, 2, 1, 0]
    assert model.popular().tolist() == [1.0, 0.5, 0.25, 0.0]


def test_trending_halves_with_every_half_life_before_the_newest(model):
    assert model.trending_I.tolist() == [4 / 4, 2, 1 / 2, 0]
    assert model.config.as_of_ms == 60 * DAY_MS
    # half the share of decayed counts (of 2), half the share of all counts (of 4)
    assert model.trending().tolist() == [(1 / 2 + 1) / 2, (1 + 1 / 2) / 2, (1 / 4 + 1 / 4) / 2, 0]


def test_a_context_raises_the_items_of_its_segment_above_all_others(model):
    scores = model.in_context({"tag": "war", "device": "phone"})
    assert np.argsort(-scores, kind="stable").tolist() == [1, 2, 0, 3]


def test_an_unknown_segment_changes_nothing(model):
    np.testing.assert_array_equal(model.in_context({"tag": "nothing"}), model.trending())


def test_no_interactions_give_zeros():
    model = fit_popularity(np.empty(0, np.int32), np.empty(0, np.int64), 3)
    assert model.popular().tolist() == [0, 0, 0]
    assert model.trending().tolist() == [0, 0, 0]


def test_state_round_trip(model):
    again = Popularity.from_state(model.config_dict(), model.tensors())
    assert again.config == model.config
    np.testing.assert_array_equal(again.in_context({"tag": "war"}), model.in_context({"tag": "war"}))
    np.testing.assert_array_equal(again.popular(), model.popular())


def test_counts_of_another_catalogue_are_refused(model):
    with pytest.raises(CompatibilityError, match="popularity counts"):
        Popularity.from_state({**model.config_dict(), "num_items": 5}, model.tensors())


def test_further_items_are_taken_by_nobody_or_the_newest_where_nobody_took_any():
    fitted = fit_popularity(np.array([0, 0, 1], np.int32), np.array([1, 2, 3]), 2, tags=[["a"], []]).padded(4)
    assert fitted.popular().tolist() == [1.0, 0.5, 0.0, 0.0]
    assert fitted.in_context({"tag": "a"})[2:].tolist() == [0.0, 0.0]
    newest = newest_first(np.array([5.0, np.nan, 9.0])).padded(5)
    assert np.argsort(-newest.trending(), kind="stable").tolist() == [4, 3, 2, 0, 1]


@given(
    st.lists(st.lists(st.integers(0, 19), max_size=8), max_size=5), st.lists(st.integers(0, 19), max_size=6)
)
@settings(deadline=None)
def test_segments_as_lists_say_what_the_matrix_says(lists: list[list[int]], rows: list[int]) -> None:
    segments = Segments.of(20, lists)
    matrix = np.array([[row in own for row in range(20)] for own in lists], bool).reshape(len(lists), 20)
    np.testing.assert_array_equal(segments.matrix(), matrix)
    again = Segments.from_matrix(matrix)
    np.testing.assert_array_equal(again.row_V, segments.row_V)
    chosen = list(range(0, len(lists), 2))
    expected = matrix[chosen].any(axis=0)
    np.testing.assert_array_equal(segments.any_of(chosen), expected)
    np.testing.assert_array_equal(segments.any_of(chosen, np.array(rows, np.int32)), expected[rows])


def test_a_model_whose_segments_were_kept_as_a_matrix_is_read() -> None:
    model = fit_popularity(np.array([0, 1, 1], np.int32), np.arange(3), 3, tags=[["a"], [], ["a", "b"]])
    kept = model.tensors()
    old = {name: kept[name] for name in ("counts", "trending")}
    old["members"] = np.array([[1, 0, 1], [0, 0, 1]], np.uint8)
    for tensors in (kept, old):
        again = Popularity.from_state(model.config_dict(), tensors)
        np.testing.assert_array_equal(again.in_context({"tag": "a"}), model.in_context({"tag": "a"}))
