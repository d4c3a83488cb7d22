"""Which check of `tastemaker.testing.contracts` sees which fault: each is planted in a model that keeps the contract."""

import os
import threading

import numpy as np
import pytest

from tastemaker.models.factors.ials import Ials
from tastemaker.models.log import Filters, Log
from tastemaker.models.recommender import ALL_UNSEEN
from tastemaker.models.top import PADDING
from tastemaker.testing.contracts import CHECKS, Case


class Sound(Ials):
    """What faults are planted in."""

    kind = "planted"


class DrawsWithoutSeed(Sound):
    @classmethod
    def fit(cls, log, config):
        model = super().fit(log, config)
        luck = np.random.default_rng(int.from_bytes(os.urandom(8), "little"))
        item_ID = model.item_vectors() + luck.normal(0, 1e-3, model.item_vectors().shape)
        return cls(config, item_ID.astype(np.float32), model.popular_I)


class ForgetsWhatIsPopular(Sound):
    @classmethod
    def from_state(cls, config, tensors):
        return super().from_state(config, {**tensors, "popular": np.zeros_like(tensors["popular"])})


class KeepsUsersUntold(Sound):
    @classmethod
    def fit(cls, log, config):
        model = super().fit(log, config)
        model.users = np.zeros((log.num_users, 2), np.float32)
        return model

    def tensors(self):
        return super().tensors() | {"users": self.users}

    @classmethod
    def from_state(cls, config, tensors):
        model = super().from_state(config, tensors)
        model.users = tensors["users"]
        return model


class ReleasesUsers(KeepsUsersUntold):
    user_tensors = ("users",)

    def without_users(self):
        return self


class RaisesOnUnknownItems(Sound):
    def user_vectors(self, askers):
        for history in askers.histories:
            self._item_ID[history]  # an IndexError
        return super().user_vectors(askers)


class ListsWhatNobodyTook(Sound):
    @classmethod
    def fit(cls, log, config):
        model = super().fit(log, config)
        model.popular_I = -model.popular_I
        return model


class NeedsManyUsers(Sound):
    @classmethod
    def fit(cls, log, config):
        if log.num_users < 3:
            raise ValueError("too few users")
        return super().fit(log, config)


class EndsListsEarly(Sound):
    def recommend(self, askers, k, filters=ALL_UNSEEN):
        return super().recommend(askers, min(k, self.num_items), filters)


class PassesRulesOver(Sound):
    def recommend(self, askers, k, filters=ALL_UNSEEN):
        return super().recommend(askers, k, Filters(filters.exclude_seen, filters.exclude))


class MissesTheBest(Sound):
    def recommend(self, askers, k, filters=ALL_UNSEEN):
        items, scores = super().recommend(askers, k + 1, filters)
        return items[:, 1:], scores[:, 1:]


class CountsRepeats(Sound):
    def user_vectors(self, askers):
        length_B = np.array([len(history) for history in askers.histories], np.float32)
        return super().user_vectors(askers) * np.maximum(length_B, 1)[:, None]


class RulesOutAfterwards(Sound):
    """Takes the best of all and leaves out what may not be shown, so that lists are short."""

    def recommend(self, askers, k, filters=ALL_UNSEEN):
        items, scores = super().recommend(askers, k, Filters(filters.exclude_seen))
        for item_K, score_K, exclude in zip(items, scores, filters.exclude or [[]] * len(items), strict=True):
            gone = np.isin(item_K, exclude)
            if filters.allowed_I is not None:
                gone |= (item_K != PADDING) & ~filters.allowed_I[item_K]
            order = np.argsort(gone, kind="stable")
            item_K[:], score_K[:] = (
                np.where(gone, PADDING, item_K)[order],
                np.where(gone, -np.inf, score_K)[order],
            )
        return items, scores


class ScoresGivenItemsOtherwise(Sound):
    def score(self, askers, items):
        return [2 * score_C + 1 for score_C in super().score(askers, items)]


class HasNoVectors(Sound):
    scores_are_products = False

    def item_vectors(self):
        return np.zeros_like(self._item_ID)


class ForgetsItsConfig(Sound):
    @classmethod
    def from_state(cls, config, tensors):
        model = super().from_state(config, tensors)
        model.config = cls.Config()
        return model


class RemembersWhoAsks(Sound):
    """What one thread asks for is another's answer: it waits until the other has asked too."""

    meeting = threading.Barrier(2)

    def user_vectors(self, askers):
        self.askers = askers
        if threading.current_thread() is not threading.main_thread():
            self.meeting.wait(timeout=10)
        return super().user_vectors(self.askers)


class SortsHistories(Sound):
    def user_vectors(self, askers):
        for history_L in askers.histories:
            history_L.sort()
        return super().user_vectors(askers)


