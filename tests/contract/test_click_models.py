"""Every click model keeps the contract of `tastemaker.testing.contracts_ctr`."""

import numpy as np
import pytest

from tastemaker.errors import ConfigError, DataError, UsageError
from tastemaker.models.ctr.dssm import letter_ngrams
from tastemaker.models.ctr.fields import Categorical, Fields, Multi, Rows, Values
from tastemaker.models.ctr.kinds import CLICK_MODELS, fit
from tastemaker.models.ctr.model import Labelled
from tastemaker.testing.contracts_ctr import CHECKS, FIELDS, ClickCase, ClickWorld

# Small steps of many passes, as the rows are few.
FIT = {"epochs": 9, "batch_size": 256, "learning_rate": 0.02}
SMALL = {"dim": 8, "fit": FIT}
DEEP = SMALL | {"hidden": [32, 16], "dropout": 0.0}
SIDES = {"query_fields": ["user", "history"], "item_fields": ["item", "genre"]}
TOWERS = {"hidden": [32], "vector_dim": 16, "dropout": 0.0, "fit": FIT | {"epochs": 20}}
CASES = {
    case.kind: case
    for case in (
        ClickCase("lr", {"fit": FIT}, floor=None),
        ClickCase("fm", SMALL),
        ClickCase("wide-deep", DEEP),
        ClickCase("deepfm", DEEP),
        ClickCase("dcn", DEEP),
        ClickCase("dcn-v2", DEEP),
        ClickCase("dlrm", SMALL | {"bottom_hidden": [8], "top_hidden": [32], "dropout": 0.0}),
        ClickCase("din", DEEP),
        # The price is of neither side.
        ClickCase("dssm", SMALL | SIDES | TOWERS, 0.7),
        ClickCase("lambdamart", {"num_trees": 60, "learning_rate": 0.1, "num_threads": 1}, 0.7),
    )
}


def test_all_kinds_are_tried():
    assert CASES.keys() == CLICK_MODELS.keys()


@pytest.mark.parametrize("check", CHECKS.values(), ids=list(CHECKS))
@pytest.mark.parametrize("kind", CASES)
def test_contract(kind, check):
    check(CASES[kind])


def test_unknown_kind_is_refused():
    learned = CASES["lr"].world.learned
    with pytest.raises(UsageError, match="kind of click model"):
        fit("none", learned)


def test_fields_must_belong_together():
    user = Categorical(name="user", num_values=3)
    for wrong in ({}, {"categorical": (user, user)}, {"categorical": (user,), "dense": ("user",)}):
        with pytest.raises(ValueError, match="each of a name of its own"):
            Fields(**wrong)
    with pytest.raises(ValueError, match="as many values"):
        Fields(categorical=(user,), multi=(Multi(name="past", num_values=4, like="user"),))


def test_rows_must_be_whole():
    fields = Fields(categorical=(Categorical(name="user", num_values=3),), dense=("price",))
    with pytest.raises(DataError, match="missing"):
        Rows.of(fields, {"user": [1]})
    with pytest.raises(DataError, match="differ in length"):
        Rows.of(fields, {"user": [1, 2], "price": [1.0]})
    with pytest.raises(DataError, match="infinite"):
        Rows.of(fields, {"user": [1], "price": [np.inf]})
    rows = Rows.of(fields, {"user": [1, 4], "price": [1.0, np.nan]})
    assert rows.categorical_NC.tolist() == [[1], [0]]  # 4 is above the 3 that there are
    with pytest.raises(DataError, match="0 or 1"):
        Labelled.of(rows, [1, 2])
    with pytest.raises(DataError, match="labels"):
        Labelled.of(rows, [1])


def test_bags_are_taken_in_order():
    values = Values.of([[1, 2], [], [3], [4, 5, 6]])
    taken = values.take(np.array([3, 1, 0]))
    assert taken.value_V.tolist() == [4, 5, 6, 1, 2]
    assert taken.offsets.tolist() == [0, 3, 3, 5]
    assert len(values.take(np.array([], np.int64))) == 0


def test_lazy_and_whole_updates_learn_alike():
    world = ClickWorld.of(1, 3000)
    whole = fit("fm", world.learned, SMALL)
    lazy = fit("fm", world.learned, SMALL | {"fit": FIT | {"lazy_above_rows": 0}})
    first, second = (model.predict(world.tested.rows) for model in (whole, lazy))
    # In batches of 256 nearly every value is looked up, so that both do the same.
    assert np.corrcoef(first, second)[0, 1] > 0.99


def test_validation_keeps_the_best_epoch():
    world = ClickWorld.of(1, 3000)
    settings = DEEP | {"fit": FIT | {"epochs": 40, "patience": 2}}
    model = fit("deepfm", world.learned, settings, world.tested)
    assert len(model.losses) < 40
    again = fit("deepfm", world.learned, DEEP | {"fit": FIT | {"epochs": len(model.losses) - 2}})
    assert np.array_equal(model.predict(world.tested.rows), again.predict(world.tested.rows))


def test_numbers_may_be_of_any_scale():
    case = CASES["deepfm"]
    learned, tested = case.world.learned, case.world.tested
    scaled = [
        Rows(FIELDS, one.rows.categorical_NC, one.rows.multi, 1000 * one.rows.dense_NF + 5000)
        for one in (learned, tested)
    ]
    again = case.fit(Labelled.of(scaled[0], learned.label_N))
    assert np.corrcoef(again.predict(scaled[1]), case.fitted.predict(tested.rows))[0, 1] > 0.99


def test_vectors_of_towers_order_as_probabilities_do():
    model, rows = CASES["dssm"].fitted, CASES["dssm"].world.tested.rows
    product_N = (model.query_vectors(rows) * model.item_vectors(rows)).sum(1)
    probability_N = model.predict(rows)
    order_N = np.argsort(product_N)
    assert (np.diff(probability_N[order_N]) >= -1e-6).all()


def test_runs_of_letters():
    assert len(letter_ngrams("a bee", 10**6)) == 1 + 3  # #a# | #be bee ee#
    assert letter_ngrams("", 10).tolist() == []
    assert set(letter_ngrams("What matters is range", 5)) <= {1, 2, 3, 4, 5}


def test_sides_and_history_must_be_fields():
    learned = CASES["lr"].world.learned
    with pytest.raises(ConfigError, match="tower"):
        fit("dssm", learned, {"query_fields": ["nobody"], "item_fields": ["item"]})
    with pytest.raises(ConfigError, match="history of a DIN"):
        fit("din", learned, {"history": "genre"})


def test_trees_need_requests_with_both_labels():
    learned = CASES["lr"].world.learned
    alone = Rows(FIELDS, learned.rows.categorical_NC, learned.rows.multi, learned.rows.dense_NF)
    with pytest.raises(DataError, match="no groups"):
        fit("lambdamart", Labelled.of(alone, learned.label_N))
    with pytest.raises(DataError, match="both a yes and a no"):
        fit("lambdamart", Labelled.of(learned.rows, np.ones(len(learned))))
