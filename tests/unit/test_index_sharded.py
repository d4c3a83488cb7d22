"""Shards by rows: their merged answer is the whole's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.errors import ConfigError
from tastemaker.index.config import IndexConfig
from tastemaker.index.faiss_index import FaissIndex
from tastemaker.index.sharded import Shard, ShardedIndex, merge_top, row_ranges

FLAT = IndexConfig(kind="flat")


@given(num_items=st.integers(1, 1000), num_shards=st.integers(1, 40))
def test_ranges_hold_each_row_once(num_items, num_shards):
    num_shards = min(num_shards, num_items)
    ranges = row_ranges(num_items, num_shards)
    assert [row for rows in ranges for row in rows] == list(range(num_items))
    assert len(ranges) == num_shards
    assert max(map(len, ranges)) - min(map(len, ranges)) <= 1


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_merged_shards_equal_the_whole(data):
    num_items = data.draw(st.integers(1, 200))
    num_shards = data.draw(st.integers(1, min(num_items, 7)))
    num_queries = data.draw(st.integers(1, 4))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    vectors = rng.standard_normal((num_items, 4), np.float32)
    queries = rng.standard_normal((num_queries, 4), np.float32)
    k = data.draw(st.integers(1, 60))
    share = data.draw(st.sampled_from([None, 0.1, 0.8]))
    masks = [None if share is None or rng.random() < 0.2 else rng.random(num_items) < share for _ in queries]
    allowed = None if share is None else masks
    exclude = [rng.integers(-1, num_items + 3, 5).astype(np.int32) for _ in queries]
    expected = FaissIndex.build(vectors).search(queries, k, allowed, exclude)
    sharded = ShardedIndex.build(vectors, num_shards, FLAT)
    found = sharded.search(queries, k, allowed, exclude)
    # float32 products of one vector are summed in another order where it is scanned beside other neighbours
    assert found[1] == pytest.approx(expected[1], abs=1e-5)
    assert np.array_equal(found[0], expected[0])
    assert np.array_equal(sharded.vectors(), vectors)
    assert not sharded.vectors().flags.writeable
    assert (sharded.num_items, sharded.dim) == (num_items, 4)


@pytest.mark.parametrize("kind", ["hnsw", "ivf-flat", "ivf-pq"])
def test_shards_of_every_kind_find_nearly_all(kind):
    vectors = np.random.default_rng(0).standard_normal((4000, 16), np.float32)
    queries = vectors[:30] + np.float32(0.1)
    exact, _ = FaissIndex.build(vectors).search(queries, 20)
    found, _ = ShardedIndex.build(vectors, 4, IndexConfig(kind=kind)).search(queries, 20)
    assert np.mean([np.isin(e, f).mean() for e, f in zip(exact, found, strict=True)]) >= 0.95


def test_a_shard_answers_in_the_catalogues_rows():
    vectors = np.array([[1.0], [2.0], [3.0], [4.0]], np.float32)
    shard = Shard(FaissIndex.build(vectors[2:]), 2)
    query, allowed = np.ones((1, 1), np.float32), np.array([True, True, True, False])
    assert shard.search(query, 3)[0].tolist() == [[3, 2, -1]]
    assert shard.search(query, 2, allowed)[0].tolist() == [[2, -1]]
    assert shard.search(query, 2, None, [np.array([1, 3], np.int32)])[0].tolist() == [[2, -1]]
    merged = merge_top([Shard(FaissIndex.build(vectors[:2]), 0).search(query, 2), shard.search(query, 2)], 5)
    assert merged[0].tolist() == [[3, 2, 1, 0, -1]]
    assert merged[1].tolist() == [[4.0, 3.0, 2.0, 1.0, -np.inf]]


@pytest.mark.parametrize("num_shards", [0, 5])
def test_more_shards_than_items_are_refused(num_shards):
    with pytest.raises(ConfigError, match=f"shards of an index, is {num_shards}, must be 1 to 4"):
        row_ranges(4, num_shards)
