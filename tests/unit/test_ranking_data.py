import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.errors import DataError
from tastemaker.features.ranking_data import Bag, RankingData
from tastemaker.types import Candidates


def request(rows: list[int]) -> tuple[Candidates, dict[str, Bag]]:
    """A request whose candidates' only feature and bag is their own row."""
    index = np.array(rows, np.int32)
    num = len(rows)
    scores = np.zeros((num, 1), np.float32)
    found = Candidates(
        index, scores[:, 0], np.ones(num, np.uint32), scores, features_KF=index[:, None].astype(np.float32)
    )
    return found, {"tags": Bag(index.astype(np.int64), np.ones(num, np.int64), np.full(num, 0.5, np.float32))}


def data(requests: list[list[int]], targets: list[list[int]]) -> RankingData:
    found, bags = zip(*(request(rows) for rows in requests), strict=True)
    return RankingData.build(found, bags, [np.array(target, np.int32) for target in targets])


def test_labels_are_the_targets_that_were_proposed() -> None:
    built = data([[4, 5], [], [6, 7, 8]], [[5, 9], [1], [6, 8]])
    assert built.label_N.tolist() == [0, 1, 1, 0, 1]
    assert built.offsets_G1.tolist() == [0, 2, 5]
    assert built.num_positives.tolist() == [1, 2]
    assert built.num_missed == 2  # items 9 and 1


def test_targets_that_nobody_proposed_are_no_training_data() -> None:
    with pytest.raises(DataError, match="positives, is 0, must be at least 1: give users more events"):
        data([[1, 2]], [[3]])


def test_padding_lies_behind_the_last_request() -> None:
    batch = data([[4, 5], [6]], [[5], [6]]).batch([1, 0], num_rows=5)
    assert batch.offsets_G1.tolist() == [0, 1, 3]
    assert batch.dense_BF[:, 0].tolist() == [6, 4, 5, 0, 0]
    assert batch.label_B.tolist() == [1, 0, 1, 0, 0]
    assert [array.tolist() for array in batch.bags["tags"]] == [[6, 4, 5], [1, 1, 1, 0, 0], [0.5] * 3]


@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=12),
    per_batch=st.integers(1, 5),
    num_ranks=st.integers(1, 3),
    epoch=st.integers(0, 3),
)
@settings(max_examples=50, deadline=None)
def test_ranks_see_every_request_in_equal_batches(
    sizes: list[int], per_batch: int, num_ranks: int, epoch: int
) -> None:
    rows = [[10 * g + i for i in range(size)] for g, size in enumerate(sizes)]
    built = data(rows, [[row[0]] for row in rows])
    ranks = [
        list(built.batches(per_batch, rank=r, num_ranks=num_ranks, seed=7, epoch=epoch))
        for r in range(num_ranks)
    ]
    assert {len(batches) for batches in ranks} == {built.num_batches(per_batch, num_ranks)}
    assert {len(batch.label_B) for batches in ranks for batch in batches} == {per_batch * max(sizes)}
    seen = [int(v) for batches in ranks for b in batches for v in b.dense_BF[b.offsets_G1[:-1], 0]]
    assert set(seen) == {row[0] for row in rows}
    assert max(map(seen.count, seen)) - min(map(seen.count, seen)) <= 1


def test_order_is_of_seed_and_epoch_alone() -> None:
    built = data([[g] for g in range(20)], [[g] for g in range(20)])

    def order(seed: int, epoch: int) -> list[float]:
        return [float(v) for b in built.batches(4, seed=seed, epoch=epoch) for v in b.dense_BF[:, 0]]

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def test_requests_without_a_positive_are_not_trained_on() -> None:
    built = data([[1, 2], [3]], [[2], [9]])
    assert [b.dense_BF[:, 0].tolist() for b in built.batches(1)] == [[1, 2]]


@given(share=st.floats(0.01, 0.99), seed=st.integers(0, 5))
@settings(max_examples=30)
def test_split_parts_whole_requests(share: float, seed: int) -> None:
    built = data([[g, g + 100] for g in range(10)], [[g] for g in range(10)])
    fit, held_out = built.split(share, seed)
    assert len(held_out) == min(max(1, round(share * 10)), 9)
    assert sorted([*fit.dense_NF[:, 0], *held_out.dense_NF[:, 0]]) == sorted(built.dense_NF[:, 0])
    assert set(np.diff(fit.offsets_G1)) == {2}


def test_one_request_cannot_be_split() -> None:
    with pytest.raises(DataError, match="requests to split, is 1, must be at least 2"):
        data([[1]], [[1]]).split(0.5, 0)
