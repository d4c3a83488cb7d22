"""Click models under given propensities: worlds whose truth is known, where the naive fit is wrong and the corrected one is not."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.errors import DataError
from tastemaker.models.ctr.fields import Categorical, Fields, Rows
from tastemaker.models.ctr.kinds import fit
from tastemaker.models.ctr.lambdamart import LambdaMartConfig, _dataset, best_dcg
from tastemaker.models.ctr.losses import ClickLoss, PropensityConfig
from tastemaker.models.ctr.model import Labelled

ITEMS = Fields(categorical=(Categorical(name="item", num_values=2),))
TWO = Rows.of(ITEMS, {"item": [1, 2]})
FIT = {"epochs": 40, "batch_size": 2048, "learning_rate": 0.05}


def by_item(learned: Labelled, of: str, validation: Labelled | None = None) -> np.ndarray:
    """What logistic regression says of each of the two items."""
    return fit("lr", learned, {"fit": FIT | {"propensity": {"of": of}}}, validation).predict(TWO)


def clicks(num: int = 20_000) -> Labelled:
    """Item 1 is relevant to 3 of 10 and looked at by 9 of 10; item 2 to 6 of 10, and looked at by 3 of 10."""
    draws = np.random.default_rng(0)
    item_N = draws.integers(1, 3, num)
    relevance_N, looks_N = np.where(item_N == 1, 0.3, 0.6), np.where(item_N == 1, 0.9, 0.3)
    label_N = (draws.random(num) < relevance_N) & (draws.random(num) < looks_N)
    return Labelled.of(Rows.of(ITEMS, {"item": item_N}), label_N, looks_N)


def without(labelled: Labelled) -> Labelled:
    return Labelled.of(labelled.rows, labelled.label_N)


def test_clicks_corrected_by_looks_tell_relevance() -> None:
    # .3 * .9 and .6 * .3 are what clicks say; 10,000 rows an item, so that a share's deviation is .005, times 1 / .3
    assert by_item(without(clicks()), "clicks") == pytest.approx([0.27, 0.18], abs=0.015)
    assert by_item(clicks(), "clicks") == pytest.approx([0.3, 0.6], abs=0.05)


def test_a_fit_is_stopped_by_the_corrected_loss_where_validation_rows_have_propensities() -> None:
    whole = clicks()
    learned, validation = whole.take(np.arange(15_000)), whole.take(np.arange(15_000, 20_000))
    found = fit("lr", learned, {"fit": FIT | {"patience": 2}}, validation)
    assert len(found.losses) < 40
    assert found.predict(TWO) == pytest.approx([0.3, 0.6], abs=0.08)


def test_rows_that_are_missing_by_their_label_are_made_up_for() -> None:
    """Of 3 of 10 who like item 1, and 6 of 10 who like item 2, nine tenths say so; of the others a fifth says anything."""
    draws = np.random.default_rng(1)
    item_N = draws.integers(1, 3, 30_000)
    label_N = draws.random(30_000) < np.where(item_N == 1, 0.3, 0.6)
    propensity_N = np.where(label_N, 0.9, 0.2)
    seen = draws.random(30_000) < propensity_N
    told = Labelled.of(Rows.of(ITEMS, {"item": item_N[seen]}), label_N[seen], propensity_N[seen])
    # .27 / (.27 + .14) and .54 / (.54 + .08)
    assert by_item(without(told), "rows") == pytest.approx([0.659, 0.871], abs=0.02)
    assert by_item(told, "rows") == pytest.approx([0.3, 0.6], abs=0.03)


NUMBERS = Fields(dense=("right", "shown_first"))


def lists(num: int, seed: int, *, corrected: bool, examined: bool = True) -> tuple[Labelled, np.ndarray]:
    """Requests of ten rows: what is relevant hangs on `right`, where it was shown on `shown_first`, and what is clicked on both."""
    draws = np.random.default_rng(seed)
    right_GK, first_GK = draws.normal(size=(2, num, 10))
    relevant_GK = draws.random((num, 10)) < 1 / (1 + np.exp(-(2 * right_GK - 1)))
    slot_GK = np.argsort(np.argsort(-first_GK, axis=1), axis=1)
    looks_GK = 1 / (1 + slot_GK) if examined else np.ones((num, 10))
    label_N = (relevant_GK & (draws.random((num, 10)) < looks_GK)).ravel()
    rows = Rows.of(
        NUMBERS, {"right": right_GK.ravel(), "shown_first": first_GK.ravel()}, np.repeat(np.arange(num), 10)
    )
    return Labelled.of(rows, label_N, looks_GK.ravel() if corrected else None), relevant_GK.astype(float)


def dcg(score_N: np.ndarray, relevant_GK: np.ndarray) -> float:
    """Of the relevant rows in the order of scores."""
    order_GK = np.argsort(-score_N.reshape(relevant_GK.shape), axis=1)
    ranked_GK = np.take_along_axis(relevant_GK, order_GK, axis=1)
    return float((ranked_GK / np.log2(np.arange(2, 12))).sum(axis=1).mean())


def test_trees_order_by_relevance_and_not_by_where_rows_were_shown() -> None:
    trees = {"num_trees": 60, "num_leaves": 7, "num_threads": 1, "min_rows": 30, "learning_rate": 0.1}
    tested, relevant_GK = lists(600, 9, corrected=False)

    def reached(labelled: Labelled) -> tuple[float, float]:
        score_N = fit("lambdamart", labelled, trees).scores(tested.rows)
        return dcg(score_N, relevant_GK), abs(np.corrcoef(score_N, tested.rows.dense_NF[:, 1])[0, 1])

    naive, led = reached(lists(2000, 0, corrected=False)[0])
    corrected, misled = reached(lists(2000, 0, corrected=True)[0])
    truth, _ = reached(lists(2000, 0, corrected=False, examined=False)[0])
    assert led > 0.3  # it learned the slot
    assert misled < 0.1
    assert corrected > naive + 0.5 * (truth - naive)
    assert truth > naive + 0.05


def test_what_a_best_list_is_worth_stops_at_the_truncation() -> None:
    worth_N = np.array([1.0, 3.0, 2.0, 0.0, 0.0])
    # 3 / log2(2) + 2 / log2(3), the third place is left out; nothing of the second group
    assert best_dcg(worth_N, np.array([3, 2]), 2).tolist() == pytest.approx([3 + 2 / np.log2(3), 0.0])


@given(
    st.lists(st.tuples(st.booleans(), st.floats(0.02, 1.0), st.floats(-4, 4)), min_size=1, max_size=12),
    st.sampled_from(["clicks", "rows"]),
)
@settings(max_examples=50)
def test_where_all_is_looked_at_nothing_is_corrected(rows, of) -> None:
    """And weights of rows that are all the same cancel."""
    label_N, propensity_N, logit_N = (np.array(column, np.float32) for column in zip(*rows, strict=True))
    columns = Rows.of(ITEMS, {"item": np.ones(len(rows), np.int32)})
    config, logit = PropensityConfig(of=of), torch.from_numpy(logit_N)

    def loss(propensity) -> float:
        labelled = Labelled.of(columns, label_N, propensity)
        return float(ClickLoss.of(labelled, config)(logit, labelled))

    plain = loss(None)
    assert loss(np.ones(len(rows))) == pytest.approx(plain, rel=1e-5, abs=1e-6)
    if of == "rows":
        same = np.full(len(rows), float(propensity_N[0]))
        assert loss(same) == pytest.approx(plain, rel=1e-4, abs=1e-6)


def test_the_mean_over_looks_of_the_corrected_loss_is_the_loss_of_relevance() -> None:
    """By hand: relevant, looked at half of the time. A click costs 2 (loss of a yes) - (loss of a no), none the loss of a no."""
    one = Rows.of(ITEMS, {"item": [1]})
    logit = torch.tensor([0.7])
    clicked, passed = (
        float(ClickLoss(PropensityConfig())(logit, Labelled.of(one, [label], [0.5]))) for label in (1, 0)
    )
    yes, no = float(torch.nn.functional.softplus(-logit)), float(torch.nn.functional.softplus(logit))
    assert clicked == pytest.approx(2 * yes - no, rel=1e-5)
    assert 0.5 * clicked + 0.5 * passed == pytest.approx(yes, rel=1e-5)


@pytest.mark.parametrize("kind", ["lr", "lambdamart"])
def test_propensities_of_learned_or_validation_rows_alone_are_refused(kind: str) -> None:
    told, untold = lists(20, 0, corrected=True)[0], lists(20, 0, corrected=False)[0]
    for learned, validation in ((told, untold), (untold, told)):
        with pytest.raises(DataError, match="propensities of a click model's validation rows"):
            fit(kind, learned, {}, validation)


def test_lists_that_validate_trees_weigh_as_their_ndcg_at_10_is_divided() -> None:
    """Twelve clicks of worth 1 in one request and one in the other: NDCG@10 was divided by ten places' and by one's."""
    label_N = np.array([1.0] * 12 + [0.0] + [1.0] + [0.0] * 12)
    columns = {"right": np.arange(26.0), "shown_first": np.zeros(26)}
    rows = Rows.of(NUMBERS, columns, np.repeat([0, 1], 13))
    labelled, config = Labelled.of(rows, label_N, np.ones(26)), LambdaMartConfig(num_threads=1, truncation=30)
    train = _dataset(labelled, config).construct()
    judged = _dataset(labelled, config, train).construct()
    for made, places in ((train, 12), (judged, 10)):
        weight_N = made.get_weight()
        dcg = (1 / np.log2(np.arange(places) + 2)).sum()
        assert weight_N[0] / weight_N[13] == pytest.approx(dcg, rel=1e-5)


def test_what_is_no_propensity_is_refused() -> None:
    for wrong in ([0.0, 1.0], [0.5, 1.5], [np.nan, 0.5]):
        with pytest.raises(DataError, match="a propensity of a click model"):
            Labelled.of(TWO, [1, 0], wrong)
    with pytest.raises(DataError, match="propensities of a click model"):
        Labelled.of(TWO, [1, 0], [0.5])
