"""Splits of a log by time, as worked out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.errors import DataError
from tastemaker.evaluation.windows import Cutoff, LastOut, Rolling, folds
from tastemaker.models.log import Log


def log_of(*triples: tuple[int, int, int]) -> Log:
    """Of (user, item, time)."""
    user_N, item_N, time_N = (np.array(column) for column in zip(*triples, strict=True))
    return Log.of(
        user_N, item_N, num_users=int(user_N.max()) + 1, num_items=int(item_N.max()) + 1, timestamp_ms_N=time_N
    )  # fmt: skip


def plain(rows: object) -> list[list[int]]:
    return [list(map(int, row)) for row in rows]  # type: ignore[attr-defined]


def test_the_last_item_of_each_user_who_has_more_is_held_out():
    log = log_of((0, 1, 1), (0, 2, 2), (0, 1, 3), (1, 0, 1), (2, 0, 5), (2, 3, 4))
    (fold,) = folds(log, LastOut(num=1))
    # User 0's newest item that is new is 2; what comes after is a repeat, and stays. User 1 has one item alone.
    assert fold.askers.row_B.tolist() == [0, 2]
    assert plain(fold.targets) == [[2], [0]]
    assert plain(fold.askers.histories) == [[1, 1], [3]]
    assert plain(fold.timestamp_ms) == [[2], [5]]


def test_a_later_use_of_what_is_held_out_gives_nothing_away():
    log = log_of((0, 1, 1), (0, 2, 2), (0, 2, 3))
    (fold,) = folds(log, LastOut())
    assert plain(fold.targets) == [[2]]
    assert plain(fold.askers.histories) == [[1]]


def test_a_cutoff_asks_for_what_comes_after_it_also_of_new_users():
    log = log_of((0, 0, 1), (0, 1, 2), (1, 0, 3), (0, 0, 4), (0, 2, 5), (2, 1, 5), (2, 1, 6))
    (fold,) = folds(log, Cutoff(share=3 / 7))
    # From time 4 on: user 0 has item 0 already, user 2 is new and counts item 1 once.
    assert fold.askers.row_B.tolist() == [0, 2]
    assert plain(fold.targets) == [[2], [1]]
    assert plain(fold.askers.histories) == [[0, 1], []]
    assert len(fold.train) == 3


def test_rolling_windows_learn_from_all_before_them():
    log = log_of(*((user, item, 10 * item + user) for user in range(4) for item in range(5)))
    first, second = folds(log, Rolling(share=0.6, windows=2))
    # 12 of 20 rows lie before item 3's time; each window has the four rows of one item.
    assert (len(first.train), len(second.train)) == (12, 16)
    assert plain(first.targets) == [[3]] * 4
    assert plain(second.targets) == [[4]] * 4
    assert (first.name, second.name) == ("window 1 of 2", "window 2 of 2")


def test_a_log_that_leaves_nobody_to_ask_is_refused():
    with pytest.raises(DataError, match="fold last out has 2 rows to learn from and 0 users to ask"):
        next(folds(log_of((0, 0, 1), (1, 0, 1)), LastOut()))


rows = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5), st.integers(0, 20)), min_size=8, max_size=60)
plans = st.sampled_from([LastOut(), LastOut(num=2), Cutoff(share=0.6), Rolling(share=0.5, windows=3)])


@given(rows, plans)
@settings(max_examples=150)
def test_no_target_was_seen_and_nothing_is_learned_from_after_a_moment(triples, plan):
    log = log_of(*triples)
    try:
        found = list(folds(log, plan))
    except DataError:
        return
    for fold in found:
        for row, history_L, targets in zip(
            fold.askers.row_B, fold.askers.histories, fold.targets, strict=True
        ):
            assert len(targets) > 0
            assert len(set(targets)) == len(targets)
            assert not set(targets) & set(history_L)
            assert set(targets) <= set(log.item_N[log.user_N == row])
        if not isinstance(plan, LastOut):
            earliest = min(int(times.min()) for times in fold.timestamp_ms)
            assert fold.train.timestamp_ms_N.max() < earliest
