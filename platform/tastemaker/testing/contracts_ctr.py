"""What every click model keeps to, as checks that a test runs for each of them.

    @pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
    def test_models(check): check(ClickCase("fm", {"dim": 8}))

A model of your own is tried by its class: `ClickCase("mine", {"dim": 8}, model=Mine)`.
A check asserts; it says what was broken.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np

from tastemaker.errors import CompatibilityError, DataError
from tastemaker.evaluation.predictions import gauc
from tastemaker.models.contributions import Contributions
from tastemaker.models.ctr.fields import Categorical, Rows
from tastemaker.models.ctr.kinds import PackedClickModel, click_model_class
from tastemaker.models.ctr.model import ClickModel, Labelled
from tastemaker.testing.click_worlds import FIELDS, NUM_ITEMS, NUM_USERS, ClickWorld
from tastemaker.testing.refusing import refused
from tastemaker.testing.saved import assert_same, written_and_read

__all__ = ["CHECKS", "FIELDS", "ClickCase", "ClickWorld"]

_SEED = 7


@dataclass
class ClickCase:
    """A kind of click model, and how it is set for small data.

    Args:
        kind: Of `ctr.kinds`, or any name for a model of your own.
        settings: What of its config differs from the defaults.
        floor: Share of what the best possible GAUC has over one half that it must reach; None: it cannot see who meets what.
        model: A class that is not of `ctr.kinds`; unset, the kind's.
    """

    kind: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    floor: float | None = 0.8
    model: type[ClickModel] | None = None

    @cached_property
    def world(self) -> ClickWorld:
        """Which it is tried in."""
        return ClickWorld.of(_SEED)

    @cached_property
    def fitted(self) -> ClickModel:
        """On that world's rows."""
        return self.fit(self.world.learned)

    def fit(self, learned: Labelled, validation: Labelled | None = None) -> ClickModel:
        """On other rows."""
        kind = self.model or click_model_class(self.kind)
        return kind.fit(learned, kind.Config.parse(self.settings, f"model {self.kind}"), validation)

    def read_again(self, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> ClickModel:
        """The model of a bundle's config and tensors."""
        if self.model is not None:
            return self.model.from_state(config["model"], tensors)
        return PackedClickModel.from_state(config, tensors)


def the_same_seed_gives_the_same_model(case: ClickCase) -> None:
    """Fitted twice, it is the same to the last bit."""
    assert_same(case.fitted, case.fit(case.world.learned))


def what_was_saved_answers_the_same(case: ClickCase) -> None:
    """Written as a bundle's tensor file and JSON, and read again."""
    again = case.read_again(*written_and_read(PackedClickModel(case.fitted)))
    assert type(again) is type(case.fitted)
    rows = case.world.tested.rows
    assert np.array_equal(again.predict(rows), case.fitted.predict(rows)), "probabilities differ"
    assert {name: values.shape for name, values in again.tensors().items()} == {
        name: values.shape for name, values in case.fitted.tensors().items()
    }


def weights_of_another_are_refused(case: ClickCase) -> None:
    """Tensors that are not there, and a kind that does not exist."""
    config = PackedClickModel(case.fitted).config_dict()
    with refused(CompatibilityError, match="" if case.model is not None else r"weights of a|trees of a"):
        case.read_again(config, {})
    with refused(CompatibilityError, match="kind of a bundle's click model"):
        PackedClickModel.from_state(config | {"kind": "none"}, {})


def no_value_is_refused(case: ClickCase) -> None:
    """Unknown values, empty bags and missing numbers get a chance; unknown ones all the same."""
    columns = {
        "user": [0, -3, NUM_USERS + 1, 1], "item": [0, 10**6, -1, 1], "price": [0.0, 0.0, 0.0, np.nan],
        "genre": [[0], [99], [-1], []], "history": [[], [], [], [NUM_ITEMS + 5]],
    }  # fmt: skip
    chance_N = case.fitted.predict(Rows.of(FIELDS, columns))
    assert chance_N.dtype == np.float32
    assert ((chance_N > 0) & (chance_N < 1)).all(), "no probability"
    assert np.allclose(chance_N[:3], chance_N[0], atol=1e-6), "one unknown value differs from another"


def one_row_and_none(case: ClickCase) -> None:
    """A row alone gets what it gets among others; none give none."""
    rows = case.world.tested.rows
    whole = case.fitted.predict(rows)
    for at in (0, 5):
        assert np.allclose(case.fitted.predict(rows.take(np.array([at]))), whole[at], atol=1e-5)
    assert case.fitted.predict(rows.take(np.array([], np.int64))).shape == (0,)


def the_order_of_rows_does_not_matter(case: ClickCase) -> None:
    """Rows asked about in another order get the same."""
    rows = case.world.tested.rows
    order = np.random.default_rng(_SEED).permutation(len(rows))
    # Sums may be taken in another order.
    assert np.allclose(case.fitted.predict(rows.take(order)), case.fitted.predict(rows)[order], atol=1e-5)


def scores_order_as_probabilities(case: ClickCase) -> None:
    """Scores are finite numbers of the same order."""
    rows = case.world.tested.rows
    score_N = case.fitted.scores(rows)
    assert score_N.dtype == np.float32
    assert np.isfinite(score_N).all(), "no number"
    assert (np.diff(case.fitted.predict(rows)[np.argsort(score_N)]) >= -1e-6).all(), "another order"


def contributions_add_up_to_the_score(case: ClickCase) -> None:
    """Of a request's rows: what each field adds is a row's score less the mean of all; what all rows share adds nothing."""
    rows = case.world.tested.rows
    rows = rows.take(np.flatnonzero(rows.group_N == 1))
    score_N = case.fitted.scores(rows)
    for at in (0, len(rows) - 1):
        told = case.fitted.contributions(rows, at)
        assert tuple(sorted(told.by_feature)) == tuple(sorted(FIELDS.names)), "fields are missing"
        assert np.isclose(told.base, score_N.mean(), atol=1e-4), "another mean"
        assert np.isclose(told.output, score_N[at], atol=1e-4), "another score"
        assert told.is_explained, f"{told.rest} is left"
        if case.kind != "lambdamart":  # whose fields share what they do together, whatever the others have
            assert max(abs(told.by_feature[name]) for name in ("user", "history")) < 1e-5, (
                "all rows have them"
            )
    with refused(DataError, match="row to explain"):
        case.fitted.contributions(rows, len(rows))


def explaining_disturbs_nobody(case: ClickCase) -> None:
    """Asked for contributions by two threads, and for scores by a third meanwhile, each answers as it does alone, to the last bit."""
    model, rows = case.fitted, case.world.tested.rows
    rows = rows.take(np.flatnonzero(rows.group_N == 1))
    before = {name: value.copy() for name, value in model.tensors().items()}
    score_N, told = model.scores(rows), [model.contributions(rows, at) for at in (0, 1)]

    def explained_often(at: int) -> list[Contributions]:
        return [model.contributions(rows, at) for _ in range(8)]

    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(explained_often, at) for at in (0, 1)]
        meanwhile = [model.scores(rows)]
        while not all(one.done() for one in asked):
            meanwhile.append(model.scores(rows))
        explained = [one.result() for one in asked]
    assert all(np.array_equal(one, score_N) for one in meanwhile), "scores changed meanwhile"
    assert explained == [[one] * 8 for one in told], "contributions changed meanwhile"
    after = model.tensors()
    assert after.keys() == before.keys(), "weights are gone"
    assert all(np.array_equal(after[name], value) for name, value in before.items()), "weights changed"


