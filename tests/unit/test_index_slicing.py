"""Slices of an index's file: each finds its own rows as the whole does, and looks all others up."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tastemaker.errors import IntegrityError
from tastemaker.index.config import IndexConfig
from tastemaker.index.extended import ExtendedIndex
from tastemaker.index.faiss_index import FaissIndex
from tastemaker.index.sharded import merge_top, row_ranges
from tastemaker.index.slicing import SlicedIndex

KINDS = ("flat", "hnsw", "ivf-flat", "ivf-pq")


def slices(folder, index, num_shards):
    """The slices of an index's file, which is gone once they are read."""
    file = folder / "index.faiss"
    found = []
    for own in row_ranges(index.num_items, num_shards):
        file.write_bytes(index.to_bytes())
        found.append(SlicedIndex.read(file, own, index.config))
        file.unlink()
    return found


def integers(seed, *shape):
    """Vectors whose products are exact in float32, in whatever order they are summed."""
    return np.random.default_rng(seed).integers(-900, 900, shape).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_slices_of_an_exact_index_answer_as_the_whole_bit_by_bit(tmp_path_factory, data):
    num_items = data.draw(st.integers(1, 150))
    num_shards = data.draw(st.integers(1, min(num_items, 5)))
    seed, k = data.draw(st.integers(0, 99)), data.draw(st.integers(1, 40))
    rng = np.random.default_rng(seed)
    vectors, queries = integers(seed, num_items, 3), integers(seed + 1, 2, 3)
    assume(
        all(len(set(row)) == num_items for row in queries @ vectors.T)
    )  # which of equals is found, FAISS leaves open
    index = FaissIndex.build(vectors)
    share = data.draw(st.sampled_from([None, 0.1, 0.8]))
    allowed = None if share is None else [rng.random(num_items) < share, None]
    exclude = [rng.integers(-1, num_items + 3, 4).astype(np.int32) for _ in queries]
    parts = slices(tmp_path_factory.mktemp("slices"), index, num_shards)
    rows, scores = merge_top([part.search(queries, k, allowed, exclude) for part in parts], k)
    expected_rows, expected_scores = index.search(queries, k, allowed, exclude)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_array_equal(scores, expected_scores)


@pytest.mark.parametrize("kind", KINDS)
def test_a_slice_finds_its_own_rows_and_knows_the_vectors_of_all(tmp_path, kind):
    vectors = np.random.default_rng(0).standard_normal((3000, 16), np.float32)
    whole = FaissIndex.build(vectors, IndexConfig(kind=kind))
    for part, own in zip(slices(tmp_path, whole, 3), row_ranges(3000, 3), strict=True):
        rows, _ = part.search(vectors[:5], 20)
        assert np.isin(rows, own).all()
        assert (part.num_items, part.dim) == (3000, 16)
        np.testing.assert_array_equal(part.vectors(), vectors)
        assert not part.vectors().flags.writeable


@pytest.mark.parametrize("kind", KINDS)
def test_slices_find_together_what_the_whole_finds(tmp_path, kind):
    """Lists are those of the whole, so that the same are read; refining looks at as many in each slice."""
    vectors = np.random.default_rng(0).standard_normal((4000, 16), np.float32)
    queries = vectors[:40] + np.float32(0.1)
    whole = FaissIndex.build(vectors, IndexConfig(kind=kind))
    rows, _ = merge_top([part.search(queries, 20) for part in slices(tmp_path, whole, 4)], 20)
    expected, _ = whole.search(queries, 20)
    exact, _ = FaissIndex.build(vectors).search(queries, 20)

    def recall(found):
        return np.mean([np.isin(e, f).mean() for e, f in zip(exact, found, strict=True)])

    if kind in ("flat", "ivf-flat"):
        np.testing.assert_array_equal(rows, expected)
    assert recall(rows) >= recall(expected) - 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_more_items_stand_behind_a_slice(tmp_path, kind):
    vectors, new = integers(0, 400, 8), integers(1, 2, 8)
    index = FaissIndex.build(vectors, IndexConfig(kind=kind))
    (tmp_path / "index.faiss").write_bytes(bytes(index.to_bytes()))
    part = SlicedIndex.read(tmp_path / "index.faiss", range(100, 200), index.config)
    grown = ExtendedIndex(part, new)
    assert grown.num_items == 402
    np.testing.assert_array_equal(grown.vectors()[np.array([401, 7, 400])], [new[1], vectors[7], new[0]])
    rows, _ = grown.search(100 * new[:1], 5)
    assert 400 in rows
    assert all(100 <= row < 200 for row in rows[0] if row < 400)


def test_an_exact_slice_of_a_matrix():
    vectors = integers(0, 30, 4)
    part = SlicedIndex.exact(vectors, range(10, 20))
    rows, scores = part.search(vectors[:2], 4)
    expected_rows, expected_scores = FaissIndex.build(vectors[10:20]).search(vectors[:2], 4)
    np.testing.assert_array_equal(rows, expected_rows + 10)
    np.testing.assert_array_equal(scores, expected_scores)
    np.testing.assert_array_equal(part.vectors(), vectors)


def test_what_is_no_index_is_refused(tmp_path):
    (tmp_path / "index.faiss").write_bytes(b"not an index")
    with pytest.raises(IntegrityError, match="not in FAISS's format"):
        SlicedIndex.read(tmp_path / "index.faiss", range(1))
