import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.errors import CompatibilityError, ConfigError
from tastemaker.index.faiss_index import FaissIndex
from tastemaker.models.als import Als, AlsConfig
from tastemaker.models.item_item import ItemItem, ItemItemConfig, fit_ease
from tastemaker.models.popularity import fit_popularity
from tastemaker.stages.merging import SourceConfig, z_scores
from tastemaker.stages.nearest import AlsSource, VectorSource
from tastemaker.stages.neighbours import ItemItemSource
from tastemaker.stages.popular import PopularSource
from tastemaker.stages.retrieval import Retrieval, RetrievalConfig
from tastemaker.stages.source import Source
from tastemaker.types import Query

NUM_ITEMS = 40
NOTHING = np.empty(0, np.int32)


class MeanOfVectors:
    """Stands in for a query tower: the plain mean of the items' vectors."""

    def __init__(self, vectors_ID: np.ndarray) -> None:
        self._vectors_ID = vectors_ID

    def encode_queries(self, queries):
        dim = self._vectors_ID.shape[1]
        return np.stack(
            [
                self._vectors_ID[h].mean(axis=0) if len(h) else np.zeros(dim, np.float32)
                for h in (query.history_L for query in queries)
            ]
        )


def all_sources():
    rng = np.random.default_rng(1)
    taken = sp.csr_matrix((rng.random((60, NUM_ITEMS)) < 0.15).astype(np.float32))
    vectors = rng.normal(size=(NUM_ITEMS, 6)).astype(np.float32)
    items = taken.tocoo().col.astype(np.int32)
    popularity = fit_popularity(
        items,
        np.arange(len(items)) * 10**8,
        NUM_ITEMS,
        tags=[["even"] if i % 2 == 0 else [] for i in range(NUM_ITEMS)],
    )
    sources = [
        VectorSource("two_tower", MeanOfVectors(vectors), FaissIndex.build(vectors)),
        ItemItemSource("ease", fit_ease(taken, l2=5.0, half_life=5.0)),
        AlsSource("als", Als(AlsConfig(dim=6), vectors)),
        PopularSource("popular", popularity),
    ]
    return {source.name: source for source in sources}


SOURCES = all_sources()


def retrieval(*sources: SourceConfig, num_candidates: int = 300) -> Retrieval:
    return Retrieval(SOURCES, RetrievalConfig(sources=sources, num_candidates=num_candidates))


ALL = retrieval(*(SourceConfig(name=name, quota=5) for name in SOURCES))

item_lists = st.lists(st.integers(0, NUM_ITEMS - 1), max_size=15, unique=True).map(
    lambda items: np.array(items, np.int32)
)
masks = st.none() | st.lists(st.booleans(), min_size=NUM_ITEMS, max_size=NUM_ITEMS).map(np.array)
queries = st.builds(
    Query,
    history_L=item_lists,
    k=st.integers(1, NUM_ITEMS + 5),
    exclude=item_lists,
    allowed=masks,
    exclude_seen=st.booleans(),
    context=st.sampled_from([{}, {"tag": "even"}, {"tag": "unknown"}]),
)


def allowed_rows(query: Query) -> set[int]:
    allowed = np.ones(NUM_ITEMS, bool) if query.allowed is None else query.allowed.copy()
    allowed[query.exclude] = False
    if query.exclude_seen:
        allowed[query.history_L] = False
    return set(np.flatnonzero(allowed).tolist())


