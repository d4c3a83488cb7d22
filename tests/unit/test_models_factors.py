"""Factor models: values worked out by hand, and what their equations promise."""

import numpy as np
import pytest
import scipy.sparse as sp

from tastemaker.errors import CompatibilityError, DataError
from tastemaker.models import zoo
from tastemaker.models.factors.descent import Penalties, fill_slopes
from tastemaker.models.factors.ials import Ials, IalsConfig
from tastemaker.models.factors.neumf import NeuMf
from tastemaker.models.factors.nmf import _guessed, _updated
from tastemaker.models.factors.sampling import Untaken
from tastemaker.models.factors.strangers import HistoryMap
from tastemaker.models.log import NOBODY, Askers, Log
from tastemaker.testing.worlds import Stars, Tastes


def rows(*items: int) -> np.ndarray:
    return np.array(items, np.int32)


@pytest.fixture(scope="module")
def stars() -> Stars:
    return Stars.of(3, num_users=60)


@pytest.fixture(scope="module")
def tastes() -> Tastes:
    return Tastes.of(3, num_users=60)


def test_a_stranger_with_the_same_ratings_gets_the_same_guesses_from_als(stars):
    model = zoo.fit("als-explicit", stars.log, {"dim": 3, "iterations": 4})
    known = Askers.known(stars.log, rows(4, 7))
    strange = Askers(rows(NOBODY, NOBODY), known.histories, known.values)
    np.testing.assert_array_equal(model.scores(known), model.scores(strange))


def test_als_of_ratings_solves_its_equations(stars):
    """At the users' solution the slope of squared error + penalty is 0, by differences."""
    config = {"dim": 3, "iterations": 4, "regularization": 0.1}
    model = zoo.fit("als-explicit", stars.log, config)
    tensors = model.tensors()
    factors_ID, bias_I = tensors["item_factors"].astype(float), tensors["item_bias"].astype(float)
    asked = Askers.known(stars.log, rows(0))
    score_I = model.scores(asked)[0].astype(float) - bias_I - stars.log.value_N.mean()
    user, *_ = np.linalg.lstsq(np.column_stack([factors_ID, np.ones(len(bias_I))]), score_I, rcond=None)
    items, value_L = asked.histories[0], asked.values[0]  # type: ignore[index]

    def loss(user: np.ndarray) -> float:
        guess = stars.log.value_N.mean() + bias_I[items] + factors_ID[items] @ user[:-1] + user[-1]
        return float(((value_L - guess) ** 2).sum() + 0.1 * len(items) * (user**2).sum())

    for step in np.eye(4) * 1e-3:
        assert (loss(user + step) - loss(user - step)) / 2e-3 == pytest.approx(0, abs=2e-3)  # float32 scores


def test_blocks_of_one_factor_and_of_all_reach_the_same_ials(tastes):
    settings = {"dim": 6, "iterations": 60, "regularization": 0.05}
    whole = zoo.fit("ials", tastes.log, settings | {"block": 6})
    parts = zoo.fit("ials", tastes.log, settings | {"block": 1})
    assert whole.losses[-1] == pytest.approx(parts.losses[-1], rel=1e-2)
    assert all(np.diff(whole.losses) < 1e-6), "a sweep of exact solutions never raises the loss"
    assert all(np.diff(parts.losses) < 1e-6)


def test_folding_in_solves_the_equations_of_ials():
    config = IalsConfig(dim=1, regularization=0.5, unobserved_weight=0.1, frequency_power=1.0)
    model = Ials(config, np.array([[1.0], [2.0]], np.float32), np.zeros(2, np.float32))
    # (2^2 + .1 * (1 + 4) + .5 * (1 + .1 * 2)) p = 2
    assert model.user_vectors(Askers.strangers([rows(1)]))[0, 0] == pytest.approx(
        2 / (4 + 0.5 + 0.6), rel=1e-5
    )
    assert not model.user_vectors(Askers.strangers([rows()])).any()


