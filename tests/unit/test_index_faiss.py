"""Vector search under hard rules, exact and approximate."""

import io

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.errors import BundleError, ConfigError, IntegrityError, MissingExtraError
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


def read_back(index: FaissIndex, config: IndexConfig | None = None) -> FaissIndex:
    return FaissIndex.read(io.BytesIO(index.to_bytes()).read, config)


def clustered(num_items: int, dim: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((50, dim))
    vectors = centres[rng.integers(0, 50, num_items)] + 0.3 * rng.standard_normal((num_items, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


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


def test_what_was_built_comes_back_from_bytes(kind):
    vectors = clustered(500, 16, seed=1)
    index = FaissIndex.build(vectors, IndexConfig(kind=kind))
    back = read_back(index)
    assert (back.kind, back.num_items, back.dim) == (kind, 500, 16)
    assert back.config == index.config
    assert np.array_equal(back.vectors(), vectors)
    assert not back.vectors().flags.writeable
    for one, two in zip(index.search(vectors[:9], 20), back.search(vectors[:9], 20), strict=True):
        assert np.array_equal(one, two)
    assert back.to_bytes() == index.to_bytes()


def test_building_twice_gives_the_same_bytes(kind):
    vectors = clustered(2000, 16, seed=2)
    assert (
        FaissIndex.build(vectors, IndexConfig(kind=kind)).to_bytes()
        == FaissIndex.build(vectors, IndexConfig(kind=kind)).to_bytes()
    )


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
    cut = io.BytesIO(FaissIndex.build(CORNERS).to_bytes()[:40])
    with pytest.raises(IntegrityError, match="not in FAISS's format"):
        FaissIndex.read(cut.read)


@pytest.mark.parametrize(
    ("factory", "metric", "match"),
    [
        ("Flat", "METRIC_L2", "IndexFlatL2"),
        ("SQ8", "METRIC_INNER_PRODUCT", "IndexScalarQuantizer"),
        ("HNSW8_SQ8", "METRIC_INNER_PRODUCT", "IndexHNSWSQ"),
        ("IVF4,SQ8", "METRIC_INNER_PRODUCT", "IndexIVFScalarQuantizer"),
        ("IVF4,PQ2x8,RFlat", "METRIC_INNER_PRODUCT", "refined IndexIVFPQ"),
        ("IVF4_HNSW8,Flat", "METRIC_INNER_PRODUCT", "lists by IndexHNSWFlat"),
        ("LSH", "METRIC_L2", "IndexLSH"),
    ],
)
def test_indexes_of_other_kinds_are_refused(factory, metric, match):
    other = faiss.index_factory(4, factory, getattr(faiss, metric))
    vectors = np.random.default_rng(0).standard_normal((800, 4), np.float32)
    other.train(vectors)
    other.add(vectors)
    with pytest.raises(IntegrityError, match=f"{match}.*must be flat, hnsw, ivf-flat or ivf-pq"):
        FaissIndex.read(io.BytesIO(faiss.serialize_index(other).tobytes()).read)


@pytest.mark.parametrize(
    ("rows", "match"), [([0, 1, 2, 99], "not of the catalogue"), ([0, 1, 2, 2], "each row once")]
)
def test_lists_that_do_not_hold_the_catalogue_are_refused(rows, match):
    index = faiss.index_factory(2, "IVF1,Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(CORNERS)
    index.add_with_ids(CORNERS[:4], np.array(rows))
    with pytest.raises(IntegrityError, match=match):
        FaissIndex.read(io.BytesIO(faiss.serialize_index(index).tobytes()).read)


@pytest.mark.parametrize(
    ("built", "said", "match"),
    [
        (IndexConfig(kind="flat"), IndexConfig(kind="hnsw", links=32, beam=9), "kind of the index, is 'flat'"),
        (IndexConfig(kind="ivf-flat", nlist=4), IndexConfig(kind="ivf-flat", nlist=5, nprobe=1), "nlist of the index, is 4"),
        (IndexConfig(kind="ivf-flat", nlist=4), IndexConfig(kind="ivf-flat", nlist=4), "efforts set"),
        (IndexConfig(kind="hnsw", links=8), IndexConfig(kind="hnsw", links=16, beam=9), "links of the index, is 8"),
    ],
)  # fmt: skip
def test_a_config_of_another_structure_is_refused(built, said, match):
    with pytest.raises(IntegrityError, match=match):
        read_back(FaissIndex.build(clustered(300, 8, seed=6), built), said)


@pytest.mark.parametrize(
    ("config", "match"),
    [
        (IndexConfig(kind="ivf-flat", nlist=6), "index.nlist, is 6, must be at most the 5 items"),
        (IndexConfig(kind="ivf-pq"), "ivf-pq, is 5, must be at least 16"),
    ],
)
def test_a_config_that_does_not_fit_the_vectors_is_refused(config, match):
    with pytest.raises(ConfigError, match=match):
        FaissIndex.build(CORNERS, config)


def test_codes_that_do_not_divide_the_vectors_are_refused():
    with pytest.raises(ConfigError, match=r"index\.codes, is 3, must be a divisor of 8"):
        FaissIndex.build(clustered(300, 8, seed=6), IndexConfig(kind="ivf-pq", codes=3))


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
    view = FaissIndex.build(made, IndexConfig(kind="hnsw")).vectors()
    gc.collect()
    filler = [np.full((500, 8), 7.0, np.float32) for _ in range(50)]
    assert len(filler) == 50
    np.testing.assert_array_equal(view, made)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["flat", "ivf-flat"]))
def test_a_copy_elsewhere_finds_the_same_where_its_transfer_is_left_out(data, kind):
    # The GPU's path with everything but the GPU: it knows no selectors, so what is excluded is asked for beside.
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    vectors = rng.standard_normal((data.draw(st.integers(2, 200)), 4), np.float32)
    index = FaissIndex.build(vectors, IndexConfig(kind=kind, nlist=1 if kind == "ivf-flat" else None))
    exclude = np.array(data.draw(st.lists(st.integers(-1, len(vectors)), max_size=30)), np.int32)
    allowed = data.draw(st.sampled_from([None, rng.random(len(vectors)) < 0.5]))
    k = data.draw(st.integers(1, 50))
    here = index.search(vectors[:2], k, allowed, [exclude, exclude])
    there = index.on_gpu(lambda whole: whole).search(vectors[:2], k, allowed, [exclude, exclude])
    assert np.array_equal(here[0], there[0])
    assert np.array_equal(here[1], there[1])


def test_more_than_a_gpu_gives_is_searched_here():
    index = FaissIndex.build(clustered(3000, 8, seed=0)).on_gpu(lambda whole: whole)
    exclude = [np.arange(500, dtype=np.int32)]
    rows, _ = index.search(index.vectors()[:1], 2000, exclude=exclude)
    assert (rows >= 500).all()


def test_kinds_that_gpus_cannot_search_are_refused():
    with pytest.raises(ConfigError, match="kind of an index on a GPU, is 'hnsw', must be flat or ivf-flat"):
        FaissIndex.build(CORNERS, IndexConfig(kind="hnsw")).on_gpu(lambda whole: whole)


@pytest.mark.skipif(hasattr(faiss, "StandardGpuResources"), reason="this FAISS has GPUs")
def test_a_faiss_without_gpus_says_so():
    with pytest.raises(MissingExtraError, match="faiss sees no GPU: pip install 'tastemaker\\[gpu\\]'"):
        FaissIndex.build(CORNERS).on_gpu()


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
