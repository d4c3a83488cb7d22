"""What every model of the zoo keeps to, as checks that a test runs for each of them.

    MINE = Case("ease", {"l2": 10.0})
    @pytest.mark.parametrize("check", checks_of(MINE))
    def test_models(check): CHECKS[check](MINE)

A model of your own is tried by its class: `Case("mine", {"dim": 8}, model=Mine)`. A check asserts; it says what was broken.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final

import numpy as np

from tastemaker.errors import DataError
from tastemaker.models.log import NOBODY, Askers, Log, known_rows
from tastemaker.models.recommender import Recommender
from tastemaker.models.top import PADDING
from tastemaker.testing.case import Case, rows
from tastemaker.testing.contracts_lists import (
    lists_are_the_best_of_the_scores,
    long_lists_end_with_the_catalogue,
    rules_hold,
)
from tastemaker.testing.saved import assert_same
from tastemaker.testing.worlds import NOISE, Stars
from tastemaker.types import Float32, Int32

__all__ = ["CHECKS", "Case", "checks_of"]

_K = 10
_TIMES = 8


def the_same_seed_gives_the_same_model(case: Case) -> None:
    """Fitted twice, it is the same to the last bit."""
    assert_same(case.fitted, case.fit(case.world.log))


def what_was_saved_answers_the_same(case: Case) -> None:
    """Written as a bundle's tensor file and JSON, and read again."""
    again = case.read_again(case.fitted)
    assert type(again) is type(case.fitted)
    assert again.num_items == case.fitted.num_items
    assert again.config == case.fitted.config, "another config"
    assert np.array_equal(again.scores(case.askers), case.fitted.scores(case.askers)), "scores differ"
    mine, read = case.fitted.recommend(case.askers, _K), again.recommend(case.askers, _K)
    assert np.array_equal(mine[0], read[0]), "lists differ"


def what_is_released_answers_strangers_the_same(case: Case) -> None:
    """Without rows of users, written and read again, strangers get what they got; users of the log are strangers to it.

    It has a row for each user, or an offset, where histories of others are the model, and nowhere else.
    """
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
    kept = _has_users(released, case.world.log.num_users)
    assert kept == case.keeps_histories, "has rows of users" if kept else "has no rows of users"


def nobody_is_refused(case: Case) -> None:
    """Unknown users, empty histories and unknown items get finite scores and whole lists."""
    num_users, num_items = case.world.log.num_users, case.world.log.num_items
    row_B = np.array([NOBODY, NOBODY, NOBODY, num_users, num_users + 9, 0], np.int32)
    histories = [rows(), rows(-5, num_items, num_items + 7), rows(-5, 2), rows(), rows(1), rows()]
    for values in (None, [np.full(len(one), np.nan, np.float32) for one in histories]):
        askers = Askers(row_B, histories, values)
        score_BI = case.fitted.scores(askers)
        assert score_BI.shape == (len(askers), num_items)
        assert score_BI.dtype == np.float32, "scores of another type"
        assert np.isfinite(score_BI).all(), "a score is not finite"
        item_BK, _ = case.fitted.recommend(askers, _K)
        assert (item_BK != PADDING).all(), "a list is not full"
        score_C = case.fitted.score(askers, [rows(-1, 0, num_items)] * len(askers))
        assert all(np.isnan(one[[0, 2]]).all() and np.isfinite(one[1]) for one in score_C)
    assert len(case.fitted.scores(Askers(rows(), []))) == 0, "nobody asks"


def strangers_get_what_is_popular(case: Case) -> None:
    """The list of whoever has no history has items that more people took than the mean item's."""
    log = case.world.log
    if isinstance(case.world, Stars):
        return  # lists of values are of what is good, not of what is popular
    count_I = np.bincount(log.item_N, minlength=log.num_items)
    item_BK, _ = case.fitted.recommend(Askers.strangers([rows()]), _K)
    assert count_I[item_BK].mean() > 1.2 * count_I.mean(), f"taken {count_I[item_BK].mean():.1f} times"


