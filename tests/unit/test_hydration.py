import numpy as np
import pytest

from tastemaker.errors import ConfigError
from tastemaker.features.columns import FeatureSchema, ItemColumns
from tastemaker.features.ranking_items import RankingItems
from tastemaker.features.request_features import REQUEST_FEATURES
from tastemaker.models.popularity import Popularity, PopularityConfig
from tastemaker.stages.hydration import Hydration, HydrationConfig, feature_names, log_ranks
from tastemaker.types import Candidates, Query

NAN = float("nan")
COUNTS = np.array([0, 1, 3, 7, 1], np.float32)
POPULARITY = Popularity(PopularityConfig(num_items=5), COUNTS, COUNTS / 2, np.zeros((0, 5), bool))
VECTORS = np.array([[1, 0], [0, 1], [0.6, 0.8], [-1, 0], [0, -1]], np.float32)


def items() -> RankingItems:
    """Five items: tags a = {0}, b = {1}, c = {0, 1}, d = {}, e = {2}; years 1990, 2000, 2010, unknown, 1980."""
    schema = FeatureSchema(
        num_items=5, tags=("p", "q", "r"), categories=("x", "y"), first_year=1980, last_year=2010
    )
    return RankingItems(
        ItemColumns(
            schema,
            tag_offsets_I1=np.array([0, 1, 2, 4, 4, 5]),
            tags_V=np.array([0, 1, 0, 1, 2], np.int32),
            year_I=np.array([1990, 2000, 2010, NAN, 1980], np.float32),
            year_row_I=np.array([1, 2, 3, 0, 1], np.int32),
            category_row_I=np.array([1, 2, 1, 0, 2], np.int32),
        )
    )


def hydration(**config: float) -> Hydration:
    return Hydration(items(), POPULARITY, VECTORS, ("x", "y"), HydrationConfig(**config))


def candidates(rows: list[int], scores: list[list[float]]) -> Candidates:
    index = np.array(rows, np.int32)
    score = np.array(scores, np.float32).reshape(len(rows), -1)
    return Candidates(index, np.zeros(len(rows), np.float32), np.ones(len(rows), np.uint32), score)


def features(history: list[int], found: Candidates, **config: float) -> dict[str, list[float]]:
    stage = hydration(**config)
    [out] = stage([Query(np.array(history, np.int32))], [found])
    assert out.features_KF is not None
    return {name: out.features_KF[:, i].tolist() for i, name in enumerate(stage.feature_names)}


def close(*values: float) -> object:
    return pytest.approx(list(values), abs=1e-6)  # float32


def test_sources_become_z_scores_and_ranks_within_the_request() -> None:
    got = features([], candidates([0, 1, 2], [[1, NAN], [2, NAN], [3, NAN]]))
    deviation = (2 / 3) ** 0.5
    assert got["x_z"] == close(-1 / deviation, 0, 1 / deviation)
    assert got["x_log_rank"] == close(-np.log(3), -np.log(2), 0)
    assert got["y_z"] == [0, 0, 0]


def test_ties_rank_in_the_order_given() -> None:
    assert np.exp(-log_ranks(np.array([[5.0], [5.0], [6.0]], np.float32))).ravel().tolist() == close(2, 3, 1)


def test_candidates_without_a_score_share_the_last_rank() -> None:
    scores = np.array([[NAN, NAN], [5.0, NAN], [NAN, NAN]], np.float32)
    assert np.exp(-log_ranks(scores)).ravel().tolist() == close(2, 1, 1, 1, 2, 1)


def test_counters_are_those_of_the_fit() -> None:
    got = features([], candidates([2, 3], [[0, 0], [0, 0]]))
    assert got["log_count"] == close(np.log(4), np.log(8))
    assert got["log_trending"] == close(np.log(2.5), np.log(4.5))


def test_without_history_what_compares_with_it_is_zero() -> None:
    got = features([], candidates([2, 3], [[0, 0], [0, 0]]))
    assert {name for name, values in got.items() if any(values)} == {
        "x_log_rank",
        "y_log_rank",
        "log_count",
        "log_trending",
    }


