"""The copy of an index on a GPU: the same results; what it cannot do is done here or refused."""

import faiss
import numpy as np
import pytest
from clustered_vectors import clustered
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.errors import ConfigError, MissingExtraError
from tastemaker.index.config import IndexConfig
from tastemaker.index.faiss_index import FaissIndex

CORNERS = np.array([[1, 0], [0, 1], [-1, 0], [1, 0], [0.5, 0.5]], np.float32)


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
