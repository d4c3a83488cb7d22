"""Metrics against hand-worked values, independent libraries (1e-9) and their ranges."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tastemaker.evaluation import metrics
from tastemaker.features.traits import ItemTraits
from tastemaker.types import Float64, Int32

NUM_ITEMS, DEPTH, USERS = 40, 12, 60


class Lists:
    """Random lists of distinct items, and one to many targets for each user."""

    def __init__(self, seed: int) -> None:
        draws = np.random.default_rng(seed)
        self.scores_BI: Float64 = np.argsort(draws.random((USERS, NUM_ITEMS)), axis=1).astype(np.float64)
        self.ranked_BK: Int32 = np.argsort(-self.scores_BI, axis=1)[:, :DEPTH].astype(np.int32)
        sizes = draws.integers(1, 20, USERS)
        self.targets: list[Int32] = [
            draws.choice(NUM_ITEMS, size, replace=False).astype(np.int32) for size in sizes
        ]
        self.grades: list[Float64] = [draws.integers(1, 5, size).astype(np.float64) for size in sizes]
        self.sizes: npt.NDArray[np.int64] = sizes

    def truth(self, graded: bool = False) -> Float64:
        truth_BI = np.zeros((USERS, NUM_ITEMS))
        for user, items in enumerate(self.targets):
            truth_BI[user, items] = self.grades[user] if graded else 1.0
        return truth_BI


@pytest.fixture(params=[1, 2])
def lists(request: pytest.FixtureRequest) -> Lists:
    return Lists(request.param)


@pytest.mark.parametrize("k", [1, 5, DEPTH])
def test_ndcg_agrees_with_scikit_learn(lists: Lists, k: int) -> None:
    from sklearn.metrics import ndcg_score

    for graded in (False, True):
        grades = lists.grades if graded else None
        hit_BK = metrics.relevance(lists.ranked_BK, lists.targets, grades)
        ours_B = metrics.ndcg(hit_BK, metrics.ideal_grades(lists.targets, grades), k)
        gain_BI = 2 ** lists.truth(graded) - 1
        theirs = [ndcg_score(gain_BI[u : u + 1], lists.scores_BI[u : u + 1], k=k) for u in range(USERS)]
        np.testing.assert_allclose(ours_B, theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("k", [1, 5, DEPTH])
def test_ndcg_and_map_agree_with_implicit(lists: Lists, k: int) -> None:
    from implicit.evaluation import ranking_metrics_at_k

    class Served:
        """Serves our lists through implicit's interface."""

        def recommend(self, users: Any, rows: Any, N: int, **_: Any) -> tuple[Any, Any]:
            return lists.ranked_BK[users][:, :N], None

    train = sp.csr_matrix((USERS, NUM_ITEMS), dtype=np.float32)
    truth = sp.csr_matrix(lists.truth().astype(np.float32))
    theirs = ranking_metrics_at_k(Served(), train, truth, K=k, show_progress=False, num_threads=1)
    hit_BK = metrics.relevance(lists.ranked_BK, lists.targets)
    ndcg = metrics.ndcg(hit_BK, metrics.ideal_grades(lists.targets), k).mean()
    assert ndcg == pytest.approx(theirs["ndcg"], abs=1e-9)
    average = metrics.average_precision(hit_BK, lists.sizes, k).mean()
    assert average == pytest.approx(theirs["map"], abs=1e-9)


@pytest.mark.parametrize("k", [1, 5, DEPTH])
def test_recall_agrees_with_scikit_learn(lists: Lists, k: int) -> None:
    from sklearn.metrics import recall_score

    listed_BI = np.zeros((USERS, NUM_ITEMS))
    np.put_along_axis(listed_BI, lists.ranked_BK[:, :k].astype(np.int64), 1.0, axis=1)
    hit_BK = metrics.relevance(lists.ranked_BK, lists.targets)
    theirs = recall_score(lists.truth(), listed_BI, average="samples")
    assert metrics.recall(hit_BK, lists.sizes, k).mean() == pytest.approx(theirs, abs=1e-9)


