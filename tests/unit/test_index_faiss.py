"""Vector search under hard rules, exact and approximate."""

import numpy as np
import pytest
from clustered_vectors import clustered
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.index.config import IndexConfig
from tastemaker.index.faiss_index import FaissIndex

CORNERS = np.array([[1, 0], [0, 1], [-1, 0], [1, 0], [0.5, 0.5]], np.float32)
KINDS = ["flat", "hnsw", "ivf-flat", "ivf-pq"]


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(params=KINDS[:3])
def kind_of_few(request):
    """A kind that five items are enough for."""
    return request.param


def test_results_are_best_first_and_ties_go_by_item_index(kind_of_few):
    rows, scores = FaissIndex.build(CORNERS, IndexConfig(kind=kind_of_few)).search(
        np.array([[1, 0]], np.float32), k=5
    )
    # 1*1, 1*1, 1*0.5, 1*0, 1*-1
    assert rows.tolist() == [[0, 3, 4, 1, 2]]
    assert scores.tolist() == [[1.0, 1.0, 0.5, 0.0, -1.0]]
    assert (rows.dtype, scores.dtype) == (np.int32, np.float32)


def test_missing_results_are_minus_one_with_minus_infinity(kind_of_few):
    index = FaissIndex.build(CORNERS, IndexConfig(kind=kind_of_few))
    allowed = np.array([True, False, True, False, False])
    rows, scores = index.search(np.array([[1, 0]], np.float32), k=4, allowed=allowed)
    assert rows.tolist() == [[0, 2, -1, -1]]
    assert scores.tolist() == [[1.0, -1.0, -np.inf, -np.inf]]
    rows, _ = index.search(np.array([[1, 0]], np.float32), k=7)
    assert rows.tolist() == [[0, 3, 4, 1, 2, -1, -1]]


def test_each_request_has_its_own_rules(kind_of_few):
    index = FaissIndex.build(CORNERS, IndexConfig(kind=kind_of_few))
    queries = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    mask = np.array([True, True, False, True, True])
    nothing = np.empty(0, np.int32)
    rows, _ = index.search(
        queries, 2, [None, mask, None], [np.array([0, 0, -1, 99], np.int32), nothing, nothing]
    )
    assert rows.tolist() == [[3, 4], [0, 3], [1, 4]]


@given(
    kind=st.sampled_from(["flat", "hnsw", "ivf-flat"]),
    seed=st.integers(0, 50),
    num=st.integers(1, 4),
    k=st.integers(1, 12),
    masked=st.booleans(),
)
def test_requests_with_the_very_same_rules_find_what_each_finds_alone(kind, seed, num, k, masked):
    luck = np.random.default_rng(seed)
    index = FaissIndex.build(luck.normal(size=(40, 4)).astype(np.float32), IndexConfig(kind=kind))
    queries = luck.normal(size=(num, 4)).astype(np.float32)
    mask = luck.random(40) < 0.7 if masked else None
    gone = luck.integers(0, 40, 5).astype(np.int32)
    rows, scores = index.search(queries, k, [mask] * num, [gone] * num)
    for b in range(num):
        alone_rows, alone_scores = index.search(queries[b : b + 1], k, [mask], [gone.copy()])
        assert rows[b].tolist() == alone_rows[0].tolist()
        np.testing.assert_allclose(scores[b], alone_scores[0], rtol=1e-5)  # sums in another order


def test_no_requests_give_no_rows(kind_of_few):
    rows, scores = FaissIndex.build(CORNERS, IndexConfig(kind=kind_of_few)).search(
        np.empty((0, 2), np.float32), 3, exclude=[]
    )
    assert rows.shape == scores.shape == (0, 3)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_k_results_are_k_allowed_items_and_exact_for_flat(data, kind):
    num_items, dim = data.draw(st.integers(16 if kind == "ivf-pq" else 1, 300)), data.draw(st.integers(1, 8))
    vectors = np.random.default_rng(data.draw(st.integers(0, 99))).standard_normal(
        (num_items, dim), np.float32
    )
    share = data.draw(st.sampled_from([0.0, 0.02, 0.2, 0.9, 1.0]))
    allowed = np.random.default_rng(data.draw(st.integers(0, 99))).random(num_items) < share
    exclude = np.array(data.draw(st.lists(st.integers(0, num_items - 1), max_size=20)), np.int32)
    k = data.draw(st.integers(1, 40))
    query = vectors[:1] + np.float32(0.1)
    nlist = data.draw(st.integers(1, min(num_items, 20))) if kind.startswith("ivf") else None
    config = IndexConfig(kind=kind, nlist=nlist, nprobe=1 if nlist else None)
    rows, scores = FaissIndex.build(vectors, config).search(query, k, allowed, [exclude])

    left = allowed.copy()
    left[exclude] = False
    found = rows[0][rows[0] >= 0]
    assert len(found) == min(k, left.sum()) == len(set(found.tolist()))
    assert left[found].all()
    assert (np.diff(scores[0][: len(found)]) <= 0).all()
    if kind == "flat":
        best = np.sort((vectors @ query[0])[left])[::-1][:k]
        assert scores[0][: len(found)] == pytest.approx(best, abs=1e-4)  # float32 sums of at most 8 terms


