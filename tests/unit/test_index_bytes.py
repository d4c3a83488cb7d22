"""What an index is read from and written to, whose memory its vectors are, and what is refused."""

import io

import faiss
import numpy as np
import pytest
from clustered_vectors import clustered

from tastemaker.errors import BundleError, ConfigError, IntegrityError
from tastemaker.index.config import IndexConfig
from tastemaker.index.faiss_index import FaissIndex

CORNERS = np.array([[1, 0], [0, 1], [-1, 0], [1, 0], [0.5, 0.5]], np.float32)
KINDS = ["flat", "hnsw", "ivf-flat", "ivf-pq"]


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def read_back(index: FaissIndex, config: IndexConfig | None = None) -> FaissIndex:
    return FaissIndex.read(io.BytesIO(index.to_bytes()).read, config)


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
