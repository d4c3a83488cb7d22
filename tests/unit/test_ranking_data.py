import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.errors import DataError
from tastemaker.features.ranking_batch import Bag
from tastemaker.features.ranking_data import RankingData
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
    assert built.clicks.tolist() == [0, 1, 1, 0, 1]
    assert built.offsets_G1.tolist() == [0, 2, 5]
    assert built.num_positives.tolist() == [1, 2]
    assert built.num_missed == 2  # items 9 and 1


def test_targets_that_nobody_proposed_are_no_training_data() -> None:
    with pytest.raises(DataError, match="positives, is 0, must be at least 1: give users more events"):
        data([[1, 2]], [[3]])


def test_padding_lies_behind_the_last_request() -> None:
    batch = data([[4, 5], [6]], [[5], [6]]).take([1, 0]).batch(num_rows=5)
    assert batch.offsets_G1.tolist() == [0, 1, 3]
    assert batch.dense_BF[:, 0].tolist() == [6, 4, 5, 0, 0]
    assert batch.label_BT[:, 0].tolist() == [1, 0, 1, 0, 0]
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
    assert {len(batch.label_BT) for batches in ranks for batch in batches} == {per_batch * max(sizes)}
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


def test_requests_without_a_click_can_be_left_out() -> None:
    built = data([[1, 2], [3]], [[2], [9]])
    assert sorted(b.dense_BF[0, 0] for b in built.batches(1)) == [1, 3]
    assert [b.dense_BF[:, 0].tolist() for b in built.with_clicks().batches(1)] == [[1, 2]]
    with pytest.raises(DataError, match="requests with a click to fit on, is 0"):
        built.take([1]).with_clicks()


NOBODY = np.array([-1], np.float32)
"""What the only feature, the candidate's row, is where the user is unknown."""


def test_records_are_hidden_from_whole_requests_anew_in_each_epoch() -> None:
    built = data([[2 * g, 2 * g + 1] for g in range(200)], [[2 * g] for g in range(200)])

    def hidden(epoch: int) -> set[int]:
        seen = set[int]()
        found = built.batches(8, epoch=epoch, nobody_F=NOBODY, hidden_records=0.3)
        for batch, whole in zip(found, built.batches(8, epoch=epoch), strict=True):
            pairs = batch.dense_BF.reshape(-1, 2)
            unknown = (pairs == -1).all(axis=1)
            np.testing.assert_array_equal(pairs[~unknown], whole.dense_BF.reshape(-1, 2)[~unknown])
            seen.update((whole.dense_BF[::2, 0][unknown] / 2).astype(int).tolist())
        return seen

    first, second = hidden(0), hidden(1)
    assert first != second
    for drawn in (first, second):
        assert len(drawn) == pytest.approx(
            60, abs=26
        )  # 4 standard deviations of a binomial: sqrt(200 * .3 * .7) is 6.5


def test_padding_is_never_hidden_and_features_without_a_record_in_them_stay() -> None:
    batch = data([[4, 5], [6]], [[5], [6]]).batch(num_rows=5)
    hidden = batch.without_records(NOBODY, np.array([False, True]))
    assert hidden.dense_BF[:, 0].tolist() == [4, 5, -1, 0, 0]
    untouched = batch.without_records(np.array([np.nan], np.float32), np.array([True, True]))
    np.testing.assert_array_equal(untouched.dense_BF, batch.dense_BF)


def test_all_or_no_records_are_hidden_by_the_share() -> None:
    built = data([[4, 5], [6]], [[5], [6]])
    assert built.without_records(NOBODY, 1.0, seed=3).dense_NF[:, 0].tolist() == [-1, -1, -1]
    assert built.without_records(NOBODY, 0.0, seed=3).dense_NF[:, 0].tolist() == [4, 5, 6]