def test_mrr_of_single_targets_is_scikit_learns_label_ranking_precision() -> None:
    from sklearn.metrics import label_ranking_average_precision_score

    draws = np.random.default_rng(3)
    scores_BI = draws.random((50, 20))
    target_B = draws.integers(0, 20, 50)
    hit_BK = metrics.relevance(
        np.argsort(-scores_BI, axis=1).astype(np.int32), [np.array([t], np.int32) for t in target_B]
    )
    truth_BI = np.eye(20)[target_B]
    theirs = label_ranking_average_precision_score(truth_BI, scores_BI)
    assert metrics.reciprocal_rank(hit_BK, np.ones(50, np.int64)).mean() == pytest.approx(theirs, abs=1e-9)


def test_one_list_by_hand() -> None:
    # Targets 1, 2, 3; the list is 2, 9, 1, 8: hits at places 1 and 3.
    hit_BK = metrics.relevance(np.array([[2, 9, 1, 8]], np.int32), [np.array([1, 2, 3], np.int32)])
    three = np.array([3])
    assert hit_BK.tolist() == [[1, 0, 1, 0]]
    assert metrics.recall(hit_BK, three, 2)[0] == pytest.approx(1 / 3)
    assert metrics.recall(hit_BK, three, 4)[0] == pytest.approx(2 / 3)
    assert metrics.average_precision(hit_BK, three, 2)[0] == pytest.approx((1 / 1) / 2)
    assert metrics.average_precision(hit_BK, three, 4)[0] == pytest.approx((1 / 1 + 2 / 3) / 3)
    dcg, ideal = 1 / np.log2(2) + 1 / np.log2(4), 1 / np.log2(2) + 1 / np.log2(3) + 1 / np.log2(4)
    assert metrics.ndcg(hit_BK, np.ones((1, 3)), 4)[0] == pytest.approx(dcg / ideal)
    assert metrics.reciprocal_rank(hit_BK, three)[0] == 1.0


def test_graded_gain_is_two_to_the_grade_minus_one() -> None:
    grades = [np.array([1.0, 3.0])]
    targets = [np.array([4, 5], np.int32)]
    hit_BK = metrics.relevance(np.array([[4, 5]], np.int32), targets, grades)
    dcg, ideal = 1 / 1 + 7 / np.log2(3), 7 / 1 + 1 / np.log2(3)
    assert metrics.ndcg(hit_BK, metrics.ideal_grades(targets, grades), 2)[0] == pytest.approx(dcg / ideal)


def test_a_user_without_targets_has_no_value() -> None:
    hit_BK = metrics.relevance(np.array([[1, 2]], np.int32), [np.array([], np.int32)])
    none = np.array([0])
    values = [
        metrics.recall(hit_BK, none, 2),
        metrics.hit_rate(hit_BK, none, 2),
        metrics.ndcg(hit_BK, metrics.ideal_grades([np.array([], np.int32)]), 2),
        metrics.average_precision(hit_BK, none, 2),
        metrics.reciprocal_rank(hit_BK, none),
    ]
    assert all(np.isnan(value).all() for value in values)


def test_padding_and_repeats_never_count() -> None:
    ranked_BK = np.array([[5, 5, -1, -1], [-1, -1, -1, -1]], np.int32)
    hit_BK = metrics.relevance(ranked_BK, [np.array([5, 6], np.int32), np.array([7], np.int32)])
    assert hit_BK.tolist() == [[1, 0, 0, 0], [0, 0, 0, 0]]
    assert metrics.coverage(ranked_BK, 10) == 0.1
    assert np.isnan(metrics.novelty(ranked_BK, np.ones(10, np.int64), 4)[1])


def test_gini_from_even_to_one_item() -> None:
    assert metrics.gini(np.array([[0, 1], [2, 3]], np.int32), 4) == pytest.approx(0)
    assert metrics.gini(np.array([[3], [3], [3]], np.int32), 4) == pytest.approx(3 / 4)
    assert np.isnan(metrics.gini(np.full((2, 2), -1, np.int32), 4))


def test_gini_is_half_the_relative_mean_difference() -> None:
    # The definition: sum |c_i - c_j| / (2 * I**2 * mean), on counts 3, 1, 0, 0.
    count_I = np.array([3, 1, 0, 0])
    by_definition = np.abs(count_I[:, None] - count_I).sum() / (2 * 16 * count_I.mean())
    assert metrics.gini(np.array([[0, 0, 0, 1]], np.int32), 4) == pytest.approx(by_definition)