def test_hnsw_finds_nearly_all_of_the_best_on_clustered_vectors():
    vectors = clustered(5000, 32, seed=3)
    queries = clustered(5000, 32, seed=4)[:100]
    exact, _ = FaissIndex.build(vectors).search(queries, 50)
    index = FaissIndex.build(vectors, IndexConfig(kind="hnsw"))
    found, _ = index.search(queries, 50)
    recall = np.mean([np.isin(e, f).mean() for e, f in zip(exact, found, strict=True)])
    assert recall >= 0.95
    allowed = np.random.default_rng(0).random(5000) < 0.3
    exact, _ = FaissIndex.build(vectors).search(queries, 50, allowed)
    found, _ = index.search(queries, 50, allowed)
    assert np.mean([np.isin(e, f).mean() for e, f in zip(exact, found, strict=True)]) >= 0.95


def recall_at(k, exact, found):
    return np.mean([np.isin(e, f).sum() / k for e, f in zip(exact, found, strict=True)])


@pytest.mark.parametrize("kind", ["ivf-flat", "ivf-pq"])
@pytest.mark.parametrize("share", [1.0, 0.5, 0.05, 0.005])
def test_lists_find_nearly_all_of_the_best_whatever_share_the_rules_leave(kind, share):
    vectors, queries = clustered(6000, 32, seed=3), clustered(6000, 32, seed=4)[:50]
    allowed = np.random.default_rng(0).random(6000) < share
    exact, _ = FaissIndex.build(vectors).search(queries, 20, allowed)
    found, _ = FaissIndex.build(vectors, IndexConfig(kind=kind, nlist=64, nprobe=8, refine=32.0)).search(
        queries, 20, allowed
    )
    assert recall_at((exact[0] >= 0).sum(), exact, found) >= 0.95


@pytest.mark.parametrize("kind", ["ivf-flat", "ivf-pq"])
def test_lists_that_hold_none_of_the_allowed_are_widened(kind):
    vectors = clustered(6000, 32, seed=3)
    query = vectors[:1]
    far = vectors @ query[0] < 0.0  # whole clusters, of which the query's nearest lists hold nothing
    index = FaissIndex.build(vectors, IndexConfig(kind=kind, nlist=64, nprobe=1, refine=8.0))
    rows, _ = index.search(query, 40, far)
    assert (rows >= 0).all()
    assert far[rows[0]].all()


@given(seed=st.integers(0, 50), k=st.integers(1, 30), share=st.floats(0.01, 0.6))
@settings(max_examples=40, deadline=None)
def test_products_of_picked_rows_are_those_of_a_scan(seed, k, share):
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-2, 3, (200, 4)).astype(np.float32)  # with many ties
    allowed = rng.random(200) < share
    rows, scores = FaissIndex.build(vectors).search(vectors[:1], k, allowed)
    order = sorted(np.flatnonzero(allowed), key=lambda row: (-(vectors[row] @ vectors[0]), row))[:k]
    assert rows[0][rows[0] >= 0].tolist() == order
    assert scores[0][: len(order)].tolist() == [vectors[row] @ vectors[0] for row in order]


def test_more_results_than_the_probed_lists_hold_are_found():
    vectors = clustered(3000, 16, seed=8)
    index = FaissIndex.build(vectors, IndexConfig(kind="ivf-flat", nlist=50, nprobe=1))
    rows, _ = index.search(vectors[:3], 2500)
    assert (rows >= 0).all()
    assert all(len(set(found)) == 2500 for found in rows.tolist())


def test_the_same_index_searches_at_other_efforts():
    vectors, queries = clustered(6000, 32, seed=3), clustered(6000, 32, seed=4)[:50]
    index = FaissIndex.build(vectors, IndexConfig(kind="ivf-flat", nlist=64, nprobe=1))
    exact, _ = FaissIndex.build(vectors).search(queries, 50)
    wide = index.with_config(IndexConfig(kind="ivf-flat", nlist=64, nprobe=64))
    assert recall_at(50, exact, wide.search(queries, 50)[0]) == 1.0
    assert recall_at(50, exact, index.search(queries, 50)[0]) < 1.0


@pytest.mark.parametrize("share", [1.0, 0.9, 0.5, 0.1])
def test_a_graph_finds_nearly_all_of_the_best_whatever_share_the_rules_leave(share):
    rng = np.random.default_rng(0)
    vectors, queries = (
        rng.standard_normal((20_000, 16), np.float32),
        rng.standard_normal((30, 16), np.float32),
    )
    allowed = rng.random(20_000) < share
    index = FaissIndex.build(vectors, IndexConfig(kind="hnsw", links=16, beam=100))
    exact, _ = FaissIndex.build(vectors).search(queries, 20, allowed)
    found, _ = index.search(queries, 20, allowed)
    assert recall_at(20, exact, found) >= 0.95
