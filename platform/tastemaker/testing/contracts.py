"""What every model of the zoo keeps to, as checks that a test runs for each of them.

    MINE = Case("ease", {"l2": 10.0})
    @pytest.mark.parametrize("check", checks_of(MINE))
    def test_models(check): CHECKS[check](MINE)

A model of your own is tried by its class: `Case("mine", {"dim": 8}, model=Mine)`. A check asserts; it says what was broken.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa

from tastemaker.errors import DataError
from tastemaker.models.log import NOBODY, Askers, Filters, Log
from tastemaker.models.recommender import Recommender
from tastemaker.models.top import PADDING
from tastemaker.models.zoo import Packed, model_class
from tastemaker.testing.saved import assert_same, written_and_read
from tastemaker.testing.worlds import NOISE, Stars, Tastes
from tastemaker.types import Float32, Int32

_SEED = 7
_K = 10


@dataclass
class Case:
    """A kind of model, and how it is set for small logs.

    Args:
        kind: Of the zoo, or any name for a model of your own.
        settings: What of its config differs from the defaults.
        floor: Share of the best possible hit rate (of lists that do not heed order) that it must reach; None: that of the items
            most often taken is enough.
        is_ordered: Whether its lists depend on the order of a history, so that its floor is a share of the best that do.
        model: A class that is not of the zoo; unset, the kind's.
    """

    kind: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    floor: float | None = 0.8
    is_ordered: bool = False
    model: type[Recommender] | None = None

    @property
    def model_class(self) -> type[Recommender]:
        """What is tried."""
        return self.model or model_class(self.kind)

    @cached_property
    def world(self) -> Tastes | Stars:
        """Which it is tried in."""
        return Stars.of(_SEED) if self.model_class.predicts_values else Tastes.of(_SEED)

    @cached_property
    def fitted(self) -> Recommender:
        """On that world's log."""
        return self.fit(self.world.log)

    def fit(self, log: Log) -> Recommender:
        """On another log."""
        config = self.model_class.Config.parse(self.settings, f"model {self.kind}")
        return self.model_class.fit(log, config)

    def read_again(self, model: Recommender) -> Recommender:
        """What comes of a model that is written as a bundle's tensor file and JSON."""
        config, tensors = written_and_read(Packed(model))
        if self.model is not None:
            return self.model.from_state(config["model"], tensors)
        return Packed.from_state(config, tensors)

    @cached_property
    def askers(self) -> Askers:
        """Some who were in the log, and some who were not."""
        known = Askers.known(self.world.log, np.arange(12, dtype=np.int32))
        strange = [known.histories[0], _rows(), _rows(3), _rows(5, 1, 4)]
        return Askers(
            np.append(known.row_B, np.full(len(strange), NOBODY)).astype(np.int32),
            [*known.histories, *strange],
            [*(known.values or ()), *(np.full(len(one), np.nan, np.float32) for one in strange)],
            None
            if known.attributes is None
            else pa.concat_tables([known.attributes, known.attributes[: len(strange)]]),
        )


def the_same_seed_gives_the_same_model(case: Case) -> None:
    """Fitted twice, it is the same to the last bit."""
    assert_same(case.fitted, case.fit(case.world.log))


def what_was_saved_answers_the_same(case: Case) -> None:
    """Written as a bundle's tensor file and JSON, and read again."""
    again = case.read_again(case.fitted)
    assert type(again) is type(case.fitted)
    assert again.num_items == case.fitted.num_items
    assert np.array_equal(again.scores(case.askers), case.fitted.scores(case.askers)), "scores differ"
    mine, read = case.fitted.recommend(case.askers, _K), again.recommend(case.askers, _K)
    assert np.array_equal(mine[0], read[0]), "lists differ"


def what_is_released_answers_strangers_the_same(case: Case) -> None:
    """Without rows of users, written and read again, strangers get what they got; users of the log are strangers to it."""
    released = case.read_again(case.fitted.without_users())
    nobody_B = np.full(len(case.askers), NOBODY, np.int32)
    strangers = Askers(nobody_B, case.askers.histories, case.askers.values, case.askers.attributes)
    expected_BI = case.fitted.scores(strangers)
    assert np.array_equal(released.scores(strangers), expected_BI), "scores differ"
    for name in case.fitted.user_tensors:
        assert len(case.fitted.tensors()[name]) == case.world.log.num_users, (
            f"{name} has no row for each user"
        )
        assert not len(released.tensors()[name]), f"{name} has rows of users"
        assert np.array_equal(released.scores(case.askers), expected_BI), "somebody is known"


