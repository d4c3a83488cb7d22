"""Structure by size, efforts fitted to a recall, and what is measured."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tastemaker.index import building
from tastemaker.index.building import build_index, efforts, fit_efforts
from tastemaker.index.config import IndexConfig, default_codes, default_nlist
from tastemaker.index.faiss_index import FaissIndex
from tastemaker.index.measuring import borders, measure, perturbed, recall


def unclustered(num_items: int, dim: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((num_items, dim), np.float32)


def test_recall_counts_results_that_score_as_high_as_the_true_ones():
    vectors = np.array([[3.0], [2.0], [2.0], [1.0]], np.float32)
    found = np.array([[0, 2], [0, 3], [0, -1]], np.int32)  # a tie is as good; 1 of 2; 1 of 2
    queries = np.ones((3, 1), np.float32)
    border = borders(queries, vectors, 2)
    assert border.tolist() == [2.0, 2.0, 2.0]
    assert recall(found, queries, vectors, border) == pytest.approx((2 + 1 + 1) / 6, abs=1e-12)


def test_borders_of_blocks_are_those_of_the_whole(monkeypatch):
    vectors, queries = unclustered(500, 8), unclustered(7, 8, seed=1)
    monkeypatch.setattr("tastemaker.index.measuring._ITEMS_AT_ONCE", 64)
    expected = np.sort(queries @ vectors.T, axis=1)[:, -10]
    assert borders(queries, vectors, 10) == pytest.approx(expected, abs=1e-5)  # float32 sums of 8 terms


def test_perturbed_items_lie_half_a_length_from_an_item():
    vectors = unclustered(100, 16)
    queries = perturbed(vectors, 20)
    assert queries.shape == (20, 16)
    distance_BI = np.linalg.norm(queries[:, None] - vectors[None], axis=2)
    nearest = distance_BI.argmin(axis=1)
    expected = 0.5 * np.linalg.norm(vectors[nearest], axis=1)
    assert distance_BI.min(axis=1) == pytest.approx(expected, rel=1e-4)  # float32
    assert np.array_equal(queries, perturbed(vectors, 20))


@given(num_items=st.integers(1, 10**8), dim=st.integers(1, 2048))
def test_defaults_fit_any_catalogue(num_items, dim):
    assert 1 <= default_nlist(num_items) <= num_items
    assert dim % default_codes(dim) == 0
    config = IndexConfig().shaped(num_items, dim)
    assert config.kind in ("flat", "ivf-flat", "ivf-pq")
    assert config == config.shaped(num_items, dim)


@pytest.mark.parametrize("kind", ["hnsw", "ivf-flat", "ivf-pq"])
def test_efforts_that_are_left_open_reach_the_recall_that_is_asked_for(kind):
    vectors = unclustered(3000, 16)
    index = build_index(vectors, IndexConfig(kind=kind, recall=0.97)).index
    queries = perturbed(vectors, 100, seed=5)  # others than those it was fitted to
    found, _ = index.search(queries, 100)
    assert recall(found, queries, vectors, borders(queries, vectors, 100)) >= 0.95
    assert index.config.is_fitted


@pytest.mark.parametrize("kind", ["hnsw", "ivf-flat", "ivf-pq"])
def test_efforts_rise_and_end(kind):
    index = FaissIndex.build(unclustered(400, 16), IndexConfig(kind=kind))
    tried = list(efforts(index.config))
    asked = [(config.nprobe or 0, config.beam or 0, config.refine or 0) for config in tried]
    assert asked == sorted(asked)
    assert all(config.is_fitted for config in tried)


def test_efforts_that_are_given_are_kept():
    config = IndexConfig(kind="ivf-flat", nlist=10, nprobe=3)
    assert build_index(unclustered(400, 8), config).index.config.nprobe == 3


def test_auto_is_flat_for_few_and_lists_for_many():
    vectors = unclustered(2000, 16)
    assert build_index(vectors, IndexConfig()).index.kind == "flat"
    assert build_index(vectors, IndexConfig(exact_up_to=1999)).index.kind == "ivf-pq"
    assert (
        build_index(vectors[:, :13], IndexConfig(exact_up_to=1999)).index.kind == "ivf-flat"
    )  # a prime length


def test_auto_takes_plain_lists_where_refined_codes_miss_the_recall(monkeypatch):
    monkeypatch.setattr(building, "REFINES", (4.0,))
    vectors = unclustered(6000, 32)
    monkeypatch.setattr(
        building, "efforts", lambda config: efforts(config) if config.kind == "ivf-flat" else iter([config.model_copy(update={"nprobe": 1})])
    )  # fmt: skip
    found = build_index(vectors, IndexConfig(exact_up_to=0)).index
    assert found.kind == "ivf-flat"
    queries = perturbed(vectors, 50)
    assert recall(found.search(queries, 100)[0], queries, vectors, borders(queries, vectors, 100)) >= 0.95


def test_a_target_out_of_reach_ends_at_the_most_effort():
    index = FaissIndex.build(unclustered(400, 16), IndexConfig(kind="hnsw"))
    fitted, reached = fit_efforts(index, perturbed(index.vectors(), 20), 1.1)
    assert fitted.config.beam > building.MAX_BEAM / 1.5
    assert reached <= 1.0


@settings(max_examples=20, deadline=None)
@given(kind=st.sampled_from(["flat", "hnsw", "ivf-flat", "ivf-pq"]), num_items=st.integers(16, 300))
def test_what_is_measured_is_in_range(kind, num_items):
    built = build_index(unclustered(num_items, 8), IndexConfig(kind=kind))
    found = measure(built.index, perturbed(built.index.vectors(), 30), "perturbed-items", built.seconds)
    assert 0 < found.recall <= 1
    assert 0 < found.p50_ms <= found.p99_ms
    assert found.memory_bytes >= num_items * 8 * 4
    assert found.k == min(100, num_items)
    if kind == "flat":
        assert found.recall == 1.0


@pytest.mark.parametrize(
    ("values", "match"),
    [({"nlist": 4, "nprobe": 5}, "at most nlist"), ({"kind": "ivf"}, "kind"), ({"beams": 3}, "beams"), ({"recall": 0.0}, "recall")],
)  # fmt: skip
def test_configs_that_mean_nothing_are_refused(values, match):
    with pytest.raises(ValidationError, match=match):
        IndexConfig(**values)
