import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.data.splits import Histories
from tastemaker.models.item_item import fit_ease
from tastemaker.types import Query
from tastemaker_training.sources.memory import UnprunedEase


def histories(num_users, num_items, seed):
    random = np.random.default_rng(seed)
    return Histories.from_lists(
        [random.permutation(num_items)[: random.integers(1, num_items)] for _ in range(num_users)]
    )


@given(st.sampled_from([(5, 9), (9, 5), (7, 7)]), st.integers(0, 100), st.sampled_from([None, 2.0]))
@settings(max_examples=30, deadline=None)
def test_unpruned_ease_scores_as_the_model_that_keeps_all_weights(shape, seed, half_life):
    num_users, num_items = shape
    fitted = histories(num_users, num_items, seed)
    asked = [fitted[user] for user in range(num_users)]
    model = fit_ease(fitted.to_csr(num_items), 3.0, half_life=half_life)
    ease = UnprunedEase(fitted.to_csr(num_items), 3.0)
    found = ease.scores(Histories.from_lists(asked).to_csr(num_items, half_life))
    np.testing.assert_allclose(found, model.scores(asked), rtol=1e-4, atol=1e-5)  # float32 weights


def test_unpruned_ease_by_hand():
    # Two users share items 0 and 1, one has 0 alone. X'X + 1 = [[4, 2], [2, 3]], P = [[3, -2], [-2, 4]] / 8,
    # and the weight of item 1 from item 0 is -P_01 / P_11 = 2 / 4.
    ease = UnprunedEase(Histories.from_lists([[0, 1], [0, 1], [0]]).to_csr(2), 1.0)
    scores = ease.scores(Histories.from_lists([[0]]).to_csr(2))
    np.testing.assert_allclose(scores, [[0.0, 0.5]], atol=1e-6)


def test_unpruned_ease_recommends_what_is_not_in_the_history():
    ease = UnprunedEase(histories(6, 8, 0).to_csr(8), 2.0)
    (found,) = ease.recommender(2.0)([Query(np.array([1, 3], np.int32), k=8)], 8)
    assert sorted(found) == [0, 2, 4, 5, 6, 7]
    assert found.dtype == np.int32
    assert pytest.approx(1.0) == ease.recommender(None)([Query(np.array([1], np.int32), k=1)], 1)[0].size