def test_nmf_updates_as_worked_out_by_hand():
    # One user with factor 1 rated two items, whose factors are 2 and 1, with 4 and 1.
    rating_UI = sp.csr_matrix(np.array([[4.0, 1.0]]))
    user_UD, item_ID = np.array([[1.0]]), np.array([[2.0], [1.0]])
    guess_UI = _guessed(rating_UI, user_UD, item_ID)
    assert guess_UI.toarray().tolist() == [[2, 1]]
    # (4 * 2 + 1 * 1) / (2 * 2 + 1 * 1 + .5 * 2 * 1) = 9 / 6
    assert _updated(rating_UI, guess_UI, user_UD, item_ID, 0.5).tolist() == [[1.5]]


def test_nmf_refuses_ratings_below_zero():
    log = Log.of(rows(0), rows(0), num_users=1, num_items=1, value_N=np.array([-1.0]))
    with pytest.raises(DataError, match="ratings of an NMF, must be some, 0 or more"):
        zoo.fit("nmf", log)


def test_als_of_values_counts_a_larger_value_for_more(tastes):
    log = Log.of(
        rows(0, 0, 1, 1, 2, 2, 2), rows(0, 1, 0, 2, 0, 1, 2), num_users=3, num_items=3,
        value_N=np.array([1, 9, 1, 1, 1, 1, 1.0]),
    )  # fmt: skip
    model = zoo.fit("als", log, {"dim": 2, "alpha": 5.0, "values": True, "iterations": 10})
    history = [rows(1, 2)]
    much_of_1 = model.scores(Askers(rows(NOBODY), history, [np.array([9, 1], np.float32)]))[0]
    much_of_2 = model.scores(Askers(rows(NOBODY), history, [np.array([1, 9], np.float32)]))[0]
    assert much_of_1[1] > much_of_2[1]
    assert much_of_2[2] > much_of_1[2]
    with pytest.raises(DataError, match="a value of the log"):
        zoo.fit(
            "als",
            Log.of(rows(0), rows(0), num_users=1, num_items=1, value_N=np.array([-1.0])),
            {"values": True},
        )


@pytest.mark.parametrize(
    ("values", "repeated", "once"),
    [
        (False, [1, 1, 1], [1, 1]),
        (True, [3, 2, 4], [2, 7]),  # 3 + 4, as the log sums them
        (True, [3, 2, np.nan], [2, 3]),
        (True, [np.nan, 2, np.nan], [2, np.nan]),
    ],
)
def test_als_folds_an_item_that_comes_again_in_as_the_fit_counts_it(tastes, values, repeated, once):
    model = zoo.fit("als", tastes.log, {"dim": 4, "iterations": 2, "values": values, "half_life": 2.0})
    asked = [
        Askers(rows(NOBODY), [items], [np.array(value_L, np.float32)])
        for items, value_L in ((rows(1, 2, 1), repeated), (rows(2, 1), once))
    ]
    again, single = (model.user_vectors(one) for one in asked)
    np.testing.assert_allclose(again, single, rtol=1e-6)
    without_values = Askers.strangers([rows(1, 2, 1)]), Askers.strangers([rows(2, 1)])
    np.testing.assert_array_equal(*(model.user_vectors(one) for one in without_values))


def test_als_folds_a_user_of_the_log_in_by_the_fits_own_confidences():
    """A log in which one user took an item twice is that in which the user took it once, for twice as much."""
    twice = Log.of(
        rows(0, 0, 0, 1, 1), rows(0, 1, 0, 1, 2), num_users=2, num_items=3, value_N=np.array([1, 1, 2, 1, 1.0]),
        timestamp_ms_N=np.arange(5),
    )  # fmt: skip
    once = Log.of(
        rows(0, 0, 1, 1), rows(1, 0, 1, 2), num_users=2, num_items=3, value_N=np.array([1, 3, 1, 1.0]),
        timestamp_ms_N=np.arange(4),
    )  # fmt: skip
    settings = {"dim": 2, "alpha": 5.0, "values": True, "iterations": 5}
    first, second = (zoo.fit("als", log, settings).scores(Askers.known(log)) for log in (twice, once))
    np.testing.assert_allclose(first, second, rtol=1e-5)