def what_propensities_correct_changes_the_fit(case: ClickCase) -> None:
    """Where all rows were looked at it is what it is without; where some hardly were, another, and a chance still."""
    learned = case.world.learned.take(np.arange(1200))
    all_seen, some_seen = np.ones(len(learned)), np.where(np.arange(len(learned)) % 2, 1.0, 0.2)
    plain, whole, corrected = (
        case.fit(Labelled.of(learned.rows, learned.label_N, propensity_N)).scores(case.world.tested.rows)
        for propensity_N in (None, all_seen, some_seen)
    )
    if case.kind != "lambdamart":  # whose lists are not divided by the best one's then
        # Equal but for rounding, which normalisation by batch makes larger from step to step.
        assert np.corrcoef(plain, whole)[0, 1] > 0.99, "propensities of 1 changed something"
    assert np.isfinite(corrected).all()
    assert not np.allclose(whole, corrected, atol=1e-3), "propensities changed nothing"


def rows_of_other_fields_are_refused(case: ClickCase) -> None:
    """A field of more values than it learned could not be looked up."""
    wider = FIELDS.model_copy(
        update={"categorical": (FIELDS.categorical[0], Categorical(name="item", num_values=99))}
    )
    wider = wider.model_copy(update={"multi": FIELDS.multi[:1]})
    columns = {"user": [1], "item": [1], "genre": [[1]], "price": [0.0]}
    with refused(CompatibilityError, match="fields of the rows"):
        case.fitted.predict(Rows.of(wider, columns))