class ListsNothingOfOneUser(Sound):
    def recommend(self, askers, k, filters=ALL_UNSEEN):
        if self.num_items < k:
            raise ValueError("kth out of bounds")
        return super().recommend(askers, k, filters)


class ComparesAskers(Sound):
    def user_vectors(self, askers):
        vector_BD = super().user_vectors(askers)
        return vector_BD - vector_BD.mean(axis=0) if len(vector_BD) > 1 else vector_BD


class ChangesTheLog(Sound):
    @classmethod
    def fit(cls, log, config):
        log.value_N[:] += 1
        return super().fit(log, config)


class HasOthersVectors(Sound):
    scores_are_products = False

    def item_vectors(self):
        return self._item_ID[::-1]


class LearnsNothing(Sound):
    @classmethod
    def fit(cls, log, config):
        item_ID = np.random.default_rng(0).normal(0, 1, (log.num_items, config.dim)).astype(np.float32)
        return cls(config, item_ID, super().fit(log, config).popular_I)


class ReadsRowsInTheirOrder(Sound):
    """Keeps the contract as long as logs are sorted."""

    @classmethod
    def fit(cls, log, config):
        model = super().fit(log, config)
        model.popular_I = np.bincount(log.item_N, np.arange(len(log)), log.num_items).astype(np.float32)
        return model


class GetsWorse(Sound):
    @classmethod
    def fit(cls, log, config):
        model = super().fit(log, config)
        model.losses = model.losses[::-1]
        return model


FAULTS = {
    DrawsWithoutSeed: {"the_same_seed_gives_the_same_model", "the_order_of_rows_does_not_matter"},
    ForgetsWhatIsPopular: {
        "what_was_saved_answers_the_same",
        "what_is_released_answers_strangers_the_same",
    },
    ReleasesUsers: {"what_is_released_answers_strangers_the_same"},
    RaisesOnUnknownItems: {"nobody_is_refused"},
    ListsWhatNobodyTook: {"strangers_get_what_is_popular"},
    NeedsManyUsers: {"one_user_is_enough"},
    ListsNothingOfOneUser: {"one_user_is_enough", "long_lists_end_with_the_catalogue"},
    EndsListsEarly: {"one_user_is_enough", "long_lists_end_with_the_catalogue"},
    RulesOutAfterwards: {"rules_hold"},
    ScoresGivenItemsOtherwise: {"lists_are_the_best_of_the_scores"},
    KeepsUsersUntold: {"what_is_released_answers_strangers_the_same"},
    ForgetsItsConfig: {
        "what_was_saved_answers_the_same",
        "what_is_released_answers_strangers_the_same",
        "one_user_is_enough",
    },
    RemembersWhoAsks: {"several_may_ask_at_once"},
    SortsHistories: {"nothing_that_was_given_is_changed"},
    HasNoVectors: {"vectors_order_as_scores_do"},
    PassesRulesOver: {"rules_hold"},
    MissesTheBest: {"lists_are_the_best_of_the_scores", "long_lists_end_with_the_catalogue", "rules_hold"},
    CountsRepeats: {"what_is_repeated_counts_once"},
    ComparesAskers: {"askers_do_not_touch_each_other"},
    ChangesTheLog: {"nothing_that_was_given_is_changed"},
    HasOthersVectors: {"vectors_order_as_scores_do"},
    LearnsNothing: {"it_learns_the_world"},
    GetsWorse: {"its_loss_falls"},
}
"""By fault, all checks that see it."""


def case_of(model: type[Ials]) -> Case:
    return Case("planted", {"dim": 8, "block": 8, "iterations": 8}, model=model)


def seen_by(model: type[Ials]) -> set[str]:
    """The checks that a model does not pass."""
    case, found = case_of(model), set()
    for name, check in CHECKS.items():
        try:
            check(case)
        except Exception:  # noqa: BLE001 (what a broken model does is not always an assertion)
            found.add(name)
    return found


def test_the_model_that_faults_are_planted_in_keeps_the_contract():
    assert not seen_by(Sound)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_seen_by_these_checks_and_no_others(fault):
    assert seen_by(fault) == FAULTS[fault]


def test_rows_that_are_left_in_the_order_in_which_they_came_are_seen(monkeypatch):
    """All models get a log that is sorted: it is `Log.of` that would break this check."""
    case, check = case_of(ReadsRowsInTheirOrder), CHECKS["the_order_of_rows_does_not_matter"]
    check(case)

    def as_given(user_N, item_N, *, num_users, num_items, value_N, timestamp_ms_N, items=None, users=None):
        return Log(num_users, num_items, user_N, item_N, value_N, timestamp_ms_N, items, users)

    monkeypatch.setattr(Log, "of", as_given)
    with pytest.raises(AssertionError):
        check(case)


def test_each_check_sees_a_fault():
    assert set().union(*FAULTS.values()) == CHECKS.keys()
