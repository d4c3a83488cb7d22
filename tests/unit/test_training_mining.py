import numpy as np
import pytest

from tastemaker.errors import BundleError, TrainingError
from tastemaker_training.fits import mining
from tastemaker_training.fits.mining import mine_neighbours


def unit(num_items: int, dim: int = 8) -> np.ndarray:
    vectors = np.random.default_rng(0).standard_normal((num_items, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_neighbours_by_hand():
    vectors = np.array([[1, 0], [0.8, 0.6], [0, 1], [-1, 0]], np.float32)
    found = mine_neighbours(vectors, 2)
    assert found.dtype == np.int32
    assert found.tolist() == [[1, 2], [0, 2], [1, 0], [2, 1]]  # -1 * 0.8 is above -1 * 1


def test_an_item_is_left_out_also_where_others_are_nearer_than_itself():
    vectors = np.array([[0.1, 0], [1, 0], [2, 0], [3, 0]], np.float32)
    assert mine_neighbours(vectors, 2).tolist() == [[3, 2], [3, 2], [3, 1], [2, 1]]


def test_blocks_equal_the_whole(monkeypatch):
    vectors = unit(70)
    score = vectors @ vectors.T
    np.fill_diagonal(score, -np.inf)
    expected = np.argsort(-score, axis=1)[:, :5]
    monkeypatch.setattr(mining, "_ITEMS_AT_ONCE", 32)
    assert mine_neighbours(vectors, 5).tolist() == expected.tolist()


def test_a_small_catalogue_gives_all_others():
    assert np.sort(mine_neighbours(unit(3), 50), axis=1).tolist() == [[1, 2], [0, 2], [0, 1]]


def test_a_large_catalogue_is_searched_by_a_graph_and_nearly_as_well(monkeypatch):
    vectors = unit(400)
    exact = mine_neighbours(vectors, 10)
    monkeypatch.setattr(mining, "EXACT_UP_TO", 100)
    found = mine_neighbours(vectors, 10)
    assert not (found == np.arange(400)[:, None]).any()
    shared = [len(np.intersect1d(a, b)) for a, b in zip(exact, found, strict=True)]
    assert np.mean(shared) >= 9.5


def test_one_item_has_no_neighbours():
    with pytest.raises(TrainingError, match="is 1, must be at least 2: set `hard` to 0"):
        mine_neighbours(unit(1), 5)


def test_vectors_must_be_finite():
    vectors = unit(5)
    vectors[3, 0] = np.nan
    with pytest.raises(BundleError, match="row 3 is not finite"):
        mine_neighbours(vectors, 2)