def test_novelty_counts_bits() -> None:
    num_users_I = np.array([16, 4, 0])  # of 16 users: 0 bits, 2 bits, and 4 bits where nobody counts as one
    novelty_B = metrics.novelty(np.array([[0, 1], [2, -1]], np.int32), num_users_I, 16)
    assert novelty_B.tolist() == [1.0, 4.0]


@given(
    hits_BK=arrays(np.bool_, st.tuples(st.integers(1, 5), st.integers(1, 8))),
    more=st.integers(0, 5),
    k=st.integers(1, 10),
)
def test_metrics_stay_between_0_and_1(hits_BK: npt.NDArray[np.bool_], more: int, k: int) -> None:
    relevance_BK = hits_BK.astype(np.float64)
    size_B = hits_BK.sum(axis=1) + more
    ideal_BM = (np.arange(max(size_B.max(), 1)) < size_B[:, None]).astype(np.float64)
    for value_B in (
        metrics.recall(relevance_BK, size_B, k),
        metrics.hit_rate(relevance_BK, size_B, k),
        metrics.ndcg(relevance_BK, ideal_BM, k),
        metrics.average_precision(relevance_BK, size_B, k),
        metrics.reciprocal_rank(relevance_BK, size_B),
    ):
        there = value_B[size_B > 0]
        assert ((there >= 0) & (there <= 1 + 1e-12)).all()
        assert np.isnan(value_B[size_B == 0]).all()


@given(
    ranked_BK=arrays(np.int32, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.integers(-1, 9))
)
def test_list_metrics_stay_in_range(ranked_BK: Int32) -> None:
    assert 0 <= metrics.coverage(ranked_BK, 10) <= 1
    inequality = metrics.gini(ranked_BK, 10)
    assert np.isnan(inequality) or -1e-12 <= inequality <= 0.9 + 1e-12


def test_calibration_error_weighs_bins_by_their_size() -> None:
    # 5 in 2 bins: the lower 3 of mean .2 and label 1/3, the upper 2 of mean .7 and label 1
    probability_N = np.array([0.9, 0.1, 0.3, 0.2, 0.5])
    label_N = np.array([1, 0, 0, 1, 1])
    error = metrics.expected_calibration_error(probability_N, label_N, num_bins=2)
    assert error == pytest.approx(3 / 5 * (1 / 3 - 0.2) + 2 / 5 * (1 - 0.7))


def test_equal_probabilities_are_not_torn_apart() -> None:
    label_N = np.repeat([1, 0], [20, 60])  # in order: bins by place would hold all of one label
    assert metrics.expected_calibration_error(np.full(80, 0.25), label_N) == pytest.approx(0)
    assert metrics.expected_calibration_error(np.full(80, 0.75), label_N) == pytest.approx(0.5)


def test_no_predictions_have_no_calibration_error() -> None:
    assert np.isnan(metrics.expected_calibration_error(np.empty(0), np.empty(0)))


@given(
    probability_N=arrays(np.float64, st.integers(1, 40), elements=st.floats(0, 1)),
    seed=st.integers(0, 5),
    num_bins=st.integers(1, 20),
)
def test_calibration_error_is_between_the_bias_and_the_mean_distance(
    probability_N: npt.NDArray[np.float64], seed: int, num_bins: int
) -> None:
    label_N = np.random.default_rng(seed).integers(0, 2, len(probability_N))
    error = metrics.expected_calibration_error(probability_N, label_N, num_bins)
    gap_N = probability_N - label_N
    assert abs(gap_N.mean()) - 1e-9 <= error <= np.abs(gap_N).mean() + 1e-9


def test_lists_are_as_unlike_as_their_tags_are() -> None:
    """Tags ab, bc, none: the first pair shares 1 of 3, the others nothing: 1 - (1/3 + 0 + 0) / 3 = 8/9."""
    tags = [["a", "b"], ["b", "c"], []]
    items = pa.table({"title": ["x", "y", "z"], "category": ["", "", ""], "tags": tags})
    alike = metrics.tag_similarity(ItemTraits.from_items(items))
    lists = np.array([[0, 1, 2], [0, 1, -1], [2, -1, -1]], np.int32)
    found = metrics.intra_list_diversity(lists, alike)
    assert found[:2].tolist() == pytest.approx([8 / 9, 2 / 3])
    assert np.isnan(found[2])


