"""Small worlds of users with tastes, drawn by a seed, in which the best possible lists and guesses are known.

Shape letters: U users, I items, G groups, N rows of the log, B askers, K slots.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from tastemaker.data.schema import ITEMS_SCHEMA
from tastemaker.models.biases import Biases, mean_ratings
from tastemaker.models.log import Askers, Filters, Log
from tastemaker.models.recommender import Recommender
from tastemaker.types import Float32, Float64, Int32

_SECOND_MS = 1000
_OWN_GROUP = 0.9
_FOLLOWS = 0.5
_TOLD = 0.8
NOISE = 0.3


@dataclass(frozen=True, slots=True)
class Tastes:
    """Users who each like one group of items, and often take the item that comes after the one they took last.

    Of 10 items taken, 9 are of the user's own group; half of those are the item that follows the last in the group's ring, where
    it is still free, and the rest is drawn by how popular the group's free items are. Each user's last item is held out.
    What is told of items (a tag) and of users (a circle) names their group 8 times of 10, else any.
    """

    log: Log
    group_U: Int32
    group_I: Int32
    weight_I: Float64
    last_U: Int32

    @classmethod
    def of(cls, seed: int, num_users: int = 240, num_groups: int = 3, items_each: int = 20) -> "Tastes":
        """The world of a seed."""
        draws = np.random.default_rng(seed)
        group_I = np.repeat(np.arange(num_groups), items_each).astype(np.int32)
        weight_I = np.tile(1.0 / np.sqrt(1.0 + np.arange(items_each)), num_groups)
        group_U = draws.integers(num_groups, size=num_users).astype(np.int32)
        nothing = Log.of(_EMPTY, _EMPTY, num_users=num_users, num_items=len(group_I))
        blank = cls(nothing, group_U, group_I, weight_I, _EMPTY)
        taken = [blank._walk(int(group), draws, int(draws.integers(7, 11))) for group in group_U]
        user_N = np.repeat(np.arange(num_users), [len(items) for items in taken])
        item_N = np.concatenate(taken)
        last_N = np.append(user_N[1:] != user_N[:-1], True)
        log = Log.of(
            user_N[~last_N], item_N[~last_N], num_users=num_users, num_items=len(group_I),
            timestamp_ms_N=_SECOND_MS * np.flatnonzero(~last_N), items=told_items(group_I, num_groups, seed),
            users=told_users(group_U, num_groups, seed),
        )  # fmt: skip
        return cls(log, group_U, group_I, weight_I, item_N[last_N].astype(np.int32))

    def _walk(self, group: int, draws: np.random.Generator, length: int) -> Int32:
        taken = np.empty(0, np.int32)
        for _ in range(length):
            chance_I = self.next_chances(group, taken)
            taken = np.append(taken, draws.choice(len(chance_I), p=chance_I)).astype(np.int32)
        return taken

    def next_chances(self, group: int, taken_L: Int32) -> Float64:
        """(I,) the true chance that each item is what a user of a group takes next; those taken have none."""
        free_I = np.ones(len(self.group_I), np.bool_)
        free_I[taken_L] = False
        own_I = free_I & (self.group_I == group)
        chance_I = _OWN_GROUP * _shares(self.weight_I, own_I)
        chance_I += (1 - _OWN_GROUP) * _shares(np.ones(len(free_I)), free_I & (self.group_I != group))
        if len(taken_L) and self.group_I[taken_L[-1]] == group:
            follower = self._follower(int(taken_L[-1]))
            if free_I[follower]:
                own_share = chance_I[own_I].sum()
                chance_I[own_I] *= 1 - _FOLLOWS
                chance_I[follower] += _FOLLOWS * own_share
        shares_I: Float64 = chance_I / chance_I.sum()
        return shares_I

    def _follower(self, item: int) -> int:
        ring = np.flatnonzero(self.group_I == self.group_I[item])
        return int(ring[(item - ring[0] + 1) % len(ring)])

    def hit_rate(self, model: Recommender, k: int) -> float:
        """Share of users whose held-out item is in the model's list of k."""
        item_BK, _ = model.recommend(Askers.known(self.log), k, Filters())
        return float((item_BK == self.last_U[:, None]).any(axis=1).mean())

    def best_hit_rate(self, k: int, *, ordered: bool) -> float:
        """What is expected of the best lists there are: of who knows each user's group and all chances.

        Args:
            k: Length of the lists.
            ordered: Whether the list may depend on which item was the last.
        """
        found = []
        for group, history_L in zip(self.group_U, self.log.histories(), strict=True):
            chance_I = self.next_chances(int(group), history_L)
            by_I = chance_I if ordered else self._unordered(int(group), history_L)
            found.append(chance_I[np.argsort(-by_I, kind="stable")[:k]].sum())
        return float(np.mean(found))

    def _unordered(self, group: int, history_L: Int32) -> Float64:
        score_I = self.weight_I * np.where(self.group_I == group, 1.0, 0.01)
        score_I[history_L] = -np.inf
        return score_I

    def popular_hit_rate(self, k: int) -> float:
        """What is expected of lists of the items that the log has most often, those taken left out."""
        count_I = np.bincount(self.log.item_N, minlength=self.log.num_items).astype(np.float64)
        found = []
        for group, history_L in zip(self.group_U, self.log.histories(), strict=True):
            left_I = count_I.copy()
            left_I[history_L] = -np.inf
            chance_I = self.next_chances(int(group), history_L)
            found.append(chance_I[np.argsort(-left_I, kind="stable")[:k]].sum())
        return float(np.mean(found))