@pytest.mark.parametrize("kind", ["svd", "nmf", "als-explicit"])
def test_a_stranger_who_rated_an_item_twice_gave_the_mean(kind, stars):
    model = zoo.fit(kind, stars.log, {"dim": 3})
    twice = Askers(rows(NOBODY), [rows(4, 7, 4)], [np.array([5, 2, 3], np.float32)])
    once = Askers(rows(NOBODY), [rows(4, 7)], [np.array([4, 2], np.float32)])
    np.testing.assert_allclose(model.scores(twice), model.scores(once), rtol=1e-6)


def test_svdpp_hears_what_was_rated_even_where_no_rating_is_known(stars):
    model = zoo.fit("svdpp", stars.log, {"dim": 4, "epochs": 20, "batch_ratings": 256, "learning_rate": 0.05})
    plain = zoo.fit("svd", stars.log, {"dim": 4, "epochs": 20, "batch_ratings": 256, "learning_rate": 0.05})
    few, other = Askers.strangers([rows(0, 1, 2)]), Askers.strangers([rows(20, 21)])
    assert not np.allclose(model.scores(few), model.scores(other))
    np.testing.assert_array_equal(plain.scores(few), plain.scores(other))


@pytest.mark.parametrize("heeds_taken", [False, True])
def test_the_slopes_of_svd_are_those_of_its_loss_by_differences(heeds_taken):
    draws = np.random.default_rng(0)
    rating_UI = draws.integers(1, 6, (6, 5)) * (draws.random((6, 5)) < 0.7)
    rating_UI[2] = 0
    rating_UI[3, 1] = 4  # whoever is in the block has rated something
    user_B = np.array([4, 0, 3])
    shapes = {"users": (6, 2), "items": (5, 2), "user_bias": (6,), "item_bias": (5,)}
    shapes |= {"taken": (5, 2)} if heeds_taken else {}
    tables = {name: draws.normal(size=shape) for name, shape in shapes.items()}
    penalties = Penalties(factors=0.3, biases=0.2, taken=0.7)

    def loss() -> float:
        total, num = 0.0, 0
        for user in user_B:
            items = np.flatnonzero(rating_UI[user])
            vector_D = tables["users"][user].copy()
            if heeds_taken:
                vector_D += tables["taken"][items].sum(axis=0) / np.sqrt(len(items))
            for item in items:
                guess = 3.0 + tables["user_bias"][user] + tables["item_bias"][item]
                total += (rating_UI[user, item] - guess - vector_D @ tables["items"][item]) ** 2
                total += 0.3 * (
                    np.square(tables["users"][user]).sum() + np.square(tables["items"][item]).sum()
                )
                total += 0.2 * (tables["user_bias"][user] ** 2 + tables["item_bias"][item] ** 2)
                total += 0.7 * np.square(tables["taken"][item]).sum() if heeds_taken else 0.0
                num += 1
        return total / num

    slopes = {name: np.zeros(shape) for name, shape in shapes.items()}
    block_BI = sp.csr_matrix(rating_UI[user_B].astype(np.float64))
    squares = fill_slopes(slopes, tables, block_BI, user_B, 3.0, penalties)
    assert 0 < squares < loss() * block_BI.nnz
    for name, table in tables.items():
        for at in np.ndindex(table.shape):
            value = table[at]
            table[at] = value + 1e-5
            above = loss()
            table[at] = value - 1e-5
            assert slopes[name][at] == pytest.approx((above - loss()) / 2e-5, abs=1e-7), (name, at)
            table[at] = value


def test_items_not_taken_are_drawn_alike():
    log = Log.of(rows(0, 0, 1), rows(0, 1, 3), num_users=2, num_items=4)
    drawn = Untaken(log).draw(np.zeros(4000, np.int64), np.random.default_rng(0))
    count = np.bincount(drawn, minlength=4)
    assert count[:2].sum() < 40  # half of the draws are refused, nine times: 4000 / 2^9 are left
    assert abs(count[2] - count[3]) < 5 * 63  # standard deviation of the difference: sqrt(4000)


