"""What every model's lists keep to; of `contracts`.

Shape letters: I items, B askers, K slots.
"""

import numpy as np

from tastemaker.models.log import Filters
from tastemaker.models.top import PADDING
from tastemaker.testing.case import Case, rows
from tastemaker.types import Bool, Float32, Int32

_K = 10


def long_lists_end_with_the_catalogue(case: Case) -> None:
    """Lists longer than there are items have each item once, and nothing behind them."""
    num_items = case.world.log.num_items
    item_BK, score_BK = case.fitted.recommend(case.askers, num_items + 5, Filters(exclude_seen=False))
    assert item_BK.shape == score_BK.shape == (len(case.askers), num_items + 5), "not so long as was asked"
    for item_K, score_K in zip(item_BK, score_BK, strict=True):
        assert sorted(item_K[:num_items]) == list(range(num_items))
        assert (item_K[num_items:] == PADDING).all()
        assert np.isneginf(score_K[num_items:]).all()
        assert (np.diff(score_K[:num_items]) <= 0).all(), "not best first"


def rules_hold(case: Case) -> None:
    """What is seen, excluded or not allowed is in no list; what is left is, the best of it, and all of it where it is little."""
    row_I, exclude = np.arange(case.world.log.num_items), rows(1, 4, 7, -3)
    score_BI = case.fitted.scores(case.askers).copy()
    for allowed_I in (row_I % 3 != 0, row_I < _K):
        filters = Filters(exclude=[exclude] * len(case.askers), allowed_I=allowed_I)
        item_BK, score_BK = case.fitted.recommend(case.askers, _K, filters)
        for at, history_L in enumerate(case.askers.histories):
            shown = item_BK[at][item_BK[at] != PADDING]
            assert allowed_I[shown].all(), "not allowed"
            assert not np.isin(shown, exclude).any(), "excluded"
            assert not np.isin(shown, history_L).any(), "seen"
            assert len(np.unique(shown)) == len(shown), "twice"
            may_I = allowed_I & ~np.isin(row_I, exclude) & ~np.isin(row_I, history_L)
            _is_best(score_BI[at], may_I, item_BK[at], score_BK[at], _near(score_BI))


def lists_are_the_best_of_the_scores(case: Case) -> None:
    """Nothing that is not in a list scores above what is, to rounding; lists, and `score` of given items, say what `scores` does."""
    score_BI = case.fitted.scores(case.askers).copy()
    near, all_I = _near(score_BI), np.ones(case.world.log.num_items, np.bool_)
    item_BK, score_BK = case.fitted.recommend(case.askers, _K, Filters(exclude_seen=False))
    for score_I, item_K, score_K in zip(score_BI, item_BK, score_BK, strict=True):
        _is_best(score_I, all_I, item_K, score_K, near)
    for score_I, item_K, given_K in zip(
        score_BI, item_BK, case.fitted.score(case.askers, list(item_BK)), strict=True
    ):
        assert np.abs(score_I[item_K] - given_K).max() <= near, "given items get other scores"


def _is_best(score_I: Float32, may_I: Bool, item_K: Int32, score_K: Float32, near: float) -> None:
    """Asserts that a list has the best of the items that may stand in it, as many as it can."""
    num_shown = min(len(item_K), int(may_I.sum()))
    shown, behind = item_K[:num_shown], item_K[num_shown:]
    assert (shown != PADDING).all(), "a list ends before what may be shown does"
    assert (behind == PADDING).all(), "more is shown than may be"
    assert np.abs(score_I[shown] - score_K[:num_shown]).max(initial=0.0) <= near, "a list says other scores"
    left_I = may_I.copy()
    left_I[shown] = False
    if num_shown and left_I.any():
        assert score_I[left_I].max() <= score_K[:num_shown].min() + near, "a better item was left out"


def _near(score_BI: Float32) -> float:
    """What rounding may change."""
    return 2e-5 * (float(np.abs(score_BI).max()) + 1e-6)