def test_labels_of_further_targets_are_of_what_was_taken() -> None:
    found, bags = zip(*(request(rows) for rows in ([4, 5, 6], [7, 8])), strict=True)
    taken = [np.array([6, 4], np.int32), np.array([9, 7], np.int32)]
    outcomes = [
        {"like": np.array([1, 0], np.float32), "watch": np.array([30, np.nan], np.float32)},
        {"like": np.array([1, 1], np.float32), "watch": np.array([10, 20], np.float32)},
    ]
    built = RankingData.build(found, bags, taken, outcomes)
    assert built.targets == ("click", "like", "watch")
    assert built.label_NT[:, 0].tolist() == [1, 0, 1, 1, 0]
    assert built.label_NT[:, 1].tolist() == [0, 0, 1, 1, 0]  # nobody likes what they did not take
    np.testing.assert_array_equal(built.label_NT[:, 2], [np.nan, np.nan, 30, 20, np.nan])
    chosen = built.for_targets(("like", "click"))
    assert chosen.clicks.tolist() == built.clicks.tolist()
    assert chosen.label_NT[:, 0].tolist() == built.label_NT[:, 1].tolist()


def test_a_target_that_the_data_lacks_is_named() -> None:
    with pytest.raises(
        DataError, match="target purchase of the recipe, is 'not in the data', must be one of click"
    ):
        data([[1, 2]], [[2]]).for_targets(("click", "purchase"))


def world(num_requests: int = 40, size: int = 50) -> RankingData:
    """The first candidate of each request is clicked; slots from 1, an hour for each request."""
    rows = [[g * size + i for i in range(size)] for g in range(num_requests)]
    built = data(rows, [[row[0]] for row in rows])
    slots = Bag.singles(np.arange(1, size + 1))
    for g, bags in enumerate(built.bags):
        bags |= {"position": slots, "query_hours": Bag.singles(np.full(size, g % 24 + 1))}
    return built


def test_negatives_are_kept_by_their_share_and_positives_all() -> None:
    built = world()
    batches = list(built.batches(5, seed=1, negative_share=0.2))
    sizes = [int(batch.offsets_G1[-1]) for batch in batches]
    assert sum(batch.label_BT.sum() for batch in batches) == 40
    # 40 * 49 negatives at a fifth: 392, of deviation (1960 * .2 * .8)**.5 = 17.7; 4 of them
    assert sum(sizes) - 40 == pytest.approx(392, abs=71)
    assert {len(batch.dense_BF) for batch in batches} == {len(batches[0].dense_BF)}
    assert len(batches[0].dense_BF) < 5 * 50 / 2  # padding does not undo the sampling
    first = batches[0]
    assert len(first.bags["tags"].values) == sizes[0]
    assert first.bags["tags"].values.tolist() == first.dense_BF[: sizes[0], 0].tolist()


def test_an_epoch_draws_its_own_negatives_whatever_the_ranks() -> None:
    built = world()

    def seen(num_ranks: int, epoch: int) -> list[float]:
        found: list[float] = []
        for rank in range(num_ranks):
            for batch in built.batches(
                5, rank=rank, num_ranks=num_ranks, seed=1, epoch=epoch, negative_share=0.2
            ):
                found += batch.dense_BF[: batch.offsets_G1[-1], 0].tolist()
        return sorted(found)

    assert seen(1, 0) == seen(2, 0)
    assert seen(1, 0) != seen(1, 1)


def test_whole_requests_lose_context_and_position() -> None:
    [batch] = world().batches(40, seed=3, hidden_share=0.3)
    hours, slots = (batch.bags[name].values.reshape(40, 50) for name in ("query_hours", "position"))
    hidden = (hours == 0).all(axis=1)
    # 40 requests at .3: 12, of deviation 2.9; 3 of them
    assert 3 <= hidden.sum() <= 21
    assert (hours[~hidden] > 0).all()
    assert (slots[hidden] == 0).all()
    assert (slots[~hidden] == np.arange(1, 51)).all()


def test_serving_knows_no_position() -> None:
    batch = world().without_positions().batch()
    assert not batch.bags["position"].values.any()
    assert batch.bags["query_hours"].values.all()


def test_a_feature_that_is_unknown_throughout_is_named() -> None:
    built = world()
    built.require(["query_hours", "position"])
    with pytest.raises(DataError, match="feature position of the recipe, is 'unknown in all of the data'"):
        built.without_positions().require(["query_hours", "position"])
    with pytest.raises(DataError, match="feature query_devices of the recipe"):
        built.require(["query_devices"])


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
