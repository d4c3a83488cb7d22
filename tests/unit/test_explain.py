"""What is told of an item is what the pipeline does with it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tagged import NUM_ITEMS, SOURCES, open_bundle

from tastemaker.bundle.store import BundleStore
from tastemaker.stages.hydration import feature_names
from tastemaker.stages.pipeline import Pipeline
from tastemaker.types import Query

NAMES = feature_names(SOURCES)
RULES = {"keep_top": 1, "mmr": None, "category_cap": {"max_per_category": 1}}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    store = BundleStore(tmp_path_factory.mktemp("bundles"))
    return Pipeline.from_bundle(open_bundle(store, reranking=RULES))


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """Of 24 items at most 6 go on, of sources that propose 15."""
    found = Pipeline.from_bundle(open_bundle(BundleStore(tmp_path_factory.mktemp("narrow"))))
    config = found.config.retrieval.model_copy(update={"num_candidates": 6})
    found._retrieval.config = config  # type: ignore[union-attr]
    return found


@given(
    history=st.lists(st.integers(0, NUM_ITEMS - 1), max_size=6, unique=True),
    exclude=st.lists(st.integers(0, NUM_ITEMS - 1), max_size=6),
    row=st.integers(0, NUM_ITEMS - 1),
    k=st.integers(1, 12),
)
def test_the_rank_that_is_told_is_the_rank_in_the_answer(
    pipeline: Pipeline, history: list[int], exclude: list[int], row: int, k: int
) -> None:
    query = Query(np.array(history, np.int32), k=k, exclude=np.array(exclude, np.int32), seed=7)
    (slate,) = pipeline.recommend([query])
    found = pipeline.explain(query, row, names=NAMES)
    at = np.flatnonzero(slate.item_index == row)
    assert found.shown_rank == (int(at[0]) + 1 if len(at) else None)
    assert (found.verdict == "shown") == bool(len(at))
    assert (found.verdict == "hard-rule") == (row in history or row in exclude)


def test_stages_ranks_are_those_of_their_lists(pipeline: Pipeline) -> None:
    query = Query(np.array([1, 5, 9], np.int32), k=5, keep_features=True)
    (retrieved,) = pipeline.retrieve([query])
    (ranked,) = pipeline.rank([query], [retrieved])
    (reranked,) = pipeline.rerank([query], [ranked])
    assert len(retrieved)
    for row in retrieved.item_index.tolist():
        found = pipeline.explain(query, row, names=NAMES)
        assert found.retrieved_rank == retrieved.item_index.tolist().index(row) + 1
        at = ranked.item_index.tolist().index(row)
        assert (found.ranked_rank, found.ranked_score) == (at + 1, pytest.approx(ranked.score[at]))
        assert found.reranked_rank == reranked.item_index.tolist().index(row) + 1
        assert ranked.features_KF is not None
        assert list(found.features.values()) == pytest.approx(ranked.features_KF[at].tolist())
        assert set(found.features) == set(NAMES)
        if found.moves:  # rule after rule, from the ranker's place to the last
            assert (found.moves[0].before, found.moves[-1].after) == (found.ranked_rank, found.reranked_rank)
        else:
            assert found.ranked_rank == found.reranked_rank


def test_the_cap_is_named_where_it_moves_an_item(pipeline: Pipeline) -> None:
    query = Query(np.array([1, 5, 9], np.int32), k=10)
    rules = {
        move.rule for row in range(NUM_ITEMS) for move in pipeline.explain(query, row, names=NAMES).moves
    }
    assert rules == {"category_cap"}


def test_sources_say_their_rank_and_score_of_any_item(pipeline: Pipeline) -> None:
    query = Query(np.array([1, 5, 9], np.int32), k=5)
    (retrieved,) = pipeline.retrieve([query])
    for row in (2, 13):
        for column, said in zip(range(len(SOURCES)), pipeline.explain(query, row).sources, strict=True):
            proposed = pipeline._retrieval.sources[column].propose([query], 15)[0][0]  # type: ignore[union-attr]
            at = np.flatnonzero(proposed == row)
            assert said.rank == (int(at[0]) + 1 if len(at) else None)
            assert said.source == SOURCES[column]
            where = np.flatnonzero(retrieved.item_index == row)
            if len(where):
                assert said.score == pytest.approx(float(retrieved.source_score_KS[where[0], column]))


def test_what_falls_short_of_the_candidates_is_told_what_the_ranker_would_say(narrow: Pipeline) -> None:
    query = Query(np.array([1, 5, 9], np.int32), k=3)
    (retrieved,) = narrow.retrieve([query])
    told = {row: narrow.explain(query, row, names=NAMES) for row in range(NUM_ITEMS)}
    cut = [row for row, found in told.items() if found.verdict == "below-num-candidates"]
    assert cut
    assert not {*cut} & {*retrieved.item_index.tolist()}
    for row in cut:
        found = told[row]
        assert (found.retrieved_rank, found.ranked_rank, found.shown_rank) == (None, None, None)
        assert found.would_rank is not None
        assert 1 <= found.would_rank <= len(retrieved) + 1
        assert len(found.features) == len(NAMES)
    assert {found.verdict for found in told.values()} >= {"shown", "behind-k", "hard-rule"}


def test_rules_that_are_named_come_through(pipeline: Pipeline) -> None:
    query = Query(np.array([1], np.int32), k=3, exclude=np.array([7], np.int32))
    assert pipeline.explain(query, 7, ("excluded",)).rules == ("excluded",)
    assert pipeline.explain(query, 7).rules == ("forbidden",)
    assert pipeline.explain(replace(query, exclude=query.exclude[:0]), 7).rules == ()
