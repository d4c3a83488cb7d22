"""The evaluation loop and its intervals."""

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from tastemaker.data.splits import Histories
from tastemaker.errors import DataError
from tastemaker.evaluation.offline import BLOCK, evaluate, paired_bootstrap
from tastemaker.resampling import bootstrap
from tastemaker.types import Int32, Query

HISTORIES = Histories.from_lists([[0, 1], [2], [3, 4, 5], [6]])
TARGETS = Histories.from_lists([[2], [], [0, 1], [7]])


def first_unseen(queries: Sequence[Query], k: int) -> list[Int32]:
    return [np.setdiff1d(np.arange(10, dtype=np.int32), query.history_L)[:k] for query in queries]


def test_each_user_with_targets_is_scored_on_its_own_list() -> None:
    # Lists: user 0 gets 2, 3, 4, ...; user 2 gets 0, 1, 2, ...; user 3 gets 0, 1, 2, 3, 4, 5, 7, ...
    result = evaluate(first_unseen, HISTORIES, TARGETS, num_items=10, ks=(1, 7))
    assert result.users.tolist() == [0, 2, 3]
    assert result.per_user["recall@1"].tolist() == [1, 0.5, 0]
    assert result.per_user["recall@7"].tolist() == [1, 1, 1]
    assert result.per_user["mrr"].tolist() == [1, 1, 1 / 7]
    assert result.per_user["ndcg@7"].tolist() == pytest.approx([1, 1, 1 / np.log2(8)])
    assert result.overall["coverage"] == 0.2  # the first places hold items 2, 0, 0
    assert result.overall["gini"] == pytest.approx((7 * 1 + 9 * 2) / (10 * 3))


def test_novelty_counts_users_not_rows() -> None:
    histories = Histories.from_lists([[0, 0, 1], [0], [2], [3]])
    result = evaluate(
        lambda queries, k: [np.array([0], np.int32) for _ in queries],
        histories, Histories.from_lists([[], [], [5], [5]]), num_items=6, ks=(1,),
    )  # fmt: skip
    assert result.per_user["novelty"].tolist() == [1.0, 1.0]  # two of four users have item 0


def test_queries_carry_history_time_device_and_id() -> None:
    seen: list[Query] = []

    def recommend(queries: Sequence[Query], k: int) -> list[Int32]:
        seen.extend(queries)
        return first_unseen(queries, k)

    targets = replace(
        TARGETS, timestamp_ms=np.array([11, 22, 23, 33]), device_row=np.array([0, 4, 1, 1], np.int8)
    )
    evaluate(recommend, HISTORIES, targets, 10, ks=(3,), user_ids=["a", "b", "c", "d"])
    assert [(q.user_id, q.now_ms, q.k, q.seed) for q in seen] == [
        ("a", 11, 3, 0),
        ("c", 22, 3, 2),
        ("d", 33, 3, 3),
    ]
    assert seen[1].history_L.tolist() == [3, 4, 5]
    assert [q.context for q in seen] == [{}, {"device": "tv"}, {"device": "mobile"}]


def test_users_beyond_one_block_are_all_asked_for() -> None:
    users = 2 * BLOCK + 3
    sizes: list[int] = []

    def recommend(queries: Sequence[Query], k: int) -> list[Int32]:
        sizes.append(len(queries))
        return [np.array([1], np.int32) for _ in queries]

    result = evaluate(
        recommend, Histories.from_lists([[0]] * users), Histories.from_lists([[1]] * users), 2, ks=(1,)
    )
    assert sizes == [BLOCK, BLOCK, 3]
    assert result.per_user["recall@1"].tolist() == [1.0] * users


def test_a_seen_item_in_a_list_is_an_error() -> None:
    with pytest.raises(DataError, match="in its user's history: mask seen items"):
        evaluate(lambda queries, k: [q.history_L[:1] for q in queries], HISTORIES, TARGETS, 10)


def test_nothing_to_find_is_an_error() -> None:
    with pytest.raises(DataError, match="no user has a test item"):
        evaluate(first_unseen, HISTORIES, Histories.from_lists([[], [], [], []]), 10)


def test_row_is_flat_json_with_bounds_around_each_mean() -> None:
    row = evaluate(first_unseen, HISTORIES, TARGETS, num_items=10, ks=(1, 7)).row()
    assert json.loads(json.dumps(row)) == row
    assert row["recall@1_low"] <= row["recall@1"] == 0.5 <= row["recall@1_high"]
    assert "coverage_low" not in row
    assert {"ndcg@7", "map@7", "hit_rate@7", "mrr_low", "novelty_high", "gini"} <= row.keys()


def test_bootstrap_bounds_are_those_of_the_mean() -> None:
    values_UM = np.random.default_rng(0).normal(5, 2, (900, 2))
    low_M, high_M = bootstrap(values_UM, seed=1)
    # A mean of 900 with deviation 2: +- 1.96 * 2 / 30 = 0.131; 1000 rounds are off by little.
    deviation_M = values_UM.std(axis=0) / 30
    np.testing.assert_allclose(low_M, values_UM.mean(axis=0) - 1.96 * deviation_M, atol=0.02)
    np.testing.assert_allclose(high_M, values_UM.mean(axis=0) + 1.96 * deviation_M, atol=0.02)
    again = bootstrap(values_UM, seed=1)
    assert (low_M == again[0]).all()
    assert (high_M == again[1]).all()


def test_pairing_removes_what_users_have_in_common() -> None:
    draws = np.random.default_rng(0)
    common = draws.random(500)
    a, b = common + 0.02 + draws.normal(0, 0.01, 500), common
    mean, low, high = paired_bootstrap(a, b, seed=3)
    assert low < mean < high
    assert low == pytest.approx(0.02, abs=0.003)
    assert high == pytest.approx(0.02, abs=0.003)
