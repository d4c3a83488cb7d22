import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.errors import CompatibilityError, ConfigError
from tastemaker.features.columns import FeatureSchema, ItemColumns
from tastemaker.features.ranking_items import RankingItems
from tastemaker.models.calibration import Calibration
from tastemaker.models.dlrm import Dlrm, DlrmConfig
from tastemaker.models.tables import jagged
from tastemaker.stages.ranking import Ranking, RankingConfig, candidate_bags
from tastemaker.types import Candidates, Query

NOON = 1764547200000 + 12 * 3_600_000  # of 1 December 2025, a Monday


def items() -> RankingItems:
    schema = FeatureSchema(num_items=3, tags=("p",), categories=())
    zeros = np.zeros(3, np.int32)
    return RankingItems(
        ItemColumns(
            schema, np.zeros(4, np.int64), np.empty(0, np.int32), np.full(3, np.nan, np.float32), zeros, zeros
        )
    )


def candidates() -> Candidates:
    """Items 0, 1 and 2, whose features are their own row."""
    rows, zeros = np.arange(3, dtype=np.int32), np.zeros(3, np.float32)
    return Candidates(rows, zeros, np.ones(3, np.uint32), zeros[:, None], np.eye(3, dtype=np.float32))


def shape(**more: object) -> DlrmConfig:
    return DlrmConfig.parse(
        {"dense_features": ["a", "b", "c"], "num_tags": 1, "num_years": 2, "num_categories": 1} | more, "test"
    )


def ranker(logits: list[list[float]], **more: object) -> Dlrm:
    """Gives each of the three items the logits of its row, one for each target."""
    model = Dlrm(shape(**more))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.wide.weight.copy_(torch.tensor(logits).T)
    return model


def scores(ranking: Ranking, query: Query | None = None) -> dict[int, float]:
    [found] = ranking([query or Query(np.empty(0, np.int32))], [candidates()])
    assert found.score.tolist() == sorted(found.score.tolist(), reverse=True)
    return dict(zip(found.item_index.tolist(), found.score.tolist(), strict=True))


def sigmoid(z: float) -> float:
    return float(1 / (1 + np.exp(-z)))


def close(*values: float) -> object:
    return pytest.approx(dict(enumerate(values)), abs=1e-6)  # float32


def test_the_score_is_the_calibrated_probability_of_a_click() -> None:
    model = ranker([[0.0, 9.0], [1.0, 9.0], [-1.0, 9.0]], targets=["click", "like"])
    found = scores(Ranking(model, Calibration(slope=2.0, intercept=1.0), items(), ("a", "b", "c")))
    assert found == close(sigmoid(1), sigmoid(3), sigmoid(-1))


def test_the_score_is_a_weighted_mean_of_what_each_target_is_expected_to_be() -> None:
    model = ranker([[0.0, 0.0, 2.0], [1.0, 0.0, -3.0], [0.0, 2.0, 0.0]], targets=["click", "like", "watch"])
    config = RankingConfig(score_weights={"click": 1.0, "like": 0.5, "watch": 0.5})
    calibration = Calibration(others={"like": Calibration(slope=3.0)})
    found = scores(Ranking(model, calibration, items(), ("a", "b", "c"), config))
    # watch: the probability of a click times the log of 1 + seconds, which is never below 0
    assert found == close(
        (0.5 + 0.5 * 0.5 + 0.5 * 0.5 * 2) / 2, (sigmoid(1) + 0.5 * 0.5) / 2, (0.5 + 0.5 * sigmoid(6)) / 2
    )


def test_a_weight_of_what_is_not_predicted_is_refused() -> None:
    config = RankingConfig(score_weights={"click": 1.0, "purchase": 1.0})
    with pytest.raises(
        CompatibilityError, match=r"target purchase of ranking\.score_weights, is 'not predicted'"
    ):
        Ranking(Dlrm(shape()), Calibration(), items(), ("a", "b", "c"), config)


@pytest.mark.parametrize("weights", [{}, {"click": 0.0}, {"click": 1.0, "like": -1.0}])
def test_weights_are_positive(weights: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="at least one target, each with a weight over 0"):
        RankingConfig.parse({"score_weights": weights}, "test")


def test_ranking_configs_of_the_previous_release_load() -> None:
    assert RankingConfig.parse({"half_life": 5.0, "recent": 10}, "test") == RankingConfig()


