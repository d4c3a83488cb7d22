"""What each feature adds to a ranker's score, where the answer is known: linear models, products, trees of one feature."""

import numpy as np
import pytest
import torch

from tastemaker.errors import DataError
from tastemaker.features.ranking_batch import POSITION, Bag
from tastemaker.models.contributions import TOLERANCE, Contributions
from tastemaker.models.ctr.contributions import network_contributions
from tastemaker.models.ctr.fields import Categorical, Fields, Multi, Rows
from tastemaker.models.ctr.kinds import fit
from tastemaker.models.ctr.lambdamart import _columns
from tastemaker.models.ctr.model import Labelled
from tastemaker.models.dlrm import Dlrm, DlrmConfig
from tastemaker.models.expected_gradients import expected_gradients

FIELDS = Fields(
    categorical=(Categorical(name="year", num_values=3), Categorical(name="item", num_values=9)),
    multi=(Multi(name="tags", num_values=4), Multi(name="history", num_values=9, like="item")),
    dense=("price", "age"),
)


def request_rows(num: int = 30, seed: int = 3) -> Rows:
    """Of one request: all have its history, and some of the history's items are candidates."""
    draws = np.random.default_rng(seed)
    return Rows.of(
        FIELDS,
        {
            "year": draws.integers(0, 4, num), "item": np.arange(num) % 9 + 1,
            "tags": [draws.choice(4, size, replace=False) + 1 for size in draws.integers(0, 3, num)],
            "history": [[2, 5]] * num, "price": draws.normal(5.0, 2.0, num), "age": draws.normal(size=num),
        },
        np.zeros(num, np.int64),
    )  # fmt: skip


def learned(rows: Rows) -> Labelled:
    draws = np.random.default_rng(1)
    return Labelled.of(rows, draws.random(len(rows)) < 0.4)


def test_a_linear_models_weights_are_what_its_numbers_add():
    rows = request_rows()
    model = fit("lr", learned(rows), {"fit": {"epochs": 40, "learning_rate": 0.1}})
    told = model.contributions(rows, 4)
    tensors = model.tensors()
    standard_NF = (rows.dense_NF - tensors["vectors.mean_F"]) / tensors["vectors.scale_F"]
    expected_F = tensors["vectors.dense_weight"] * (standard_NF[4] - standard_NF.mean(0))
    assert told.by_feature["price"] == pytest.approx(expected_F[0], abs=1e-5)
    assert told.by_feature["age"] == pytest.approx(expected_F[1], abs=1e-5)
    # Rows of the table: three years and what is unknown come first.
    year_N = tensors["vectors.table"][rows.categorical_NC[:, 0], 0]
    assert told.by_feature["year"] == pytest.approx(year_N[4] - year_N.mean(), abs=1e-5)
    assert told.by_feature["history"] == 0
    assert told.rest == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("kind", ["fm", "deepfm", "dcn-v2", "din"])
@pytest.mark.parametrize("lazy_above_rows", [0, 500_000])
def test_whatever_table_a_network_has_its_contributions_add_up(kind, lazy_above_rows):
    rows = request_rows()
    settings = {"dim": 4, "fit": {"epochs": 20, "learning_rate": 0.05, "lazy_above_rows": lazy_above_rows}}
    model = fit(kind, learned(rows), settings | ({} if kind == "fm" else {"hidden": [8]}))
    score_N = model.scores(rows)
    for at in (0, 7):
        told = model.contributions(rows, at)
        assert told.output == pytest.approx(score_N[at], abs=1e-4)
        assert told.base == pytest.approx(score_N.mean(), abs=1e-4)
        assert abs(told.rest) <= TOLERANCE * max(1.0, abs(told.output - told.base))


def test_contributions_are_asked_without_changing_the_model_or_its_gradients():
    rows = request_rows()
    model = fit("deepfm", learned(rows), {"dim": 4, "hidden": [8], "fit": {"epochs": 3}})
    before = {name: value.copy() for name, value in model.tensors().items()}
    for weight in model._network.parameters():
        weight.grad = None
    network_contributions(model._network, rows, 0)
    assert all(np.array_equal(value, before[name]) for name, value in model.tensors().items())
    assert all(weight.grad is None for weight in model._network.parameters())


def test_of_a_product_each_factor_adds_half_of_what_both_add():
    inputs = torch.tensor([[2.0, 3.0], [0.0, 0.0]])
    told = expected_gradients(lambda row: row[:, 0] * row[:, 1], inputs, ["a", "b"], 0)
    # From (0, 0) to (2, 3) the product goes from 0 to 6, and in the mean over both rows that is 3: of each half.
    assert told.by_feature == pytest.approx({"a": 1.5, "b": 1.5})
    assert (told.base, told.rest) == (3.0, 0.0)


def test_points_are_added_until_little_is_left():
    inputs = torch.tensor([[1.0], [0.0]])
    asked = []

    def step(row: torch.Tensor) -> torch.Tensor:
        asked.append(len(row))
        return torch.relu(row[:, 0] - 0.97) * 100.0

    told = expected_gradients(step, inputs, ["a"], 0)
    assert len(asked) > 2  # the step ends behind the last of eight points
    assert told.by_feature["a"] == pytest.approx(1.5, abs=0.2)
    assert told.output == pytest.approx(3.0, abs=1e-4)