@dataclass(frozen=True, slots=True)
class Stars:
    """Users who rate items drawn at random, those of the group that they like two stars above the others.

    A value is 3, more or less by user and by item (standard deviation 0.3 each), plus 1 for an item of the user's group and
    minus 1 for others, with noise of standard deviation 0.3. Each user's last three ratings are held out.
    """

    log: Log
    user_M: Int32
    item_M: Int32
    value_M: Float32

    @classmethod
    def of(cls, seed: int, num_users: int = 240, num_groups: int = 3, items_each: int = 20) -> "Stars":
        """The world of a seed."""
        draws = np.random.default_rng(seed)
        group_I = np.repeat(np.arange(num_groups), items_each)
        num_items, num_each, num_held = len(group_I), 20, 3
        item_UN = np.array([draws.permutation(num_items)[:num_each] for _ in range(num_users)])
        user_UN = np.repeat(np.arange(num_users)[:, None], num_each, axis=1)
        own_UN = group_I[item_UN] == draws.integers(num_groups, size=num_users)[:, None]
        bias_U, bias_I = draws.normal(0, 0.3, num_users), draws.normal(0, 0.3, num_items)
        value_UN = 3 + bias_U[:, None] + bias_I[item_UN] + np.where(own_UN, 1, -1)
        value_UN = (value_UN + draws.normal(0, NOISE, value_UN.shape)).astype(np.float32)
        kept, held = (slice(None), slice(num_held, None)), (slice(None), slice(0, num_held))
        log = Log.of(
            _int32(user_UN[kept]), _int32(item_UN[kept]), num_users=num_users, num_items=num_items,
            value_N=value_UN[kept].ravel(), timestamp_ms_N=_SECOND_MS * np.arange(user_UN[kept].size),
        )  # fmt: skip
        return cls(log, _int32(user_UN[held]), _int32(item_UN[held]), value_UN[held].ravel())

    def rmse(self, model: Recommender) -> float:
        """Root mean squared error of the model's scores as values of what was held out; `NOISE` is the best there is."""
        items = [self.item_M[self.user_M == user] for user in range(self.log.num_users)]
        guessed = model.score(Askers.known(self.log), items)
        return float(np.sqrt(np.mean((np.concatenate(guessed) - self.value_M) ** 2)))

    def rmse_of_biases(self) -> float:
        """That of who guesses by users' and items' means alone."""
        log = self.log
        found = Biases.fit(mean_ratings(log.user_N, log.item_N, log.value_N, (log.num_users, log.num_items)))
        guess_M = found.mean + found.user_U[self.user_M] + found.item_I[self.item_M]
        return float(np.sqrt(np.mean((guess_M - self.value_M) ** 2)))


_EMPTY = np.empty(0, np.int32)


def told_items(group_I: Int32, num_groups: int, seed: int) -> pa.Table:
    """A catalogue's table of items whose one tag mostly is their group's."""
    words = [f"taste-{group}" for group in _told(group_I, num_groups, (seed, 1))]
    ids = [f"item-{item}" for item in range(len(words))]
    columns: list[list[Any]] = [ids, ids, [""] * len(ids), [[word] for word in words], [None] * len(ids)]
    return pa.table(dict(zip(ITEMS_SCHEMA.names, columns, strict=True)), schema=ITEMS_SCHEMA)


def told_users(group_U: Int32, num_groups: int, seed: int) -> pa.Table:
    """A table of users whose circle mostly is their group's, and whose age says nothing."""
    circles = [f"circle-{group}" for group in _told(group_U, num_groups, (seed, 2))]
    ages = np.random.default_rng((seed, 3)).integers(18, 70, len(circles))
    return pa.table({"circle": pa.array(circles, pa.string()), "age": pa.array(ages, pa.int64())})


def _told(group_N: Int32, num_groups: int, seed: tuple[int, int]) -> Int32:
    draws = np.random.default_rng(seed)
    true_N = draws.random(len(group_N)) < _TOLD
    return np.where(true_N, group_N, draws.integers(num_groups, size=len(group_N))).astype(np.int32)


def _int32(rows: "np.ndarray[tuple[int, ...], np.dtype[np.int64]]") -> Int32:
    return rows.ravel().astype(np.int32)


def _shares(weight_I: Float64, among_I: "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]") -> Float64:
    share_I = np.where(among_I, weight_I, 0.0)
    total = share_I.sum()
    return share_I / total if total else share_I
