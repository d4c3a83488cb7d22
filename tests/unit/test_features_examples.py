import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.data.schema import ITEMS_SCHEMA
from tastemaker.data.splits import Histories
from tastemaker.errors import DataError
from tastemaker.features.columns import FeatureSchema, ItemColumns
from tastemaker.features.examples import Examples

NUM_ITEMS = 30


def columns(num_items: int = NUM_ITEMS) -> ItemColumns:
    table = pa.table(
        {
            "item_id": [str(i) for i in range(num_items)],
            "title": [""] * num_items,
            "category": [""] * num_items,
            "tags": [["t"]] * num_items,
            "created_at_ms": [None] * num_items,
        },
        schema=ITEMS_SCHEMA,
    )
    return ItemColumns.from_items(table, FeatureSchema.fit(table))


COLUMNS = columns()
# Permutations, so that (item, user) tells at which position it stood.
users = st.lists(
    st.permutations(range(NUM_ITEMS)).map(lambda p: p[: p[0] % 7]), min_size=1, max_size=8
).filter(lambda lists: any(len(items) > 1 for items in lists))


def bags_of(batch):
    bag = batch.query_bags["history"]
    ends = np.cumsum(bag.lengths)
    values, weights = np.split(bag.values, ends)[:-1], np.split(bag.weights, ends)[:-1]
    return list(zip(values, weights, batch.item_M, strict=False))


@given(users, st.integers(1, 4), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_examples_never_see_their_target_or_what_came_after_it(lists, max_history, epoch):
    examples = Examples(Histories.from_lists(lists), COLUMNS, half_life=2.0, max_history=max_history)
    allowed = {
        (tuple(items[max(t - max_history, 0) : t]), items[t]) for items in lists for t in range(1, len(items))
    }
    for batch in examples.batches(seed=0, epoch=epoch, batch_size=1, num_negatives=2):
        for before, weights, target in bags_of(batch):
            assert (tuple(before.tolist()), target) in allowed
            assert weights.sum() == pytest.approx(1, abs=1e-6)


@given(users, st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_ranks_share_an_epoch_without_overlap(lists, num_ranks):
    histories = Histories.from_lists(lists)
    num_examples = sum(max(len(items) - 1, 0) for items in lists)
    examples = Examples(histories, COLUMNS, half_life=None, max_history=9)
    if num_examples < num_ranks:
        return
    arguments = {"seed": 5, "epoch": 0, "batch_size": num_ranks, "num_negatives": 1, "num_ranks": num_ranks}
    ranks = [list(examples.batches(rank=rank, **arguments)) for rank in range(num_ranks)]
    assert {len(batches) for batches in ranks} == {num_examples // num_ranks}
    seen = [
        (tuple(before.tolist()), int(target))
        for batches in ranks
        for batch in batches
        for before, _, target in bags_of(batch)
    ]
    every = [(tuple(items[:t]), items[t]) for items in lists for t in range(1, len(items))]
    assert len(seen) == num_examples // num_ranks * num_ranks
    assert all(seen.count(pair) <= every.count(pair) for pair in seen)


def test_a_batch_by_hand():
    histories = Histories.from_lists([[4, 5, 6], [5, 6], [7]])  # targets: 5 once, 6 twice
    examples = Examples(histories, COLUMNS, half_life=1.0, max_history=2)
    assert len(examples) == 3
    (batch,) = examples.batches(seed=1, epoch=0, batch_size=8, num_negatives=4)
    found = {(tuple(before.tolist()), int(target)): weights for before, weights, target in bags_of(batch)}
    assert set(found) == {((4,), 5), ((4, 5), 6), ((5,), 6)}
    np.testing.assert_allclose(found[((4, 5), 6)], [1 / 3, 2 / 3], rtol=1e-6)
    assert set(batch.item_M[3:]) <= {5, 6}
    share = {5: 1 / (1 + 2**0.75), 6: 2**0.75 / (1 + 2**0.75)}
    expected = [
        np.log(3 * {5: 1 / 3, 6: 2 / 3}[item]) if at < 3 else np.log(4 * share[item])
        for at, item in enumerate(batch.item_M.tolist())
    ]
    np.testing.assert_allclose(batch.log_q_M, expected, rtol=1e-6)
    assert batch.item_bags["item"].values.tolist() == batch.item_M.tolist()


def test_negatives_come_by_popularity_to_the_power_of_three_quarters():
    lists = [[0, 1]] * 81 + [[0, 2]] * 16
    examples = Examples(Histories.from_lists(lists), COLUMNS, half_life=None, max_history=1)
    batches = examples.batches(seed=0, epoch=0, batch_size=97, num_negatives=20_000)
    negatives = next(batches).item_M[97:]
    assert (negatives == 1).mean() == pytest.approx(27 / (27 + 8), abs=0.015)  # four standard errors


def test_batches_are_a_function_of_seed_epoch_and_rank():
    histories = Histories.from_lists([list(range(20)), list(range(10, 30))])
    examples = Examples(histories, COLUMNS, half_life=3.0, max_history=5)

    def items(**changes):
        arguments = {
            "seed": 0,
            "epoch": 0,
            "batch_size": 8,
            "num_negatives": 4,
            "rank": 0,
            "num_ranks": 2,
        } | changes
        return np.concatenate([batch.item_M for batch in examples.batches(**arguments)])

    assert items().tolist() == items().tolist()
    for changes in ({"seed": 1}, {"epoch": 1}, {"rank": 1}):
        assert items().tolist() != items(**changes).tolist()


def test_histories_without_a_pair_are_refused():
    with pytest.raises(DataError, match="histories of two items or more, is 0"):
        Examples(Histories.from_lists([[1], []]), COLUMNS, half_life=None, max_history=5)


def test_more_ranks_than_examples_are_refused():
    examples = Examples(Histories.from_lists([[1, 2]]), COLUMNS, half_life=None, max_history=5)
    with pytest.raises(DataError, match="at least one for each of 2 ranks"):
        examples.num_steps(8, num_ranks=2)