def nobody_is_refused(case: Case) -> None:
    """Unknown users, empty histories and unknown items get finite scores and whole lists."""
    num_users, num_items = case.world.log.num_users, case.world.log.num_items
    row_B = np.array([NOBODY, NOBODY, NOBODY, num_users, num_users + 9, 0], np.int32)
    histories = [_rows(), _rows(-5, num_items, num_items + 7), _rows(-5, 2), _rows(), _rows(1), _rows()]
    for values in (None, [np.full(len(one), np.nan, np.float32) for one in histories]):
        askers = Askers(row_B, histories, values)
        score_BI = case.fitted.scores(askers)
        assert score_BI.shape == (len(askers), num_items)
        assert np.isfinite(score_BI).all(), "a score is not finite"
        item_BK, _ = case.fitted.recommend(askers, _K)
        assert (item_BK != PADDING).all(), "a list is not full"
        score_C = case.fitted.score(askers, [_rows(-1, 0, num_items)] * len(askers))
        assert all(np.isnan(one[[0, 2]]).all() and np.isfinite(one[1]) for one in score_C)
    assert len(case.fitted.scores(Askers(_rows(), []))) == 0, "nobody asks"


def strangers_get_what_is_popular(case: Case) -> None:
    """The list of whoever has no history has items that more people took than the mean item's."""
    log = case.world.log
    if isinstance(case.world, Stars):
        return  # lists of values are of what is good, not of what is popular
    count_I = np.bincount(log.item_N, minlength=log.num_items)
    item_BK, _ = case.fitted.recommend(Askers.strangers([_rows()]), _K)
    assert count_I[item_BK].mean() > 1.2 * count_I.mean(), f"taken {count_I[item_BK].mean():.1f} times"


def one_user_is_enough(case: Case) -> None:
    """A log of one user, of one item, and of nothing: finite scores or a DataError."""
    logs = [
        Log.of(_rows(0, 0, 0), _rows(2, 0, 3), num_users=1, num_items=5, timestamp_ms_N=np.arange(3)),
        Log.of(_rows(0, 1), _rows(0, 0), num_users=2, num_items=1),
        Log.of(_rows(), _rows(), num_users=2, num_items=3),
    ]
    for log in logs:
        try:
            model = case.fit(log)
        except DataError:
            continue
        assert np.isfinite(model.scores(Askers.known(log))).all()
        assert np.isfinite(model.scores(Askers.strangers([_rows(0)]))).all()


def long_lists_end_with_the_catalogue(case: Case) -> None:
    """Lists longer than there are items have each item once, and nothing behind them."""
    num_items = case.world.log.num_items
    item_BK, score_BK = case.fitted.recommend(case.askers, num_items + 5, Filters(exclude_seen=False))
    assert item_BK.shape == score_BK.shape == (len(case.askers), num_items + 5), "not so long as was asked"
    for item_K, score_K in zip(item_BK, score_BK, strict=True):
        assert sorted(item_K[:num_items]) == list(range(num_items))
        assert (item_K[num_items:] == PADDING).all()
        assert np.isneginf(score_K[num_items:]).all()
        assert (np.diff(score_K[:num_items]) <= 0).all(), "not best first"


def rules_hold(case: Case) -> None:
    """What is seen, excluded or not allowed is in no list."""
    allowed_I = np.arange(case.world.log.num_items) % 3 != 0
    exclude = [_rows(1, 4, 7, -3)] * len(case.askers)
    item_BK, _ = case.fitted.recommend(case.askers, _K, Filters(exclude=exclude, allowed_I=allowed_I))
    for item_K, history_L in zip(item_BK, case.askers.histories, strict=True):
        shown = item_K[item_K != PADDING]
        assert allowed_I[shown].all(), "not allowed"
        assert not np.isin(shown, exclude[0]).any(), "excluded"
        assert not np.isin(shown, history_L).any(), "seen"
        assert len(np.unique(shown)) == len(shown), "twice"


def lists_are_the_best_of_the_scores(case: Case) -> None:
    """Nothing that is not in a list scores above what is, to rounding, and lists say the scores that `scores` does."""
    score_BI = case.fitted.scores(case.askers)
    item_BK, score_BK = case.fitted.recommend(case.askers, _K, Filters(exclude_seen=False))
    near = 2e-5 * (np.abs(score_BI).max() + 1e-6)
    for score_I, item_K, score_K in zip(score_BI, item_BK, score_BK, strict=True):
        assert np.abs(score_I[item_K] - score_K).max() <= near, "a list says other scores"
        left_I = np.delete(score_I, item_K)
        assert left_I.max() <= score_K.min() + near, "a better item was left out"


def what_is_repeated_counts_once(case: Case) -> None:
    """A history that has an item again is that which has it at its newest place alone; not for models of order, see `checks_of`."""
    for again, once in ((_rows(1, 4, 1), _rows(4, 1)), (_rows(2, 2, 2), _rows(2))):
        first_BI, second_BI = (case.fitted.scores(Askers.strangers([one])) for one in (again, once))
        scale = np.abs(second_BI).max() + 1e-6
        assert np.abs(first_BI - second_BI).max() <= 2e-5 * scale, "an item counts more than once"


def the_order_of_rows_does_not_matter(case: Case) -> None:
    """A log's rows may come in any order: their times order them."""
    log = case.world.log
    order = np.random.default_rng(1).permutation(len(log))
    mixed = Log.of(
        log.user_N[order], log.item_N[order], num_users=log.num_users, num_items=log.num_items,
        value_N=log.value_N[order], timestamp_ms_N=log.timestamp_ms_N[order], items=log.items, users=log.users,
    )  # fmt: skip
    assert np.array_equal(case.fit(mixed).scores(case.askers), case.fitted.scores(case.askers))