def test_time_and_device_of_a_request_reach_the_model() -> None:
    torch.manual_seed(0)
    model = Dlrm(shape(context=["hours", "devices"]))
    ranking = Ranking(model, Calibration(), items(), ("a", "b", "c"))
    empty = np.empty(0, np.int32)
    plain = scores(ranking, Query(empty, now_ms=NOON))
    assert scores(ranking, Query(empty, now_ms=NOON, context={"device": "tv"})) != plain
    assert scores(ranking, Query(empty, now_ms=NOON + 3_600_000)) != plain
    assert scores(ranking, Query(empty, now_ms=NOON + 86_400_000)) == plain  # it does not read weekdays


def test_bags_of_context_are_those_of_the_request_for_each_candidate() -> None:
    bags = candidate_bags(items(), Query(np.empty(0, np.int32), now_ms=NOON), candidates(), RankingConfig())
    assert {name: bag.values.tolist() for name, bag in bags.items() if name.startswith("query_")} == {
        "query_hours": [13] * 3,
        "query_weekdays": [1] * 3,
        "query_seasons": [1] * 3,
        "query_devices": [0] * 3,
    }


@given(
    num=st.integers(1, 30),
    history=st.lists(st.integers(0, 39), max_size=15, unique=True),
    device=st.sampled_from(["", "tv", "mobile"]),
    context=st.sampled_from([(), ("hours",), ("hours", "weekdays", "seasons", "devices")]),
    position=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_looking_the_request_up_once_gives_what_a_bag_for_each_candidate_does(
    num: int, history: list[int], device: str, context: tuple[str, ...], position: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    lengths = random.integers(0, 4, 40)
    schema = FeatureSchema(num_items=40, tags=("p", "q", "r"), categories=("x",), last_year=1980)
    columns = ItemColumns(
        schema, np.concatenate([[0], np.cumsum(lengths)]), random.integers(0, 3, lengths.sum()).astype(np.int32),
        np.full(40, np.nan, np.float32), random.integers(0, schema.num_years, 40).astype(np.int32),
        random.integers(0, 2, 40).astype(np.int32),
    )  # fmt: skip
    many, config = RankingItems(columns), RankingConfig()
    sizes = {name: getattr(schema, name) for name in ("num_tags", "num_years", "num_categories")}
    torch.manual_seed(seed)
    model = Dlrm(shape(context=context, position=position, **sizes)).eval()
    rows = random.permutation(40)[:num].astype(np.int32)
    zeros, features = np.zeros(num, np.float32), random.normal(size=(num, 3)).astype(np.float32)
    found = Candidates(rows, zeros, np.ones(num, np.uint32), zeros[:, None], features)
    query = Query(np.array(history, np.int32), now_ms=NOON, context={"device": device})
    with torch.inference_mode():
        logits = model(torch.from_numpy(features), jagged(candidate_bags(many, query, found, config)))
    wanted = found.with_score(Calibration()(logits.numpy()[:, 0]))
    [ranked] = Ranking(model, Calibration(), many, ("a", "b", "c"), config)([query], [found])
    assert ranked.score.tolist() == sorted(ranked.score.tolist(), reverse=True)
    of_item = [
        dict(zip(slate.item_index.tolist(), slate.score.tolist(), strict=True)) for slate in (ranked, wanted)
    ]
    assert of_item[0] == pytest.approx(of_item[1], abs=1e-6)


def test_positions_are_rows_up_to_the_last_and_none_when_serving() -> None:
    query, config = Query(np.empty(0, np.int32)), RankingConfig()
    shown = candidate_bags(items(), query, candidates(), config, position_K=np.array([1, 0, 70]))
    assert shown["position"].values.tolist() == [1, 0, 50]
    assert candidate_bags(items(), query, candidates(), config)["position"].values.tolist() == [0, 0, 0]


def test_a_model_with_positions_serves_without() -> None:
    torch.manual_seed(0)
    model = Dlrm(shape(position=True))
    ranking = Ranking(model, Calibration(), items(), ("a", "b", "c"))
    before = scores(ranking)
    with torch.no_grad():
        model.get_parameter("tables.embedding_bags.positions.weight")[1:] += 1.0
    assert scores(ranking) == before
