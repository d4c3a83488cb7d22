import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tastemaker.errors import CompatibilityError
from tastemaker.stages.rerankers.caps import CategoryCapConfig, capped
from tastemaker.stages.rerankers.config import RerankingConfig
from tastemaker.stages.rerankers.mmr import MmrConfig, mmr_order
from tastemaker.stages.rerankers.relevance import relevance
from tastemaker.stages.rerankers.seen import RerankingItems, Seen
from tastemaker.stages.reranking import Reranking
from tastemaker.types import Candidates, Query

NO_HISTORY = np.empty(0, np.int32)


def ranked(*rows: int) -> Candidates:
    score = np.linspace(0.9, 0.1, len(rows)).astype(np.float32)
    return Candidates(np.array(rows, np.int32), score, np.ones(len(rows), np.uint32), score[:, None])


def items(num: int, categories: list[int] | None = None) -> RerankingItems:
    vectors = np.random.default_rng(0).normal(size=(num, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return RerankingItems(vectors, np.array(categories or [-1] * num, np.int32))


def test_mmr_by_hand_on_four_items() -> None:
    """Relevance 1, .8, .7, .1; 0 and 1 alike at .9, 2 like 0 at .2, 3 like nothing; weight .6, nothing kept but 0.

    Second: item 1 .48 - .36 = .12; item 2 .42 - .08 = .34; item 3 .06 - 0 = .06: item 2.
    Third: item 1 .48 - .4 * max(.9, .3) = .12; item 3 .06: item 1. Item 3 is last.
    """
    similarity = np.array([[1, 0.9, 0.2, 0], [0.9, 1, 0.3, 0], [0.2, 0.3, 1, 0], [0, 0, 0, 1]])
    vectors = np.linalg.cholesky(similarity).astype(np.float32)  # whose products are these similarities
    order = mmr_order(np.array([1, 0.8, 0.7, 0.1], np.float32), vectors, weight=0.6, keep_top=0)
    assert order.tolist() == [0, 2, 1, 3]


def test_relevance_alone_keeps_the_order() -> None:
    order = mmr_order(
        np.array([1, 0.8, 0.7], np.float32), np.ones((3, 1), np.float32), weight=1.0, keep_top=0
    )
    assert order.tolist() == [0, 1, 2]


def test_relevance_is_log_odds_from_worst_to_best() -> None:
    # log-odds of .5, .75, .1 are 0, ln 3, -ln 9: the middle lies ln 9 / ln 27 = 2/3 of the way
    assert relevance(np.array([0.75, 0.5, 0.1], np.float32), 3) == pytest.approx([1, 2 / 3, 0], abs=1e-6)
    assert relevance(np.array([0.2, 0.2], np.float32), 2).tolist() == [1, 1]
    assert relevance(np.array([3.0, 0.0, -1.0], np.float32), 3).tolist() == [1, 0.25, 0]


def test_relevance_beyond_the_head_lies_below_it() -> None:
    assert relevance(np.array([3.0, 1.0, -1.0], np.float32), 2).tolist() == [1, 0, -1]
    assert relevance(np.array([0.2, 0.2, 0.1], np.float32), 2).tolist() == [1, 1, 0]


def test_cap_defers_what_exceeds_it_behind_the_answer() -> None:
    config = RerankingConfig(keep_top=1, mmr=None, category_cap=CategoryCapConfig(page=4, max_per_category=2))
    stage = Reranking(items(6, [1, 1, 1, 1, 2, 2]), config)
    # the page of 4: 0, 1 of category 1, then 4, 5 of category 2; 2 and 3 exceed the cap of 2
    [out] = stage([Query(NO_HISTORY, k=4)], [ranked(0, 1, 2, 3, 4, 5)])
    assert out.item_index.tolist() == [0, 1, 4, 5, 2, 3]


def test_each_page_has_its_own_cap() -> None:
    config = RerankingConfig(keep_top=1, mmr=None, category_cap=CategoryCapConfig(page=2, max_per_category=1))
    stage = Reranking(items(6, [1, 1, 1, 2, 2, 2]), config)
    [out] = stage([Query(NO_HISTORY, k=6)], [ranked(0, 1, 2, 3, 4, 5)])
    assert out.item_index.tolist() == [0, 3, 1, 4, 2, 5]


@given(k=st.integers(1, 30), keep_top=st.integers(0, 3))
def test_a_longer_answer_begins_with_the_shorter(k: int, keep_top: int) -> None:
    stage = Reranking(items(60, [i % 3 for i in range(60)]), RerankingConfig(keep_top=keep_top))
    candidates = [ranked(*np.random.default_rng(k).permutation(60).tolist())]
    [short] = stage([Query(NO_HISTORY, k=k)], candidates)
    [long] = stage([Query(NO_HISTORY, k=60)], candidates)
    assert short.item_index[:k].tolist() == long.item_index[:k].tolist()


def test_cap_gives_way_when_nothing_else_is_left() -> None:
    config = RerankingConfig(keep_top=1, mmr=None, category_cap=CategoryCapConfig(page=4, max_per_category=1))
    [out] = Reranking(items(4, [1, 1, 1, 2]), config)([Query(NO_HISTORY, k=4)], [ranked(0, 1, 2, 3)])
    assert out.item_index.tolist() == [0, 3, 1, 2]


def test_items_without_category_are_not_capped() -> None:
    config = RerankingConfig(keep_top=0, mmr=None, category_cap=CategoryCapConfig(max_per_category=1))
    [out] = Reranking(items(3, [-1, -1, -1]), config)([Query(NO_HISTORY, k=3)], [ranked(0, 1, 2)])
    assert out.item_index.tolist() == [0, 1, 2]


def test_top_stays_whatever_the_cap_says() -> None:
    config = RerankingConfig(keep_top=3, category_cap=CategoryCapConfig(max_per_category=1))
    [out] = Reranking(items(5, [1, 1, 1, 1, 2]), config)([Query(NO_HISTORY, k=5)], [ranked(0, 1, 2, 3, 4)])
    assert out.item_index.tolist()[:3] == [0, 1, 2]


@given(
    rows=st.lists(st.integers(0, 59), max_size=60, unique=True),
    keep_top=st.integers(0, 5),
    weight=st.floats(0, 1),
    head=st.integers(1, 70),
    cap=st.none() | st.integers(1, 4),
    k=st.integers(1, 20),
)
@settings(max_examples=100, deadline=None)
def test_result_is_a_permutation_that_keeps_the_top(
    rows: list[int], keep_top: int, weight: float, head: int, cap: int | None, k: int
) -> None:
    config = RerankingConfig(
        keep_top=keep_top,
        mmr=MmrConfig(weight=weight, head=head),
        category_cap=None if cap is None else CategoryCapConfig(max_per_category=cap),
    )
    stage = Reranking(items(60, [i % 4 - 1 for i in range(60)]), config)
    before = ranked(*rows)
    [after] = stage([Query(NO_HISTORY, k=k)], [before])
    assert sorted(after.item_index) == sorted(rows)
    assert after.item_index[:keep_top].tolist() == rows[:keep_top]
    score_of = dict(zip(rows, before.score, strict=True))
    assert [score_of[row] for row in after.item_index] == after.score.tolist()
    [again] = stage([Query(NO_HISTORY, k=k)], [before])
    assert again.item_index.tolist() == after.item_index.tolist()


@example(groups=[0, 0, 0, 0, 1], keep_top=3, k=10, page=2, most=1)  # one of the top stands on the second page
@given(
    groups=st.lists(st.integers(-1, 3), max_size=30),
    keep_top=st.integers(0, 5),
    k=st.integers(1, 40),
    page=st.integers(1, 8),
    most=st.integers(1, 4),
)
def test_a_cap_fills_page_by_page_as_its_text_says(
    groups: list[int], keep_top: int, k: int, page: int, most: int
) -> None:
    left, expected = list(range(len(groups))), list[int]()
    for number in range(-(-min(k, len(groups)) // page)):
        group = [groups[place] for place in left]
        within = [
            at < keep_top - number * page or group[at] < 0 or group[:at].count(group[at]) < most
            for at in range(len(left))
        ]
        best = [place for place, is_in in zip(left, within, strict=True) if is_in]
        others = [place for place, is_in in zip(left, within, strict=True) if not is_in]
        mine = (best + others)[:page]
        left = [place for place in left if place not in mine]
        expected += mine
    seen = Seen(np.arange(len(groups), dtype=np.int32), np.zeros(len(groups), np.float32), keep_top, k)
    assert capped(np.array(groups, np.int32), seen, page, most).tolist() == expected + left


def test_vectors_and_categories_of_two_catalogues_are_refused() -> None:
    with pytest.raises(CompatibilityError, match="2 vectors, 3 categories"):
        RerankingItems(np.zeros((2, 4), np.float32), np.zeros(3, np.int32))