def test_points_that_were_asked_are_not_asked_again_and_count_as_the_others_do():
    inputs = torch.tensor([[1.0], [0.0]])
    asked: list[float] = []

    def bent(row: torch.Tensor) -> torch.Tensor:
        if row.requires_grad:
            asked.extend(row.detach()[row[:, 0] < 1, 0].tolist())  # of the way from 0
        return 100 * torch.relu(row[:, 0] - 0.93) ** 2

    told = expected_gradients(bent, inputs, ["a"], 0)
    assert len(asked) > 8
    steps = len(asked)
    assert sorted(asked) == pytest.approx([(step + 0.5) / steps for step in range(steps)])
    middles = sum(200 * max(0.0, point - 0.93) for point in asked) / steps
    assert told.by_feature["a"] == pytest.approx(middles / 2, abs=1e-4)


def test_what_the_last_points_leave_is_said_and_logged(caplog):
    inputs = torch.tensor([[1.0], [0.0]])
    told = expected_gradients(lambda row: torch.relu(row[:, 0] - 0.999) * 1e4, inputs, ["a"], 0)
    assert not told.is_explained
    assert told.output == pytest.approx(10.0, abs=1e-2)
    assert [record.message for record in caplog.records] == ["contributions leave 5 of 5 unexplained"]


@pytest.mark.parametrize("num", [227, 2000])
def test_however_many_rows_compete_the_work_is_bounded_and_their_mean_is_met(num):
    draws = np.random.default_rng(4)
    inputs = torch.from_numpy(draws.normal(size=(num, 2)).astype(np.float32))
    asked = []

    def output(row: torch.Tensor) -> torch.Tensor:
        asked.append(len(row))
        return torch.relu(row[:, 0] - 1.9) * 50 + row[:, 1]  # few points do not do

    told = expected_gradients(output, inputs, ["a", "b"], 7, largest=50)
    assert max(asked) <= 4096 // 50
    assert sum(asked) <= num + 16384
    all_N = output(inputs).numpy()
    assert told.output == pytest.approx(float(all_N[7]), abs=1e-3)
    assert told.base == pytest.approx(float(all_N.mean()), abs=0.02 * float(all_N.std()))
    assert told == expected_gradients(output, inputs, ["a", "b"], 7, largest=50)


@pytest.mark.parametrize("kind", ["deepfm", "din"])
def test_passes_over_long_histories_are_of_fewer_rows(kind):
    rows = request_rows()
    model = fit(kind, learned(rows), {"dim": 4, "hidden": [8], "fit": {"epochs": 3}})
    entries = []
    model._network.register_forward_pre_hook(
        lambda _, batch: entries.append(len(batch[0].bags["history"].row_V))
    )
    columns = {"year": [1, 2] * 30, "item": [1, 2, 3] * 20, "price": [3.0] * 60, "age": [0.5] * 60}
    long = {"tags": [[1]] * 60, "history": [[2, 5] * 150] * 60}
    told = model.contributions(Rows.of(FIELDS, columns | long), 1)
    # At least the points of one way are asked at once: 8, or what 24 and 72 add.
    assert max(entries) <= max(4096, 48 * 300)
    assert told.output == pytest.approx(float(model.scores(Rows.of(FIELDS, columns | long))[1]), abs=1e-4)


def test_a_network_that_weighs_histories_explains_rows_of_one_history_alone():
    rows = request_rows()
    two = Rows.of(
        FIELDS,
        {
            "year": [1, 1], "item": [2, 3], "tags": [[1], [2]], "history": [[2, 5], [5]], "price": [1.0, 2.0],
            "age": [0.0, 0.0],
        },
    )  # fmt: skip
    settings = {"dim": 4, "hidden": [8], "fit": {"epochs": 3}}
    with pytest.raises(DataError, match="rows whose history differs', must be one history"):
        fit("din", learned(rows), settings).contributions(two, 0)
    mean = fit("deepfm", learned(rows), settings)
    assert mean.contributions(two, 0).output == pytest.approx(float(mean.scores(two)[0]), abs=1e-4)


def test_trees_tell_of_a_field_of_many_what_its_values_add_together():
    rows = request_rows(300)
    model = fit("lambdamart", learned(rows), {"num_trees": 5, "min_rows": 5, "num_threads": 1})
    of_column_KX = model._booster.predict(_columns(rows), num_threads=1, pred_contrib=True).toarray()
    told = model.contributions(rows, 3).by_feature
    centred_X = (of_column_KX[3] - of_column_KX.mean(0))[:-1]
    # Year, item, price, age; tags and what is unknown; history and what is unknown.
    parts = np.split(centred_X, [1, 2, 3, 4, 9])
    for name, part in zip(("year", "item", "price", "age", "tags", "history"), parts, strict=True):
        assert told[name] == pytest.approx(part.sum(), abs=1e-9), name
    assert abs(told["tags"]) > 0