def test_a_user_who_took_everything_gets_items_all_the_same():
    log = Log.of(rows(0, 0), rows(0, 1), num_users=1, num_items=2)
    drawn = Untaken(log).draw(np.zeros(9, np.int64), np.random.default_rng(0))
    assert len(drawn) == 9
    assert set(drawn) <= {0, 1}


def test_the_map_of_strangers_finds_a_linear_rule():
    draws = np.random.default_rng(0)
    item_ID, rule_DE = draws.normal(size=(30, 3)).astype(np.float32), draws.normal(size=(3, 2))
    taken_UI = sp.csr_matrix((draws.random((500, 30)) < 0.2).astype(np.float32))
    mean_UD = (taken_UI @ item_ID) / np.maximum(np.diff(taken_UI.indptr), 1)[:, None]
    user_UE = (mean_UD @ rule_DE + 1).astype(np.float32)
    found = HistoryMap.fit(taken_UI, item_ID, user_UE)
    np.testing.assert_allclose(found.vectors(taken_UI[:9], item_ID), user_UE[:9], atol=0.02)  # a little ridge
    nobody = sp.csr_matrix((1, 30), dtype=np.float32)
    np.testing.assert_allclose(found.vectors(nobody, item_ID)[0], user_UE.mean(axis=0), atol=1e-4)


def test_a_network_alone_scores_what_its_layers_say(tastes):
    shape = {"product_dim": 0, "network_dim": 4, "hidden": [6, 3], "epochs": 3, "batch_size": 64}
    model = zoo.fit("neumf", tastes.log, shape | {"learning_rate": 0.05})
    kept = {name: value.astype(float) for name, value in model.tensors().items()}
    item_IE = kept["items"]
    hidden = np.column_stack([np.tile(kept["users"][5], (len(item_IE), 1)), item_IE])
    for layer in range(2):
        hidden = np.maximum(hidden @ kept[f"layer.{layer}.weight"].T + kept[f"layer.{layer}.bias"], 0)
    expected_I = hidden @ kept["layer.out.weight"][0] + kept["layer.out.bias"][0]
    score_I = model.scores(Askers.known(tastes.log, rows(5)))[0]
    np.testing.assert_allclose(score_I, expected_I, rtol=1e-4, atol=1e-5)
    assert np.ptp(score_I) > 0.1


def test_steps_of_a_neumf_that_fall_end_where_they_are_small(tastes):
    """The last epoch of a falling step size moves the weights less than that of an even one."""
    moved = {}
    for decay in ("none", "linear"):
        config = zoo.model_class("neumf").Config.parse(
            {"epochs": 6, "batch_size": 256, "decay": decay}, "a test"
        )
        before, after = list(NeuMf.after_each_epoch(tastes.log, config))[-2:]
        moved[decay] = float(np.abs(after.tensors()["items"] - before.tensors()["items"]).mean())
    assert moved["linear"] < 0.5 * moved["none"]


@pytest.mark.parametrize("kind", ["bpr", "neumf", "svd"])
def test_users_of_the_log_who_took_nothing_are_strangers(kind, stars, tastes):
    log = (stars if kind == "svd" else tastes).log
    wider = Log.of(
        log.user_N, log.item_N, num_users=log.num_users + 1, num_items=log.num_items, value_N=log.value_N,
        timestamp_ms_N=log.timestamp_ms_N,
    )  # fmt: skip
    model = zoo.fit(kind, wider, {"epochs": 2})
    blank = model.scores(Askers(rows(log.num_users), [rows()]))
    np.testing.assert_allclose(blank, model.scores(Askers.strangers([rows()])), rtol=1e-5)


def test_tensors_of_another_dimension_are_refused(tastes):
    for kind in ("als", "ials", "bpr", "neumf"):
        small = {"epochs": 1} if kind in ("bpr", "neumf") else {"iterations": 1}
        model = zoo.fit(kind, tastes.log, small)
        tensors = {
            name: value[:, :-1] if value.ndim == 2 else value for name, value in model.tensors().items()
        }
        with pytest.raises(CompatibilityError, match=r"factors|embeddings"):
            zoo.Packed.from_state(zoo.Packed(model).config_dict(), tensors)
