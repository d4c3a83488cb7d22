import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.errors import CompatibilityError, ServingError
from tastemaker.features.columns import FeatureSchema, ItemColumns
from tastemaker.features.ranking_items import RankingItems
from tastemaker.models.calibration import Calibration
from tastemaker.models.dlrm import Dlrm, DlrmConfig
from tastemaker.models.item_item import fit_ease
from tastemaker.models.popularity import fit_popularity
from tastemaker.stages.filtering import _forbidden, permitted
from tastemaker.stages.hydration import Hydration
from tastemaker.stages.neighbours import ItemItemSource
from tastemaker.stages.pipeline import Pipeline
from tastemaker.stages.pipeline_config import PipelineConfig
from tastemaker.stages.popular import PopularSource
from tastemaker.stages.ranking import Ranking
from tastemaker.stages.rerankers.seen import RerankingItems
from tastemaker.stages.reranking import Reranking
from tastemaker.stages.retrieval import Retrieval
from tastemaker.types import Candidates, Query

NUM_ITEMS = 40
CONFIG = PipelineConfig.parse(
    {
        "retrieval": {
            "sources": [{"name": "ease", "quota": 20}, {"name": "popular", "quota": 20}],
            "num_candidates": 30,
        }
    },
    "test",
)


def catalogue() -> RankingItems:
    rows = np.arange(NUM_ITEMS)
    schema = FeatureSchema(
        num_items=NUM_ITEMS,
        tags=("a", "b", "c", "d", "e"),
        categories=("x", "y"),
        first_year=1980,
        last_year=1987,
    )
    return RankingItems(
        ItemColumns(
            schema,
            tag_offsets_I1=np.arange(NUM_ITEMS + 1),
            tags_V=(rows % 5).astype(np.int32),
            year_I=(1980 + rows % 8).astype(np.float32),
            year_row_I=(1 + rows % 8 // 2).astype(np.int32),
            category_row_I=(rows % 3).astype(np.int32),
        )
    )


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    generator = np.random.default_rng(0)
    histories = generator.random((60, NUM_ITEMS)) < np.linspace(0.4, 0.05, NUM_ITEMS)
    _, item_index = np.nonzero(histories)
    popularity = fit_popularity(item_index.astype(np.int32), np.arange(len(item_index)), NUM_ITEMS)
    sources = {
        "ease": ItemItemSource(
            "ease", fit_ease(sp.csr_matrix(histories, dtype=np.float32), 10.0, half_life=5.0)
        ),
        "popular": PopularSource("popular", popularity),
    }
    vectors = generator.normal(size=(NUM_ITEMS, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    items = catalogue()
    retrieval = Retrieval(sources, CONFIG.retrieval)
    hydration = Hydration(items, popularity, vectors, retrieval.source_names)
    torch.manual_seed(0)
    model = Dlrm(
        DlrmConfig(dense_features=hydration.feature_names, num_tags=5, num_years=5, num_categories=3)
    )
    torch.nn.init.normal_(model.wide.weight)
    return Pipeline(
        CONFIG,
        retrieval=retrieval,
        hydration=hydration,
        ranking=Ranking(model, Calibration(slope=0.5, intercept=-1.0), items, hydration.feature_names),
        reranking=Reranking(RerankingItems(vectors, items.columns.category_row_I - 1)),
    )


rows = st.lists(st.integers(0, NUM_ITEMS - 1), max_size=NUM_ITEMS, unique=True).map(
    lambda x: np.array(x, np.int32)
)
masks = st.none() | st.lists(st.booleans(), min_size=NUM_ITEMS, max_size=NUM_ITEMS).map(np.array)
queries = st.builds(
    Query, history_L=rows, k=st.integers(1, 15), exclude=rows, allowed=masks, exclude_seen=st.booleans()
)


def forbidden(query: Query) -> set[int]:
    allowed = np.ones(NUM_ITEMS, bool) if query.allowed is None else query.allowed
    seen = set(query.history_L.tolist()) if query.exclude_seen else set()
    return set(np.flatnonzero(~allowed).tolist()) | set(query.exclude.tolist()) | seen


@given(query=queries, until=st.sampled_from(["retrieve", "rank", "rerank"]))
@settings(max_examples=60, deadline=None)
def test_no_answer_holds_what_is_forbidden(pipeline: Pipeline, query: Query, until: str) -> None:
    [answer] = pipeline.recommend([query], until)
    found = answer.item_index.tolist()
    assert not set(found) & forbidden(query)
    assert len(set(found)) == len(found) <= query.k


@given(query=queries, listed=st.lists(st.integers(-3, NUM_ITEMS + 3), max_size=60))
@settings(max_examples=100, deadline=None)
def test_final_filter_holds_for_any_list(pipeline: Pipeline, query: Query, listed: list[int]) -> None:
    num = len(listed)
    given_list = Candidates(
        np.array(listed, np.int32),
        np.zeros(num, np.float32),
        np.zeros(num, np.uint32),
        np.zeros((num, 2), np.float32),
    )
    [answer] = pipeline.finish([query], [given_list])
    inside = range(NUM_ITEMS if query.allowed is not None else NUM_ITEMS + 4)
    expected = [row for row in dict.fromkeys(listed) if row in inside and row not in forbidden(query)]
    assert answer.item_index.tolist() == expected[: query.k]


def test_permitted_by_hand() -> None:
    allowed = np.array([True, True, False, True])
    query = Query(np.array([0], np.int32), allowed=allowed, exclude_seen=False)
    assert permitted(query, np.array([0, 2, 3, 3, 9], np.int32)).tolist() == [True, False, True, False, False]


@given(st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=20)
def test_many_forbidden_rows_are_as_forbidden_as_few(seed: int, exclude_seen: bool) -> None:
    """Whether the list of them is longer than candidates are told apart by a set, as it is."""
    draws = np.random.default_rng(seed)
    history, exclude = (draws.integers(0, 9000, draws.integers(0, 4000)).astype(np.int32) for _ in range(2))
    query = Query(history, exclude=exclude, exclude_seen=exclude_seen)
    rows = draws.integers(-1, 9000, 60).astype(np.int32)
    gone = {*exclude.tolist(), *(history.tolist() if exclude_seen else ())}
    expected = [row >= 0 and row not in gone and row not in rows[:at] for at, row in enumerate(rows.tolist())]
    assert permitted(query, rows).tolist() == expected


def test_of_many_forbidden_rows_those_of_the_candidates_alone_are_looked_at() -> None:
    """A set of all of them takes ten times as long."""
    query = Query(np.arange(5000, dtype=np.int32), exclude=np.arange(5000, 9000, dtype=np.int32))
    rows = np.array([10_000, 17, 8000], np.int32)
    assert _forbidden(query, rows) == {17, 8000}
    assert permitted(query, rows).tolist() == [True, False, False]


def test_one_query_gives_what_a_batch_gives(pipeline: Pipeline) -> None:
    generator = np.random.default_rng(1)
    batch = [Query(generator.permutation(NUM_ITEMS)[:n].astype(np.int32), k=5) for n in (0, 1, 7, 30)]
    for query, together in zip(batch, pipeline.recommend(batch), strict=True):
        [alone] = pipeline.recommend([query])
        assert alone.item_index.tolist() == together.item_index.tolist()
        assert alone.score.tolist() == together.score.tolist()


def test_same_query_gives_the_same_answer(pipeline: Pipeline) -> None:
    query = Query(np.array([3, 1, 4], np.int32))
    first, second = pipeline.recommend([query])[0], pipeline.recommend([query])[0]
    assert np.array_equal(first.item_index, second.item_index)
    assert np.array_equal(first.score, second.score)


def test_ranking_sorts_by_probability(pipeline: Pipeline) -> None:
    query = Query(np.array([3, 1, 4], np.int32))
    retrieved = pipeline.retrieve([query])
    [ranked] = pipeline.rank([query], retrieved)
    assert sorted(ranked.item_index) == sorted(retrieved[0].item_index)
    assert (np.diff(ranked.score) <= 0).all()
    assert 0 < ranked.score.min() < ranked.score.max() < 1
    assert ranked.features_KF is not None


def test_reranking_moves_nothing_in_or_out(pipeline: Pipeline) -> None:
    query = Query(np.array([3, 1, 4], np.int32))
    ranked = pipeline.rank([query], pipeline.retrieve([query]))
    [reranked] = pipeline.rerank([query], ranked)
    assert sorted(reranked.item_index) == sorted(ranked[0].item_index)
    assert reranked.item_index[:3].tolist() == ranked[0].item_index[:3].tolist()


def test_no_candidates_pass_through_every_stage(pipeline: Pipeline) -> None:
    query = Query(np.empty(0, np.int32), allowed=np.zeros(NUM_ITEMS, bool))
    assert [len(answer) for answer in pipeline.recommend([query])] == [0]


def test_part_that_was_not_loaded_is_refused() -> None:
    with pytest.raises(ServingError, match="no stage of part rank: load the bundle with rank in parts"):
        Pipeline(CONFIG).rank([], [])


def test_ranker_of_other_sources_is_refused() -> None:
    model = Dlrm(DlrmConfig(dense_features=("als_z",), num_tags=5, num_years=5, num_categories=3))
    with pytest.raises(
        CompatibilityError, match=r"features of the ranker.*train the ranker with these sources"
    ):
        Ranking(model, Calibration(), catalogue(), ("ease_z",))


def test_ranker_of_another_catalogue_is_refused() -> None:
    model = Dlrm(DlrmConfig(dense_features=("ease_z",), num_tags=6, num_years=5, num_categories=3))
    with pytest.raises(CompatibilityError, match=r"is \(5, 5, 3\), must be \(6, 5, 3\)"):
        Ranking(model, Calibration(), catalogue(), ("ease_z",))