def test_trees_that_read_one_number_say_that_it_does_all():
    num = 400
    draws = np.random.default_rng(0)
    fields = Fields(categorical=(Categorical(name="year", num_values=3),), dense=("price", "noise"))
    price_N = draws.normal(size=num)
    rows = Rows.of(
        fields, {"year": np.full(num, 2), "price": price_N, "noise": np.zeros(num)}, np.repeat(np.arange(20), 20)
    )  # fmt: skip
    model = fit("lambdamart", Labelled.of(rows, price_N > 0.5), {"num_trees": 5, "num_threads": 1})
    one = rows.take(np.arange(20))
    score_N = model.scores(one)
    for at in (int(np.argmax(score_N)), int(np.argmin(score_N))):
        told = model.contributions(one, at)
        assert told.by_feature["price"] == pytest.approx(score_N[at] - score_N.mean(), abs=1e-5)
        assert (told.by_feature["year"], told.by_feature["noise"]) == (0, 0)
        assert told.rest == pytest.approx(0, abs=1e-5)


def test_shapley_values_of_two_numbers_that_add_up_are_each_ones_own():
    """Of a sum of functions of one number each, Shapley values are these functions less their means [Shapley 1953]."""
    num = 4000
    draws = np.random.default_rng(2)
    fields = Fields(dense=("a", "b"))
    value_NF = draws.integers(0, 2, (num, 2)).astype(float)
    rows = Rows.of(fields, {"a": value_NF[:, 0], "b": value_NF[:, 1]}, np.repeat(np.arange(200), 20))
    chance_N = 1 / (1 + np.exp(-(2.0 * value_NF[:, 0] + 0.7 * value_NF[:, 1] - 2)))
    model = fit(
        "lambdamart", Labelled.of(rows, draws.random(num) < chance_N), {"num_trees": 40, "num_threads": 1}
    )
    four = Rows.of(fields, {"a": [0.0, 0.0, 1.0, 1.0], "b": [0.0, 1.0, 0.0, 1.0]}, np.zeros(4, np.int64))
    score_N = model.scores(four).astype(float)
    told = model.contributions(four, 3)
    # The mean over both orders in which a and b can come, over four rows that are as likely: by hand for two players.
    own_a = ((score_N[3] - score_N[1]) + (score_N[2] - score_N[0])) / 4
    own_b = ((score_N[3] - score_N[2]) + (score_N[1] - score_N[0])) / 4
    assert told.by_feature["a"] == pytest.approx(own_a, rel=0.1)
    assert told.by_feature["b"] == pytest.approx(own_b, rel=0.1)
    assert told.by_feature["a"] + told.by_feature["b"] == pytest.approx(score_N[3] - score_N.mean(), abs=1e-5)


def test_the_dlrms_contributions_add_up_and_what_the_request_says_adds_nothing():
    torch.manual_seed(0)
    config = DlrmConfig(
        dense_features=("a", "b"), num_tags=6, num_years=3, num_categories=2, embedding_dim=4,
        context=("hours",), position=True, targets=("click", "like"),
    )  # fmt: skip
    model = Dlrm(config).eval()
    for weight in model.parameters():
        weight.data.normal_(0, 0.5)
    num, draws = 12, np.random.default_rng(5)
    dense_KF = draws.normal(size=(num, 2)).astype(np.float32)
    dense_KF[3] = 40.0  # beyond what counts
    one = {
        name: Bag.singles(draws.integers(0, 2, 1))
        for name in ("recent_years", "recent_categories", "query_hours")
    }
    one["recent_tags"] = Bag(np.array([1, 4]), np.array([2]), np.array([0.5, 0.5], np.float32))
    own = {
        name: Bag.singles(draws.integers(0, 2, num))
        for name in ("item_tags", "item_years", "item_categories")
    }
    bags = {**one, **own, POSITION: Bag.singles(np.zeros(1, np.int64))}
    logit_K = model.logits(dense_KF, bags)[:, 0]
    for at in (0, 3):
        told = model.contributions(dense_KF, bags, at)
        assert told.output == pytest.approx(logit_K[at], abs=1e-4)
        assert told.base == pytest.approx(logit_K.mean(), abs=1e-4)
        assert abs(told.rest) <= TOLERANCE * max(1.0, abs(told.output - told.base))
        assert all(told.by_feature[name] == 0 for name in one)
        assert all(told.by_feature[name] != 0 for name in own)
        assert POSITION not in told.by_feature


def test_scaling_keeps_the_sum():
    told = Contributions(0.5, {"a": 1.0, "b": -0.25}, 0.001)
    assert told.scaled(2.0, -1.0).output == pytest.approx(2.0 * told.output - 1.0)


def test_a_row_that_is_not_there_is_refused():
    rows = request_rows(3)
    model = fit("lr", learned(rows), {"fit": {"epochs": 1}})
    with pytest.raises(DataError, match="row to explain, is 3, must be 0 to 2"):
        model.contributions(rows, 3)