def one_user_is_enough(case: Case) -> None:
    """A log of one user, of one item, and of nothing: finite scores or a DataError."""
    logs = [
        Log.of(rows(0, 0, 0), rows(2, 0, 3), num_users=1, num_items=5, timestamp_ms_N=np.arange(3)),
        Log.of(rows(0, 1), rows(0, 0), num_users=2, num_items=1),
        Log.of(rows(), rows(), num_users=2, num_items=3),
    ]
    for log in logs:
        try:
            model = case.fit(log)
        except DataError:
            continue
        for one in (model, case.read_again(model)):
            for askers in (Askers.known(log), Askers.strangers([rows(0)])):
                assert np.isfinite(one.scores(askers)).all()
                item_BK, _ = one.recommend(askers, _K)
                assert item_BK.shape == (len(askers), _K), "not so long as was asked"


def what_is_repeated_counts_once(case: Case) -> None:
    """A history that has an item again is that which has it at its newest place alone; not for models of order, see `checks_of`."""
    for again, once in ((rows(1, 4, 1), rows(4, 1)), (rows(2, 2, 2), rows(2))):
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


def several_may_ask_at_once(case: Case) -> None:
    """Asked by two threads, each gets what it gets alone, to rounding."""
    middle = len(case.askers) // 3
    parts = case.askers[:middle], case.askers[middle:]

    def often(askers: Askers) -> list[Float32]:
        return [case.fitted.scores(askers).copy() for _ in range(_TIMES)]

    with ThreadPoolExecutor(len(parts)) as pool:
        asked = [pool.submit(often, part) for part in parts]
        together = [one.result() for one in asked]
    for part, found in zip(parts, together, strict=True):
        alone_BI = case.fitted.scores(part)
        near = 2e-5 * (np.abs(alone_BI).max() + 1e-6)
        for score_BI in found:
            assert score_BI.shape == alone_BI.shape, "somebody got another's answer"
            assert np.abs(score_BI - alone_BI).max() <= near, "somebody got another's answer"


def nothing_that_was_given_is_changed(case: Case) -> None:
    """The log and the askers are as they were."""
    fresh = replace(case)  # what was asked before may have been changed already
    log, askers = fresh.world.log, fresh.askers
    before = [column.copy() for column in (log.user_N, log.item_N, log.value_N, log.timestamp_ms_N)]
    histories = [history_L.copy() for history_L in askers.histories]
    model = case.fit(log)
    kept_BI = model.scores(askers).copy()
    model.recommend(askers, _K)
    assert np.array_equal(model.scores(askers), kept_BI), "asking changed it"
    after = (log.user_N, log.item_N, log.value_N, log.timestamp_ms_N)
    for column, was in zip(after, before, strict=True):
        assert (column == was).all(), "the log was changed"
    same = [np.array_equal(a, b) for a, b in zip(histories, askers.histories, strict=True)]
    assert all(same), "a history was changed"


def vectors_order_as_scores_do(case: Case) -> None:
    """Inner products of a user's and the items' vectors, where there are such, order the items alike."""
    vector_ID, vector_BD = case.fitted.item_vectors(), case.fitted.user_vectors(case.askers)
    assert (vector_ID is None) == (vector_BD is None)
    if vector_ID is None or vector_BD is None:
        return
    score_BI = case.fitted.scores(case.askers)
    product_BI = vector_BD @ vector_ID.T
    for history_L, score_I, product_I in zip(case.askers.histories, score_BI, product_BI, strict=True):
        if not len(known_rows(history_L, case.fitted.num_items)):
            continue  # whoever has no history may have no vector
        assert np.ptp(product_I) > 0, "no vector of somebody with a history"
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
        askers_do_not_touch_each_other, several_may_ask_at_once, nothing_that_was_given_is_changed, vectors_order_as_scores_do,
        it_learns_the_world, its_loss_falls,
    )
}  # fmt: skip


def checks_of(case: Case) -> dict[str, Callable[[Case], None]]:
    """Those that a case is to pass, by name."""
    left_out = {what_is_repeated_counts_once.__name__} if case.is_ordered else set()
    return {name: check for name, check in CHECKS.items() if name not in left_out}


def _has_users(model: Recommender, num_users: int) -> bool:
    """Whether one of its tensors has a place for each user, or an offset."""
    sizes = {size for values in model.tensors().values() for size in np.shape(values)}
    return bool(sizes & {num_users, num_users + 1})


def _ranks(score_I: Float32) -> Int32:
    rank_I = np.empty(len(score_I), np.int32)
    rank_I[np.argsort(score_I, kind="stable")] = np.arange(len(score_I), dtype=np.int32)
    return rank_I
