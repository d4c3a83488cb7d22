"""A catalogue in shards: what they say together is what the whole says, and each row is one shard's."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tagged import NUM_ITEMS, items_table, write_bundle

from tastemaker.bundle.part import BundlePart, own_columns
from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.data.item_rows import Item
from tastemaker.errors import ConfigError
from tastemaker.features.content import ContentConfig, ContentSpace
from tastemaker.index.sharded import ShardOf, merge_top
from tastemaker.stages.explain import joined
from tastemaker.stages.live import LiveStages
from tastemaker.stages.merging import Merging, SourceConfig
from tastemaker.stages.pipeline_config import Part
from tastemaker.stages.retrieval import Retrieval, RetrievalConfig
from tastemaker.stages.shards import OwnRows
from tastemaker.stages.source import Asked, Source, best_allowed, filled
from tastemaker.state.items import ItemChanges
from tastemaker.types import Candidates, Float32, Int32, Query

COLUMNS = ("item_index", "score", "source_mask", "source_score_KS", "missing_sources")


class Scored(Source):
    """Scores that do not depend on the query; `light` sources list the items in an order of their own among equals."""

    needs_history = False

    def __init__(self, name: str, score_I: Float32, is_light: bool) -> None:
        self.name, self.score_I, self.is_light = name, score_I, is_light

    def ask(self, queries: Sequence[Query]) -> Asked:
        return _Asked(self, queries)


class _Asked:
    def __init__(self, source: Scored, queries: Sequence[Query]) -> None:
        self.source, self.queries = source, queries

    def propose(self, k: int) -> tuple[Int32, Float32]:
        rows = np.arange(len(self.source.score_I), dtype=np.int32)
        if self.source.is_light:
            rows = rows[::-1]
        score_N = self.source.score_I[rows]
        known = ~np.isnan(score_N)
        return filled([best_allowed(rows[known], score_N[known], query, k) for query in self.queries], k)

    def score(self, items: Sequence[Int32]) -> list[Float32]:
        return [self.source.score_I[rows] for rows in items]


def same(found: Candidates, expected: Candidates) -> None:
    for column in COLUMNS:
        np.testing.assert_array_equal(getattr(found, column), getattr(expected, column))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_shards_together_give_the_candidates_of_the_whole(data: st.DataObject) -> None:
    num_bundle, num_put = data.draw(st.integers(1, 60)), data.draw(st.integers(0, 6))
    num_shards = data.draw(st.integers(1, min(num_bundle, 5)))
    num_items, rng = num_bundle + num_put, np.random.default_rng(data.draw(st.integers(0, 999)))
    sources: dict[str, Source] = {}
    for s in range(data.draw(st.integers(1, 4))):
        scores = rng.integers(-3, 4, num_items).astype(np.float32)  # many are equal
        scores[rng.random(num_items) < 0.2] = np.nan
        sources[f"s{s}"] = Scored(f"s{s}", scores, is_light=bool(rng.random() < 0.4))
    config = RetrievalConfig(
        sources=tuple(
            SourceConfig(name=name, quota=int(rng.integers(1, 12)), weight=float(rng.random() < 0.8))
            for name in sources
        ),
        num_candidates=int(rng.integers(1, 30)),
    )
    fresh = Scored("fresh", np.where(rng.random(num_items) < 0.1, np.float32(0), np.float32(np.nan)), True)
    query = Query(
        rng.integers(0, num_items, 3).astype(np.int32), k=int(rng.integers(1, 9)),
        allowed=data.draw(st.sampled_from([None, rng.random(num_items) < 0.7])),
    )  # fmt: skip
    counts = rng.integers(0, 60, num_items).astype(np.float32)
    (expected,) = Retrieval(sources, config, counts, fresh)([query])
    owns = [OwnRows(ShardOf(n, num_shards), num_bundle, num_items) for n in range(num_shards)]
    answers = [Retrieval(sources, config, counts, fresh, own=own).shard_answers([query])[0] for own in owns]
    merging = Merging.parse(config.model_dump(mode="json"), "test", counts)
    same(merging.whole(query, answers), expected)
    same(merging.whole(query, answers[::-1]), expected)


def test_what_is_proposed_beside_the_sources_goes_on_in_any_case() -> None:
    one = Scored(
        "one", np.arange(6, 0, -1).astype(np.float32), is_light=False
    )  # item 0 is its best, item 5 its last
    fresh = Scored("fresh", np.array([np.nan] * 5 + [0.0], np.float32), is_light=True)
    config = RetrievalConfig(sources=(SourceConfig(name="one", quota=3),), num_candidates=2)
    [found] = Retrieval({"one": one}, config, None, fresh)([Query(np.empty(0, np.int32), k=1)])
    assert found.item_index.tolist() == [0, 1, 5]  # two candidates, and beside them what is fresh
    assert found.source_mask.tolist() == [1, 1, 2]


@given(
    num_bundle=st.integers(1, 100),
    num_put=st.integers(0, 20),
    num_shards=st.integers(1, 9),
    k=st.integers(0, 5),
)
def test_each_row_is_one_shards_and_stays_it_when_more_come(
    num_bundle: int, num_put: int, num_shards: int, k: int
) -> None:
    assume(num_shards <= num_bundle)
    shards = [ShardOf(n, num_shards) for n in range(num_shards)]
    masks = [OwnRows(shard, num_bundle, num_bundle + num_put).mask for shard in shards]
    assert np.sum(masks, axis=0).tolist() == [1] * (num_bundle + num_put)
    later = [OwnRows(shard, num_bundle, num_bundle + num_put + k).mask for shard in shards]
    for mask, then in zip(masks, later, strict=True):
        assert then[: len(mask)].tolist() == mask.tolist()


def test_own_rows_stand_in_their_places() -> None:
    own = OwnRows(ShardOf(1, 2), 4, 7)  # rows 2 and 3 of the bundle, and 5 behind it
    assert own.among(np.array([5, 0, 3, -1, 9], np.int32)).tolist() == [5, -1, 3, -1, -1]
    allowed = np.array([True, True, False, True, True, True, True])
    assert own.only(Query(np.empty(0, np.int32), allowed=allowed)).allowed.tolist() == [False] * 3 + [True, False, True, False]  # type: ignore[union-attr]  # fmt: skip


def test_more_shards_than_items_are_refused() -> None:
    with pytest.raises(ConfigError, match="shards of an index, is 3, must be 1 to 2, its items"):
        ShardOf(0, 3).rows(2)


@given(st.integers(1, 30), st.integers(0, 99), st.integers(0, 30), st.integers(0, 30), st.integers(1, 7))
def test_columns_of_a_sparse_matrix_are_cut(num: int, seed: int, one: int, other: int, at_once: int) -> None:
    dense = np.random.default_rng(seed).integers(0, 3, (num, num))
    own = range(min(one, other, num), min(max(one, other), num))
    rows, columns = np.nonzero(dense)
    indptr = np.searchsorted(rows, np.arange(num + 1))
    cut = own_columns(indptr, columns, dense[rows, columns], own, at_once)
    found = np.zeros_like(dense)
    for row in range(num):
        at = slice(cut["indptr"][row], cut["indptr"][row + 1])
        found[row, cut["indices"][at]] = cut["data"][at]
    expected = np.where(np.isin(np.arange(num), own), dense, 0)
    np.testing.assert_array_equal(found, expected)


# --- of a bundle ---------------------------------------------------------------------------------------------------------

ALL = ("two_tower", "ease", "als", "content", "recent", "popular", "trending", "editorial")
NUM_SHARDS = 3


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> tuple[LiveStages, list[LiveStages]]:
    """Of the whole, and of its shards; quotas are such that no equal scores stand at their borders."""
    store = BundleStore(tmp_path_factory.mktemp("bundles"))
    sources = [{"name": name, "quota": 40} for name in ALL]
    ref = write_bundle(
        store, space=ContentSpace.fit(items_table(), ContentConfig()), retrieval_sources=sources,
        exploration={"share": 1.0},
    )  # fmt: skip
    parts = [BundlePart.open_part(store, ref, ShardOf(n, NUM_SHARDS)) for n in range(NUM_SHARDS)]
    of_retrieval: frozenset[Part] = frozenset({"retrieve"})
    return (
        LiveStages(Bundle.open(store, ref), of_retrieval),
        [LiveStages(part, of_retrieval) for part in parts],
    )


def changes() -> ItemChanges:
    put = [f"new{n}" for n in range(7)]
    rows: dict[str, str | None] = {
        item_id: Item(item_id=item_id, tags=[f"t{n % 4}"]).encode() for n, item_id in enumerate(put)
    }
    return ItemChanges("L", 1, False, put, rows | {"i3": None})


def nearly(found: Candidates, expected: Candidates) -> None:
    """Products of the same vectors are summed in another order beside other rows."""
    found, expected = (one.take(np.argsort(one.item_index)) for one in (found, expected))
    np.testing.assert_array_equal(found.item_index, expected.item_index)
    np.testing.assert_array_equal(found.source_mask, expected.source_mask)
    np.testing.assert_allclose(found.source_score_KS, expected.source_score_KS, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.score, expected.score, rtol=1e-4, atol=1e-5)


def queries() -> list[Query]:
    rng = np.random.default_rng(0)
    some = [
        Query(rng.permutation(NUM_ITEMS)[:length].astype(np.int32), k=30, seed=seed, explore=True)
        for seed, length in enumerate([0, 1, 3, 7])
    ]
    masked = replace(some[2], allowed=np.arange(NUM_ITEMS) % 3 > 0, exclude=np.array([1, 4], np.int32))
    return [*some, masked]


@pytest.mark.parametrize("has_changed", [False, True])
def test_shards_of_a_bundle_answer_as_the_whole(
    stages: tuple[LiveStages, list[LiveStages]], has_changed: bool
) -> None:
    whole, shards = stages
    if has_changed:
        for one in (whole, *shards):
            one.take(changes())
    merging = whole.pipeline._retrieval.merging  # type: ignore[union-attr]
    later = [NUM_ITEMS + 1] if has_changed else []
    for made in queries():
        history_L = np.append(made.history_L, later).astype(np.int32)
        query = replace(made, history_L=history_L, lineage="L" if has_changed else "")
        (expected,) = whole.pipeline.retrieve([query])
        answers = [shard.pipeline.shard_answers([query])[0] for shard in shards]
        assert sum(len(answer.row_K) for answer in answers) >= len(expected) > 0
        nearly(merging.whole(query, answers), expected)
        found = merge_top([_one(shard.similar(query, 5)) for shard in shards], query.k)
        np.testing.assert_allclose(
            np.sort(found[1][0])[::-1][:4], whole.similar(query, 5)[1][:4], rtol=1e-5, atol=1e-6
        )
        for row in (2, 20):
            said = joined([shard.pipeline.say_here(query, row) for shard in shards])
            for mine, theirs in zip(said, whole.pipeline.say(query, row), strict=True):
                assert mine._replace(score=None, rank=None) == theirs._replace(score=None, rank=None)
                assert (mine.score is None) == (theirs.score is None)
                assert (mine.rank is None) == (theirs.rank is None)
                assert (mine.score or 0.0) == pytest.approx(theirs.score or 0.0, rel=1e-5, abs=1e-6)


def _one(found: tuple[Int32, Float32]) -> tuple[Int32, Float32]:
    return found[0][None], found[1][None]


def test_a_shard_that_is_missing_costs_its_own_rows_alone(
    stages: tuple[LiveStages, list[LiveStages]],
) -> None:
    whole, shards = stages
    merging = whole.pipeline._retrieval.merging  # type: ignore[union-attr]
    query = queries()[2]
    answers = [shard.pipeline.shard_answers([query])[0] for shard in shards]
    without = merging.whole(query, answers[:2])
    (expected,) = whole.pipeline.retrieve([query])
    own = OwnRows(ShardOf(2, NUM_SHARDS), NUM_ITEMS, whole.pipeline.overlay.num_items)  # type: ignore[union-attr]
    left = own.among(expected.item_index) < 0
    assert set(without.item_index.tolist()) == set(expected.item_index[left].tolist())
