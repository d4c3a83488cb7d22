import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.data.schema import ITEMS_SCHEMA
from tastemaker.features.columns import FeatureSchema, ItemColumns
from tastemaker.features.examples import ExampleBatches
from tastemaker.features.negatives import NegativeSampler, NegativesConfig

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


def rows(histories, targets, rejected=None, times_ms=None, devices=None) -> pa.Table:
    zeros = [0] * len(targets)
    return pa.table(
        {
            "history": pa.array(histories, pa.list_(pa.int32())),
            "target": pa.array(targets, pa.int32()),
            "timestamp_ms": pa.array(times_ms or zeros, pa.int64()),
            "device": pa.array(devices or zeros, pa.int8()),
            "rejected": pa.array([[]] * len(targets) if rejected is None else rejected, pa.list_(pa.int32())),
        }
    )


def maker(targets, half_life=1.0, max_history=2, context=(), **config) -> ExampleBatches:
    counts = np.bincount(targets, minlength=NUM_ITEMS)
    sampler = NegativeSampler(counts, NegativesConfig(**{"num_sampled": 4} | config))
    return ExampleBatches(COLUMNS, sampler, half_life, max_history, context)


def test_a_batch_by_hand():
    targets = [5, 6, 6]
    batch = maker(targets).batch(rows([[4], [4, 5], [9, 5, 7]], targets), np.random.default_rng(0))
    history = batch.query_bags["history"]
    assert history.values.tolist() == [4, 4, 5, 5, 7]  # of the third history the newest two
    assert history.lengths.tolist() == [1, 2, 2]
    np.testing.assert_allclose(history.weights, [1, 1 / 3, 2 / 3, 1 / 3, 2 / 3], rtol=1e-6)
    assert batch.item_M[:3].tolist() == targets
    assert set(batch.item_M[3:]) <= {5, 6}
    share = {5: 1 / (1 + 2**0.75), 6: 2**0.75 / (1 + 2**0.75)}
    expected = [
        np.log(3 * {5: 1 / 3, 6: 2 / 3}[item]) if at < 3 else np.log(4 * share[item])
        for at, item in enumerate(batch.item_M.tolist())
    ]
    np.testing.assert_allclose(batch.log_q_M, expected, rtol=1e-6)
    assert batch.item_bags["item"].values.tolist() == batch.item_M.tolist()
    assert batch.owner_M.tolist() == [-1] * 7


def test_a_query_reads_the_time_and_device_of_its_target():
    targets, hour_ms = [5, 6, 7], 3_600_000
    table = rows([[4]] * 3, targets, times_ms=[hour_ms, 0, 30 * hour_ms], devices=[4, 1, 0])
    bags = maker(targets, context=("devices", "hours")).batch(table, np.random.default_rng(0)).query_bags
    assert bags.keys() == {"history", "query_devices", "query_hours"}
    assert bags["query_devices"].values.tolist() == [4, 1, 0]
    assert bags["query_hours"].values.tolist() == [2, 0, 7]


def test_what_a_user_left_stands_against_that_user_alone():
    targets, left = [5, 6, 7], [[], [9], [8, 9]]
    make = maker(targets, num_sampled=40, popularity=0.5, rejected=0.5)
    batch = make.batch(rows([[4]] * 3, targets, left), np.random.default_rng(0))
    owned = batch.owner_M >= 0
    pairs = set(zip(batch.owner_M[owned].tolist(), batch.item_M[owned].tolist(), strict=True))
    assert pairs == {(1, 9), (2, 8), (2, 9)}
    assert len(batch.item_M) == 3 + 40  # the first user left nothing: popular items stand in
    assert set(batch.item_M[~owned].tolist()) <= set(targets)
    sliced = pa.concat_tables([rows([[4]], [5], [[3]]), rows([[4]] * 3, targets, left)]).slice(1)
    again = make.batch(sliced, np.random.default_rng(0))
    assert again.item_M.tolist() == batch.item_M.tolist()


@given(
    st.lists(st.lists(st.integers(0, NUM_ITEMS - 1), max_size=6), min_size=1, max_size=8), st.integers(1, 4)
)
@settings(max_examples=60, deadline=None)
def test_a_query_has_the_newest_of_its_history_with_weights_that_sum_to_one(histories, max_history):
    targets = [0] * len(histories)
    batch = maker(targets, half_life=None, max_history=max_history).batch(
        rows(histories, targets), np.random.default_rng(0)
    )
    bag = batch.query_bags["history"]
    ends = np.cumsum(bag.lengths)
    for history, values, weights in zip(
        histories, np.split(bag.values, ends)[:-1], np.split(bag.weights, ends)[:-1], strict=True
    ):
        assert values.tolist() == history[-max_history:]
        assert weights.sum() == pytest.approx(min(len(history), 1), abs=1e-6)


def test_a_batch_is_a_function_of_its_rows_and_the_generator():
    targets = list(range(8))
    make = maker(targets, num_sampled=16)
    table = rows([[9]] * 8, targets)
    first, again, other = (make.batch(table, np.random.default_rng(seed)).item_M for seed in (1, 1, 2))
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()