def test_a_tag_that_an_item_names_twice_counts_once_and_leaves_the_traits_as_they_are() -> None:
    tags = [["a", "a", "b"], ["b", "c", "c"], ["a"]]
    traits = ItemTraits.from_items(pa.table({"title": ["x"] * 3, "category": [""] * 3, "tags": tags}))
    before = (traits.tags.code_V.tolist(), traits.tags.offsets_I1.tolist())
    one, other = np.array([0, 0, 1], np.int32), np.array([1, 2, 2], np.int32)
    for _ in range(2):
        # a b against b c: 1 of 3; a b against a: 1 of 2; b c against a: none.
        assert metrics.tag_similarity(traits)(one, other).tolist() == pytest.approx([1 / 3, 1 / 2, 0])
        assert (traits.tags.code_V.tolist(), traits.tags.offsets_I1.tolist()) == before


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcd"), max_size=4, unique=True), min_size=2, max_size=8))
def test_similarity_by_tags_is_symmetric_and_in_range(tags: list[list[str]]) -> None:
    num = len(tags)
    items = pa.table(
        {
            "title": [""] * num,
            "category": [""] * num,
            "tags": pa.array(tags, pa.list_(pa.string())),
        }
    )
    one, other = (places.ravel().astype(np.int32) for places in np.indices((num, num)))
    alike = metrics.tag_similarity(ItemTraits.from_items(items))(one, other).reshape(num, num)
    assert (alike == alike.T).all()
    assert ((alike >= 0) & (alike <= 1)).all()
    assert np.diag(alike).tolist() == [1.0 if own else 0.0 for own in tags]


@pytest.mark.parametrize("num_tags", [1, 63, 64, 65, 200])
def test_tags_as_bits_and_as_a_sparse_matrix_say_the_same(
    num_tags: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = np.random.default_rng(num_tags)
    tags = [[f"t{tag}" for tag in draws.integers(0, num_tags, draws.integers(0, 9))] for _ in range(60)]
    tags[0] = [f"t{tag}" for tag in range(num_tags)]  # so that the last bit of a word is one
    traits = ItemTraits.from_items(pa.table({"title": [""] * 60, "category": [""] * 60, "tags": tags}))
    one, other = (places.ravel().astype(np.int32) for places in np.indices((60, 60)))
    by_bits = metrics.tag_similarity(traits)(one, other)
    monkeypatch.setattr(metrics, "_FEW_TAGS", 0)
    assert by_bits.tolist() == metrics.tag_similarity(traits)(one, other).tolist()
    by_hand = [
        len({*tags[a]} & {*tags[b]}) / max(len({*tags[a]} | {*tags[b]}), 1)
        for a, b in zip(one, other, strict=True)
    ]
    assert by_bits.tolist() == pytest.approx(by_hand)


@given(
    lists_BK=arrays(np.int32, st.tuples(st.integers(0, 5), st.integers(1, 6)), elements=st.integers(-1, 9)),
    seed=st.integers(0, 9),
    cells=st.sampled_from([1, 7, 2**21]),
)
def test_relevance_is_the_grade_of_an_items_first_place(lists_BK: Int32, seed: int, cells: int) -> None:
    draws = np.random.default_rng(seed)
    targets = [draws.permutation(10)[: draws.integers(0, 6)].astype(np.int32) for _ in lists_BK]
    grades = [draws.random(len(items)) for items in targets]
    expected = np.zeros(lists_BK.shape)
    for row, (items, grade_M) in enumerate(zip(targets, grades, strict=True)):
        for item, grade in zip(items, grade_M, strict=True):
            if item in lists_BK[row]:
                expected[row, lists_BK[row].tolist().index(item)] = grade
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "CELLS_AT_ONCE", cells)
        assert metrics.relevance(lists_BK, targets, grades).tolist() == expected.tolist()