def askers_do_not_touch_each_other(case: Case) -> None:
    """Asked alone or together, each gets the same, to rounding."""
    together_BI = case.fitted.scores(case.askers)
    alone_BI = np.concatenate(
        [case.fitted.scores(case.askers[at : at + 1]) for at in range(len(case.askers))]
    )
    scale = np.abs(together_BI).max() + 1e-6
    np.testing.assert_allclose(alone_BI / scale, together_BI / scale, atol=2e-5)


def nothing_that_was_given_is_changed(case: Case) -> None:
    """The log and the askers are as they were."""
    log = case.world.log
    before = [column.copy() for column in (log.user_N, log.item_N, log.value_N, log.timestamp_ms_N)]
    histories = [history_L.copy() for history_L in case.askers.histories]
    model = case.fit(log)
    score_BI = model.scores(case.askers)
    kept_BI = score_BI.copy()
    model.recommend(case.askers, _K)
    assert np.array_equal(model.scores(case.askers), kept_BI), "asking changed it"
    after = (log.user_N, log.item_N, log.value_N, log.timestamp_ms_N)
    for column, was in zip(after, before, strict=True):
        assert (column == was).all(), "the log was changed"
    same = [np.array_equal(a, b) for a, b in zip(histories, case.askers.histories, strict=True)]
    assert all(same), "a history was changed"


def vectors_order_as_scores_do(case: Case) -> None:
    """Inner products of a user's and the items' vectors, where there are such, order the items alike."""
    vector_ID, vector_BD = case.fitted.item_vectors(), case.fitted.user_vectors(case.askers)
    assert (vector_ID is None) == (vector_BD is None)
    if vector_ID is None or vector_BD is None:
        return
    score_BI = case.fitted.scores(case.askers)
    for score_I, product_I in zip(score_BI, vector_BD @ vector_ID.T, strict=True):
        if np.ptp(score_I) < 1e-6 or np.ptp(product_I) < 1e-6:
            continue  # all alike: whoever has no vector
        assert np.corrcoef(_ranks(score_I), _ranks(product_I))[0, 1] > 0.999


def it_learns_the_world(case: Case) -> None:
    """Its lists reach a share of what the best possible lists would, its values come near the noise."""
    world, found = case.world, case.fitted
    if isinstance(world, Stars):
        most = world.rmse_of_biases()
        assert world.rmse(found) < NOISE + 0.5 * (most - NOISE), f"RMSE {world.rmse(found):.3f} of {most:.3f}"
        return
    k = 3 if case.is_ordered else _K
    reached = world.hit_rate(found, k)
    if case.floor is None:
        assert reached > 0.8 * world.popular_hit_rate(k), f"hit rate {reached:.3f}"
        return
    best = world.best_hit_rate(k, ordered=case.is_ordered)
    assert reached > case.floor * best, f"hit rate {reached:.3f} of {best:.3f}"


def its_loss_falls(case: Case) -> None:
    """On a few users that it can learn by heart, the loss falls from third to third of the fit."""
    log = case.world.log
    few_N = log.user_N < 8
    small = Log.of(
        log.user_N[few_N], log.item_N[few_N], num_users=8, num_items=log.num_items, value_N=log.value_N[few_N],
        timestamp_ms_N=log.timestamp_ms_N[few_N], items=log.items,
        users=None if log.users is None else log.users[:8],
    )  # fmt: skip
    losses = np.array(case.fit(small).losses)
    if not len(losses):
        assert not case.fitted.losses, "a small log's losses are not told"
        return
    assert len(losses) >= 3, "too few passes to see it fall"
    thirds = [part.mean() for part in np.array_split(losses, 3)]
    assert np.isfinite(losses).all()
    assert thirds[0] > thirds[1] >= thirds[2], f"losses by thirds: {thirds}"


CHECKS: Final[Mapping[str, Callable[[Case], None]]] = {
    check.__name__: check
    for check in (
        the_same_seed_gives_the_same_model, what_was_saved_answers_the_same,
        what_is_released_answers_strangers_the_same, nobody_is_refused,
        strangers_get_what_is_popular, one_user_is_enough,
        long_lists_end_with_the_catalogue, rules_hold, lists_are_the_best_of_the_scores,
        what_is_repeated_counts_once, the_order_of_rows_does_not_matter,
        askers_do_not_touch_each_other, nothing_that_was_given_is_changed, vectors_order_as_scores_do,
        it_learns_the_world, its_loss_falls,
    )
}  # fmt: skip


def checks_of(case: Case) -> dict[str, Callable[[Case], None]]:
    """Those that a case is to pass, by name."""
    left_out = {what_is_repeated_counts_once.__name__} if case.is_ordered else set()
    return {name: check for name, check in CHECKS.items() if name not in left_out}


def _rows(*rows: int) -> Int32:
    return np.array(rows, np.int32)


def _ranks(score_I: Float32) -> Int32:
    rank_I = np.empty(len(score_I), np.int32)
    rank_I[np.argsort(score_I, kind="stable")] = np.arange(len(score_I), dtype=np.int32)
    return rank_I