@given(st.lists(queries, min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_only_allowed_rows_come_and_k_of_them_wherever_there_are_k(batch):
    for query, found in zip(batch, ALL(batch), strict=True):
        rows = found.item_index.tolist()
        assert len(set(rows)) == len(rows)
        assert set(rows) <= allowed_rows(query)
        assert len(rows) >= min(query.k, len(allowed_rows(query)))


@given(queries, st.sampled_from(sorted(SOURCES)))
@settings(max_examples=150, deadline=None)
def test_each_source_proposes_allowed_rows_only_best_first_and_fills_with_minus_one(query, name):
    rows, scores = (array[0] for array in SOURCES[name].propose([query], query.k))
    real = rows >= 0
    assert rows.shape == scores.shape == (query.k,)
    assert set(rows[real].tolist()) <= allowed_rows(query)
    assert (np.diff(real.astype(int)) <= 0).all()
    assert (np.diff(scores[real]) <= 0).all()
    assert np.isneginf(scores[~real]).all()
    np.testing.assert_allclose(
        SOURCES[name].score([query], [rows[real]])[0], scores[real], rtol=1e-4, atol=1e-5
    )


@given(queries, queries)
@settings(max_examples=50, deadline=None)
def test_an_answer_does_not_depend_on_its_neighbours_in_the_batch(query, other):
    alone, beside = ALL([query])[0], ALL([other, query])[1]
    assert alone.item_index.tolist() == beside.item_index.tolist()
    np.testing.assert_allclose(alone.score, beside.score, rtol=1e-4, atol=1e-4)


def test_every_source_scores_every_candidate_and_the_mask_says_who_proposed_it():
    query = Query(np.array([1, 2, 3], np.int32), k=1)
    found = ALL([query])[0]
    assert not np.isnan(found.source_score_KS).any()
    for bit, name in enumerate(ALL.source_names):
        proposed = set(SOURCES[name].propose([query], 5)[0][0].tolist())
        assert {
            row for row, mask in zip(found.item_index, found.source_mask, strict=True) if mask >> bit & 1
        } == proposed
        np.testing.assert_allclose(
            found.source_score_KS[:, bit], SOURCES[name].score([query], [found.item_index])[0], rtol=1e-5
        )


def test_the_merged_score_is_the_weighted_sum_of_z_scores():
    weighted = retrieval(
        SourceConfig(name="ease", quota=3, weight=2.0), SourceConfig(name="popular", quota=3, weight=0.5)
    )
    found = weighted([Query(np.array([1, 2, 3], np.int32), k=1)])[0]
    z = (found.source_score_KS - found.source_score_KS.mean(0)) / found.source_score_KS.std(0)
    np.testing.assert_allclose(found.score, z @ [2.0, 0.5], rtol=1e-4, atol=1e-5)
    assert (np.diff(found.score) <= 0).all()


def test_num_candidates_caps_unless_more_are_asked_for():
    capped = retrieval(*(SourceConfig(name=name, quota=10) for name in SOURCES), num_candidates=4)
    history = np.array([5], np.int32)
    assert len(capped([Query(history, k=2)])[0]) == 4
    assert len(capped([Query(history, k=7)])[0]) == 7


def test_without_history_popular_answers_alone_in_its_own_order():
    # weight 0: popular counts nothing beside others, but is all there is here
    found = retrieval(SourceConfig(name="ease"), SourceConfig(name="popular", weight=0.0))(
        [Query(NOTHING, k=6)]
    )[0]
    expected = SOURCES["popular"].propose([Query(NOTHING)], 6)[0][0]
    assert found.item_index[:6].tolist() == expected.tolist()
    assert set(found.source_mask.tolist()) == {2}
    assert np.isnan(found.source_score_KS[:, 0]).all()


def test_without_history_the_context_chooses_the_segment():
    found = ALL([Query(NOTHING, k=10, context={"tag": "even"})])[0]
    assert all(row % 2 == 0 for row in found.item_index[:10].tolist())


def test_an_item_to_item_source_proposes_only_what_the_history_speaks_for():
    weights = sp.csr_matrix(([0.5, -0.5], ([0, 0], [2, 3])), shape=(5, 5))
    source = ItemItemSource("knn", ItemItem(ItemItemConfig(kind="cosine", num_items=5), weights))
    rows, scores = source.propose([Query(np.array([0], np.int32))], 3)
    assert rows.tolist() == [[2, -1, -1]]
    assert scores.tolist() == [[0.5, -np.inf, -np.inf]]


def test_z_scores_by_hand():
    nan = np.nan
    scores = np.array([[1, 5, nan, nan], [3, 5, 2, nan], [5, 5, nan, nan]], np.float32)
    deviation = (8 / 3) ** 0.5
    expected = [[-2 / deviation, 0, nan, nan], [0, 0, 0, nan], [2 / deviation, 0, nan, nan]]
    np.testing.assert_allclose(z_scores(scores), expected, rtol=1e-6)


def test_no_queries_give_no_answers():
    assert ALL([]) == []


def test_a_source_that_is_not_there_is_refused():
    with pytest.raises(CompatibilityError, match="retrieval source, is 'deep', must be one of: als, ease"):
        retrieval(SourceConfig(name="deep"), SourceConfig(name="popular"))


def test_sources_that_all_need_a_history_are_refused():
    with pytest.raises(ConfigError, match="at least one that answers without a history"):
        retrieval(SourceConfig(name="ease"))


def test_a_source_named_twice_is_refused():
    with pytest.raises(ConfigError, match="named once each"):
        RetrievalConfig.parse({"sources": [{"name": "ease"}, {"name": "ease"}]}, "pipeline.json")


class Said(Source):
    """Proposes a few items with the scores that it was given."""

    needs_history = False

    def __init__(self, name: str, scores: list[float]) -> None:
        self.name, self._score_I = name, np.array(scores, np.float32)

    def ask(self, queries):
        return self

    def propose(self, k):
        order = np.argsort(-self._score_I)[None, :k].astype(np.int32)
        return order, self._score_I[order]

    def score(self, items):
        return [self._score_I[rows] for rows in items]


@pytest.mark.parametrize(
    ("interactions", "first"), [([0.0] * 3, 0), ([5.0] * 3, 0), ([99.0] * 3, 1), (None, 1)]
)
def test_content_decides_for_items_that_few_took_and_others_for_the_well_known(interactions, first):
    """Row 0 is the best by content, row 1 by what others took; unshared, the heavier kind decides."""
    sources = {"content": Said("content", [3, 1, 2]), "als": Said("als", [1, 3, 2])}
    config = RetrievalConfig(sources=(SourceConfig(name="content"), SourceConfig(name="als", weight=1.5)))
    counts = None if interactions is None else np.array(interactions, np.float32)
    (found,) = Retrieval(sources, config, counts)([Query(NOTHING, k=3)])
    assert found.item_index[0] == first