def nothing_to_learn_from_is_said(case: ClickCase) -> None:
    """No rows."""
    with refused(DataError, match="rows"):
        case.fit(case.world.learned.take(np.array([], np.int64)))


def nothing_that_was_given_is_changed(case: ClickCase) -> None:
    """Rows and labels are what they were."""
    some = case.world.learned.take(np.arange(1000))
    before = some.take(np.arange(1000))
    case.fit(some, case.world.tested).predict(some.rows)
    assert np.array_equal(before.label_N, some.label_N)
    assert np.array_equal(before.rows.categorical_NC, some.rows.categorical_NC)
    assert np.array_equal(before.rows.dense_NF, some.rows.dense_NF)
    assert all(
        np.array_equal(values.value_V, some.rows.multi[name].value_V)
        for name, values in before.rows.multi.items()
    )


def it_learns_who_meets_what(case: ClickCase) -> None:
    """Among each user's rows it gains a share of what is to be gained over the toss of a coin; its probabilities beat the mean rate's."""
    tested, user_N = case.world.tested, case.world.tested.rows.group_N
    assert user_N is not None
    label_N, chance_N = tested.label_N.astype(np.int32), case.fitted.predict(tested.rows)
    best, reached = (gauc(user_N, one, label_N) - 0.5 for one in (case.world.chance_N, chance_N))
    if case.floor is None:
        assert reached < 0.5 * best, f"GAUC {0.5 + reached:.3f}: it cannot know so much"
        assert reached > 0.02, f"GAUC {0.5 + reached:.3f}: the price is of use"
    else:
        assert reached > case.floor * best, f"GAUC {0.5 + reached:.3f}, at best {0.5 + best:.3f}"
    rate = case.world.learned.label_N.mean()
    brier, blind = (np.square(tested.label_N - one).mean() for one in (chance_N, rate))
    assert brier < blind, f"squared error {brier:.3f}, of the mean rate {blind:.3f}"


def its_loss_falls(case: ClickCase) -> None:
    """On a few rows that it can learn by heart, the loss falls from third to third of the fit."""
    losses = np.array(case.fit(case.world.learned.take(np.arange(0, len(case.world.learned), 30))).losses)
    if not len(losses):
        return
    assert len(losses) >= 3, "too few passes to see it fall"
    thirds = [part.mean() for part in np.array_split(losses, 3)]
    assert thirds[0] > thirds[1] > thirds[2], f"losses by thirds: {thirds}"


CHECKS: Final[Mapping[str, Callable[[ClickCase], None]]] = {
    check.__name__: check
    for check in (
        the_same_seed_gives_the_same_model, what_was_saved_answers_the_same, weights_of_another_are_refused,
        no_value_is_refused, one_row_and_none, the_order_of_rows_does_not_matter, scores_order_as_probabilities,
        contributions_add_up_to_the_score, explaining_disturbs_nobody, what_propensities_correct_changes_the_fit, rows_of_other_fields_are_refused,
        nothing_to_learn_from_is_said, nothing_that_was_given_is_changed, it_learns_who_meets_what, its_loss_falls,
    )
}  # fmt: skip
