"""Vector search under hard rules, exact and approximate."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.errors import BundleError, IntegrityError
from tastemaker.index.faiss_index import FaissIndex

CORNERS = np.array([[1, 0], [0, 1], [-1, 0], [1, 0], [0.5, 0.5]], np.float32)


@pytest.fixture(params=["flat", "hnsw"])
def kind(request):
    return request.param


def clustered(num_items: int, dim: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((50, dim))
    vectors = centres[rng.integers(0, 50, num_items)] + 0.3 * rng.standard_normal((num_items, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_results_are_best_first_and_ties_go_by_item_index(kind):
    rows, scores = FaissIndex.build(CORNERS, kind).search(np.array([[1, 0]], np.float32), k=5)
    # 1*1, 1*1, 1*0.5, 1*0, 1*-1
    assert rows.tolist() == [[0, 3, 4, 1, 2]]
    assert scores.tolist() == [[1.0, 1.0, 0.5, 0.0, -1.0]]
    assert (rows.dtype, scores.dtype) == (np.int32, np.float32)


def test_missing_results_are_minus_one_with_minus_infinity(kind):
    index = FaissIndex.build(CORNERS, kind)
    allowed = np.array([True, False, True, False, False])
    rows, scores = index.search(np.array([[1, 0]], np.float32), k=4, allowed=allowed)
    assert rows.tolist() == [[0, 2, -1, -1]]
    assert scores.tolist() == [[1.0, -1.0, -np.inf, -np.inf]]
    rows, _ = index.search(np.array([[1, 0]], np.float32), k=7)
    assert rows.tolist() == [[0, 3, 4, 1, 2, -1, -1]]


def test_each_request_has_its_own_rules(kind):
    index = FaissIndex.build(CORNERS, kind)
    queries = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    mask = np.array([True, True, False, True, True])
    nothing = np.empty(0, np.int32)
    rows, _ = index.search(
        queries, 2, [None, mask, None], [np.array([0, 0, -1, 99], np.int32), nothing, nothing]
    )
    assert rows.tolist() == [[3, 4], [0, 3], [1, 4]]


def test_no_requests_give_no_rows(kind):
    rows, scores = FaissIndex.build(CORNERS, kind).search(np.empty((0, 2), np.float32), 3, exclude=[])
    assert rows.shape == scores.shape == (0, 3)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["flat", "hnsw"]))
def test_k_results_are_k_allowed_items_and_exact_for_flat(data, kind):
    num_items, dim = data.draw(st.integers(1, 300)), data.draw(st.integers(1, 8))
    vectors = np.random.default_rng(data.draw(st.integers(0, 99))).standard_normal(
        (num_items, dim), np.float32
    )
    share = data.draw(st.sampled_from([0.0, 0.02, 0.2, 0.9, 1.0]))
    allowed = np.random.default_rng(data.draw(st.integers(0, 99))).random(num_items) < share
    exclude = np.array(data.draw(st.lists(st.integers(0, num_items - 1), max_size=20)), np.int32)
    k = data.draw(st.integers(1, 40))
    query = vectors[:1] + np.float32(0.1)
    rows, scores = FaissIndex.build(vectors, kind).search(query, k, allowed, [exclude])

    left = allowed.copy()
    left[exclude] = False
    found = rows[0][rows[0] >= 0]
    assert len(found) == min(k, left.sum()) == len(set(found.tolist()))
    assert left[found].all()
    assert (np.diff(scores[0][: len(found)]) <= 0).all()
    if kind == "flat":
        best = np.sort((vectors @ query[0])[left])[::-1][:k]
        assert scores[0][: len(found)] == pytest.approx(best, abs=1e-4)  # float32 sums of at most 8 terms


def test_what_was_built_comes_back_from_bytes(kind):
    vectors = clustered(500, 16, seed=1)
    index = FaissIndex.build(vectors, kind)
    back = FaissIndex.from_bytes(index.to_bytes())
    assert (back.kind, back.num_items, back.dim) == (kind, 500, 16)
    assert np.array_equal(back.vectors(), vectors)
    assert not back.vectors().flags.writeable
    for one, two in zip(index.search(vectors[:9], 20), back.search(vectors[:9], 20), strict=True):
        assert np.array_equal(one, two)
    assert back.to_bytes() == index.to_bytes()


def test_building_twice_gives_the_same_bytes(kind):
    vectors = clustered(2000, 16, seed=2)
    assert FaissIndex.build(vectors, kind).to_bytes() == FaissIndex.build(vectors, kind).to_bytes()


def test_hnsw_finds_nearly_all_of_the_best_on_clustered_vectors():
    vectors = clustered(5000, 32, seed=3)
    queries = clustered(5000, 32, seed=4)[:100]
    exact, _ = FaissIndex.build(vectors, "flat").search(queries, 50)
    index = FaissIndex.build(vectors, "hnsw")
    found, _ = index.search(queries, 50)
    recall = np.mean([np.isin(e, f).mean() for e, f in zip(exact, found, strict=True)])
    assert recall >= 0.95
    allowed = np.random.default_rng(0).random(5000) < 0.3
    exact, _ = FaissIndex.build(vectors, "flat").search(queries, 50, allowed)
    found, _ = index.search(queries, 50, allowed)
    assert np.mean([np.isin(e, f).mean() for e, f in zip(exact, found, strict=True)]) >= 0.95


def test_a_flat_search_of_nine_thousand_items_is_well_under_a_millisecond():
    index = FaissIndex.build(clustered(9000, 64, seed=5))
    query, exclude = index.vectors()[:1], [np.arange(100, dtype=np.int32)]
    times = []
    for _ in range(50):
        start = time.perf_counter()
        index.search(query, 300, exclude=exclude)
        times.append(time.perf_counter() - start)
    assert min(times) < 1e-3  # 0.25 ms on a quiet machine


@pytest.mark.parametrize(
    ("vectors", "match"),
    [
        (np.empty((0, 4), np.float32), "none of them 0"),
        (np.ones(4, np.float32), r"is \(4,\)"),
        (np.array([[1, 2], [3, np.nan]], np.float32), "row 1 is not finite"),
    ],
)
def test_vectors_that_cannot_be_searched_are_refused(vectors, match):
    with pytest.raises(BundleError, match=match):
        FaissIndex.build(vectors)


def test_bytes_that_are_no_such_index_are_refused():
    import faiss

    with pytest.raises(IntegrityError, match="not in FAISS's format"):
        FaissIndex.from_bytes(FaissIndex.build(CORNERS).to_bytes()[:40])
    other = faiss.IndexFlatL2(2)
    with pytest.raises(IntegrityError, match=r"IndexFlat.*must be flat or hnsw"):
        FaissIndex.from_bytes(faiss.serialize_index(other).tobytes())


def test_vectors_outlive_the_index_object() -> None:
    import gc

    made = np.random.default_rng(0).normal(size=(2000, 16)).astype(np.float32)
    index = FaissIndex.build(made)
    view = index.vectors()
    del index
    gc.collect()
    other = [FaissIndex.build(np.full((2000, 16), float(i), np.float32)) for i in range(20)]
    assert len(other) == 20
    np.testing.assert_array_equal(view, made)
    assert not view.flags.writeable


def test_vectors_of_a_graph_index_outlive_it_too() -> None:
    import gc

    made = np.random.default_rng(1).normal(size=(500, 8)).astype(np.float32)
    view = FaissIndex.build(made, kind="hnsw").vectors()
    gc.collect()
    filler = [np.full((500, 8), 7.0, np.float32) for _ in range(50)]
    assert len(filler) == 50
    np.testing.assert_array_equal(view, made)