def test_history_features_by_hand() -> None:
    """History: item 0, then item 4, half-life 1: weights 1/3 and 2/3."""
    got = features([0, 4], candidates([1, 2, 3], [[0, 0]] * 3), half_life=1.0)
    # idf: tags 0 and 1 are on 2 of 5 items, tag 2 on one. Item 2 is (1, 1, 0) / sqrt 2, the history (1/3, 0, 2/3).
    assert got["tags_recent"] == close(0, (1 / 3) / 2**0.5 / (5**0.5 / 3), 0)
    assert got["tags_all"] == close(0, 0.5, 0)  # the history is (1, 0, 1) / sqrt 2
    # mean year 1990/3 + 1980*2/3 = 1983 1/3; 2000 and 2010 lie 1 2/3 and 2 2/3 decades off
    assert got["years_from_recent"] == pytest.approx([5 / 3, 8 / 3, 0], abs=1e-4)  # float32 near 2000
    # items 1, 2, 3 against (1, 0) and (0, -1): (0, -1), (.6, -.8), (-1, 0)
    assert got["similarity_max"] == close(0, 0.6, 0)
    assert got["similarity_mean"] == close(-0.5, -0.1, -0.5)
    assert got["similarity_last"] == close(-1, -0.8, 0)
    assert got["log_history_length"] == close(*[np.log(3)] * 3)
    assert got["history_log_count"] == close(*[np.log(2) * 2 / 3] * 3)  # counts 0 and 1


def test_only_the_newest_of_the_history_is_read() -> None:
    found = candidates([2], [[0, 0]])
    assert features([1, 1, 4, 0], found, max_history=2) == features([4, 0], found)


def test_features_keep_their_names_and_order() -> None:
    assert feature_names(("x", "y")) == (
        "x_z", "y_z", "x_log_rank", "y_log_rank", "log_count", "log_trending",
        "tags_recent", "tags_all", "years_from_recent", "similarity_max", "similarity_mean", "similarity_last",
        "log_history_length", "history_log_count",
    )  # fmt: skip


def test_request_features_follow_the_others_as_the_config_names_them() -> None:
    asked: list[tuple[int, list[int]]] = []

    def numbered(query: Query, item_index: np.ndarray) -> np.ndarray:
        asked.append((query.now_ms, item_index.tolist()))
        return 100.0 * item_index[:, None] + np.arange(len(REQUEST_FEATURES), dtype=np.float32)

    wanted = ("refused", "item_price")
    base = hydration()
    stage = Hydration(
        items(), POPULARITY, VECTORS, ("x", "y"), HydrationConfig(request_features=wanted), numbered
    )
    price, refused = (REQUEST_FEATURES.index(name) for name in ("item_price", "refused"))
    assert stage.feature_names == (*base.feature_names, "item_price", "refused")
    assert stage.feature_names == feature_names(("x", "y"), wanted)
    query, found = Query(np.array([0], np.int32), now_ms=7), candidates([2, 3], [[1, 5], [2, 4]])
    [out], [plain] = stage([query], [found]), base([query], [found])
    assert out.features_KF is not None
    assert plain.features_KF is not None
    assert out.features_KF[:, -2:].tolist() == [[200 + price, 200 + refused], [300 + price, 300 + refused]]
    assert out.features_KF[:, :-2].tolist() == plain.features_KF.tolist()
    assert asked == [(7, [2, 3])]


def test_an_unknown_request_feature_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"request_features.*'itme' is no feature of a request"):
        HydrationConfig.parse({"request_features": ["itme"]}, "here")


def test_one_query_gives_what_a_batch_gives() -> None:
    stage = hydration()
    queries = [Query(np.array(h, np.int32)) for h in ([0, 4], [], [1, 2, 3])]
    found = [candidates([2, 3], [[1, 5], [2, 4]]), Candidates.empty(2), candidates([0], [[1, NAN]])]
    together = stage(queries, found)
    for query, one, out in zip(queries, found, together, strict=True):
        assert np.array_equal(stage([query], [one])[0].features_KF, out.features_KF)


def test_bags_of_candidates_and_history_by_hand() -> None:
    weights = np.array([0.25, 0.75], np.float32)
    bags = items().item_bags(np.array([2, 3], np.int32))
    bags |= items().history_bags(np.array([0, 2], np.int32), weights)
    # item 2 has tags 0 and 1, half each; item 3 none
    assert [array.tolist() for array in bags["item_tags"]] == [[0, 1], [2, 0], [0.5, 0.5]]
    # history: tag 0 from item 0 (.25) and half of item 2 (.375); tag 1 the other half
    assert [array.tolist() for array in bags["recent_tags"]] == [[0, 1], [2], [0.625, 0.375]]
    assert [array.tolist() for array in bags["item_years"]] == [[3, 0], [1, 1], [1, 1]]
    assert [array.tolist() for array in bags["recent_years"]] == [[1, 3], [2], [0.25, 0.75]]
    assert [array.tolist() for array in bags["recent_categories"]] == [[1], [1], [1]]
