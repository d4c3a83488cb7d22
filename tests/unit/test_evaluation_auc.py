"""AUC of blocks of users beside plain loops, and who has which item."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.evaluation.measuring import _num_users
from tastemaker.evaluation.systems import aucs
from tastemaker.evaluation.windows import Cutoff, LastOut, folds
from tastemaker.models.log import Log

NUM_ITEMS = 14


def by_pairs(score_I: np.ndarray, targets: np.ndarray) -> float:
    others = [item for item in range(len(score_I)) if item not in targets and np.isfinite(score_I[item])]
    won = [
        (score_I[target] > score_I[other]) + 0.5 * (score_I[target] == score_I[other])
        for target in targets
        for other in others
    ]
    return float(np.mean(won)) if won else float("nan")


row = st.tuples(
    st.lists(st.sampled_from([-np.inf, 0.0, 1.0, 2.0, 3.0]), min_size=NUM_ITEMS, max_size=NUM_ITEMS),
    st.lists(st.integers(0, NUM_ITEMS - 1), max_size=12, unique=True),  # more than are counted one by one
)


@given(st.lists(row, max_size=4))
@settings(max_examples=300, deadline=None)
def test_auc_is_the_share_of_pairs_that_are_in_order(rows):
    score_BI = np.array([scores for scores, _ in rows], np.float32).reshape(len(rows), NUM_ITEMS)
    targets = [np.array(items, np.int32) for _, items in rows]
    expected = [by_pairs(row_I, items) for row_I, items in zip(score_BI, targets, strict=True)]
    assert aucs(score_BI, targets).tolist() == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("split", [LastOut(), LastOut(num=3), Cutoff(share=0.6)])
def test_users_of_an_item_are_counted_once_each_whether_they_are_asked_for_or_not(split):
    draws = np.random.default_rng(0)
    user_N, item_N = draws.integers(0, 30, 200), draws.integers(0, 20, 200)  # with repeats
    log = Log.of(user_N, item_N, num_users=31, num_items=20, timestamp_ms_N=np.arange(200))
    (fold,) = folds(log, split)
    expected = np.bincount(fold.train.matrix().indices, minlength=20)
    found = _num_users(fold, fold.askers.matrix(20))
    assert found.tolist() == expected.tolist()
