"""Each source answers as if it had scored the whole catalogue, though it never does."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.index.faiss_index import FaissIndex
from tastemaker.models.als import Als, AlsConfig
from tastemaker.models.item_item import ItemItem, ItemItemConfig
from tastemaker.models.popularity import Popularity, fit_popularity
from tastemaker.stages.nearest import AlsSource, RecentConfig, RecentSource
from tastemaker.stages.neighbours import ItemItemSource
from tastemaker.stages.popular import PopularHeads, PopularSource
from tastemaker.stages.source import Source, best_allowed, looked_up, top_allowed
from tastemaker.types import Query

NUM_ITEMS = 200
rng = np.random.default_rng(5)
VECTORS = rng.normal(size=(NUM_ITEMS, 6)).astype(np.float32)
SPARSE = ItemItem(
    ItemItemConfig(kind="cosine", num_items=NUM_ITEMS, half_life=3.0),
    sp.random(NUM_ITEMS, NUM_ITEMS, 0.01, "csr", np.float32, rng, data_rvs=lambda n: rng.normal(size=n)),
)
DENSE = ItemItem(
    ItemItemConfig(kind="ease", num_items=NUM_ITEMS), sp.csr_matrix(rng.normal(size=(NUM_ITEMS, NUM_ITEMS)))
)
ALS = Als(AlsConfig(dim=6, half_life=2.0), VECTORS)
TAKEN = rng.zipf(1.5, 600).astype(np.int32) % (NUM_ITEMS - 50)  # 50 items that nobody took
POPULARITY = fit_popularity(
    TAKEN,
    np.arange(len(TAKEN)) * 10**8,
    NUM_ITEMS,
    tags=[[f"t{i % 7}"] for i in range(NUM_ITEMS)],
    categories=[f"c{i % 3}" for i in range(NUM_ITEMS)],
).with_groups(["device=tv", "age=old"], rng.random((2, NUM_ITEMS)).astype(np.float32))

rows = st.lists(st.integers(0, NUM_ITEMS - 1), max_size=30, unique=True).map(lambda x: np.array(x, np.int32))
masks = st.none() | st.integers(0, 2**32).map(
    lambda seed: np.random.default_rng(seed).random(NUM_ITEMS) < 0.3
)
contexts = st.dictionaries(
    st.sampled_from(["tag", "category", "device", "age", "page"]),
    st.sampled_from(["t1", "t1|t3", "c1", "tv", "old", "nothing"]),
)
queries = st.builds(
    Query,
    history_L=rows,
    exclude=rows,
    allowed=masks,
    exclude_seen=st.booleans(),
    context=contexts,
    k=st.integers(1, NUM_ITEMS),
)


def agrees(source: Source, query: Query, score_I: np.ndarray, least: float = -np.inf) -> None:
    """What it proposes and says is what the scores of all items say, ties by row."""
    asked = source.ask([query])
    proposed, scores = (array[0] for array in asked.propose(query.k))
    gone = np.zeros(len(score_I), bool) if query.allowed is None else ~query.allowed
    gone[query.exclude] = True
    if query.exclude_seen:
        gone[query.history_L] = True
    left = np.flatnonzero(~gone & (score_I > least))
    expected = left[np.lexsort((left, -score_I[left]))][: query.k]
    real = proposed[proposed >= 0]
    assert len(real) == len(expected)
    np.testing.assert_allclose(score_I[real], score_I[expected], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scores[: len(real)], score_I[real], rtol=1e-4, atol=1e-5)
    anything = np.arange(len(score_I), dtype=np.int32)
    np.testing.assert_allclose(asked.score([anything])[0], score_I, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", [SPARSE, DENSE], ids=["sparse", "dense"])
@given(queries)
@settings(max_examples=60, deadline=None)
def test_item_to_item(model: ItemItem, query: Query) -> None:
    if len(query.history_L):
        age_L = np.arange(len(query.history_L))[::-1]
        weight_L = 0.5 ** (age_L / (model.config.half_life or np.inf))
        score_I = weight_L @ model.weights().toarray().astype(np.float64)[query.history_L]
        agrees(ItemItemSource("knn", model), query, score_I.astype(np.float32), least=0.0)


@given(queries)
@settings(max_examples=60, deadline=None)
def test_als(query: Query) -> None:
    if len(query.history_L):
        agrees(AlsSource("als", ALS), query, ALS.scores([query.history_L])[0])


@given(queries, st.sampled_from([1, 7, NUM_ITEMS, 4096]))
@settings(max_examples=150, deadline=None)
def test_popular_by_heads_of_any_depth(query: Query, depth: int) -> None:
    source = PopularSource("popular", PopularHeads(POPULARITY, depth))
    agrees(source, query, POPULARITY.in_context(query.context))


@given(queries, st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_popular_with_items_behind_the_models_is_as_if_these_were_fitted(query: Query, more: int) -> None:
    allowed = None if query.allowed is None else np.append(query.allowed, np.ones(more, bool))
    grown = Query(
        query.history_L, query.k, exclude=np.append(query.exclude, np.int32(NUM_ITEMS)), allowed=allowed,
        exclude_seen=query.exclude_seen, context=query.context,
    )  # fmt: skip
    source = PopularSource("popular", PopularHeads(POPULARITY, 5), NUM_ITEMS + more)
    agrees(source, grown, POPULARITY.padded(NUM_ITEMS + more).in_context(query.context))


@given(queries, st.integers(1, 4), st.sampled_from([None, 2.0]))
@settings(max_examples=60, deadline=None)
def test_recent(query: Query, num_items: int, half_life: float | None) -> None:
    if len(query.history_L):
        newest = query.history_L[::-1][:num_items]
        weights = [0.5 ** (age / (half_life or np.inf)) for age in range(len(newest))]
        similar = [weight * (VECTORS @ VECTORS[row]) for row, weight in zip(newest, weights, strict=True)]
        config = RecentConfig(num_items=num_items, half_life=half_life)
        source = RecentSource("recent", FaissIndex.build(VECTORS), config)
        agrees(source, query, np.max(similar, axis=0))


def test_recent_by_hand() -> None:
    """Items 0 and 3 were taken, 3 last: 0 counts half. Nearest to 3 is 2 (0.8), to 0 is 1 (0.9 / 2)."""
    vectors = np.array([[1, 0], [0.9, 0.1], [0.2, 0.8], [0, 1]], np.float32)
    source = RecentSource("recent", FaissIndex.build(vectors), RecentConfig(num_items=2, half_life=1.0))
    found, scores = source.propose([Query(np.array([0, 3], np.int32))], 3)
    assert found.tolist() == [[2, 1, -1]]
    assert scores[0, :2] == pytest.approx([0.8, 0.45])


@pytest.mark.parametrize("source", [AlsSource("als", ALS), ItemItemSource("knn", SPARSE),
                                    RecentSource("recent", FaissIndex.build(VECTORS))],
                         ids=lambda source: source.name)  # fmt: skip
def test_without_a_history_they_have_nothing_to_say(source: Source) -> None:
    asked = source.ask([Query(np.empty(0, np.int32))])
    assert asked.propose(3)[0].tolist() == [[-1, -1, -1]]
    assert np.isnan(asked.score([np.array([1, 2], np.int32)])[0]).all()


@given(contexts)
@settings(max_examples=60, deadline=None)
def test_contexts_of_one_class_have_the_same_scores(context: dict[str, str]) -> None:
    expected = POPULARITY.in_context(context)
    np.testing.assert_array_equal(POPULARITY.in_class(POPULARITY.class_of(context)), expected)
    some = np.array([5, 190, 0], np.int32)
    np.testing.assert_array_equal(POPULARITY.score(some, context), expected[some])


def test_a_context_of_groups_and_segments_by_hand() -> None:
    model = Popularity(
        POPULARITY.config.model_copy(update={"num_items": 2, "segments": ("tag=x",), "groups": ("a=1", "b=2")}),
        np.array([4, 2], np.float32), np.array([1, 1], np.float32),
        np.array([[False, True]]), np.array([[0.5, 1.0], [0.1, 0.2]], np.float32),
    )  # fmt: skip
    # trending: (1 + 1) / 2 and (1 + 1/2) / 2; groups: 0.3 and 0.6; both halved, and 1 more for the tag
    found = model.in_context({"a": "1", "b": "2", "tag": "x"})
    assert found.tolist() == pytest.approx([(1 + 0.3) / 2, (0.75 + 0.6) / 2 + 1])


@given(st.lists(st.integers(0, 5), max_size=40), rows, st.integers(1, 10))
@settings(deadline=None)
def test_best_of_some_rows_are_those_of_all_with_ties_in_the_order_given(
    scores: list[int], exclude: np.ndarray, k: int
) -> None:
    row_N = np.arange(len(scores), dtype=np.int32)
    query = Query(np.empty(0, np.int32), exclude=exclude)
    left = [row for row in row_N.tolist() if row not in exclude]
    expected = sorted(left, key=lambda row: -scores[row])[:k]
    assert best_allowed(row_N, np.array(scores, np.float32), query, k)[0].tolist() == expected
    assert top_allowed(np.array(scores, np.float32), query, k)[0].tolist() == expected


@given(rows, rows)
@settings(deadline=None)
def test_looked_up_is_0_where_nothing_is_listed(asked: np.ndarray, listed: np.ndarray) -> None:
    scores = listed.astype(np.float32) + 1
    assert looked_up(asked, listed, scores).tolist() == [
        row + 1 if row in listed else 0 for row in asked.tolist()
    ]
