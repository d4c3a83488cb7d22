"""What a model of sequences learns from: stretches of users' histories, some of them held out to say when to stop.

Shape letters: N rows of a log, W windows, B windows of a batch, U users, L history.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tastemaker.models.log import Log
from tastemaker.types import Float32, Int32, Int64

Stretches = Literal["newest", "all"]


@dataclass(frozen=True, slots=True)
class Windows:
    """Stretches of histories: window w reads `length_W` items of `item_N` from `begin_W` on.

    The item behind a window is the newest that it may learn to expect: each window's items but the first, and that one, come
    next after another. `taken_N`, sorted, has `user * num_items + item` of all that users are known to have.
    """

    num_items: int
    item_N: Int32
    user_W: Int64
    begin_W: Int64
    length_W: Int64
    taken_N: Int64

    @classmethod
    def of(cls, log: Log, length_U: Int64, max_length: int, stretches: Stretches) -> "Windows":
        """Windows of each user's first `length_U` rows, cut from the newest back, none shorter than one item.

        Each row but a user's first comes next in one window, with `newest` only those of the last window.
        """
        offsets = log.offsets
        num_next_U = np.maximum(length_U - 1, 0)
        num_U = -(-num_next_U // max_length)
        if stretches == "newest":
            num_U = np.minimum(num_U, 1)
        user_W = np.repeat(np.arange(log.num_users), num_U)
        which_W = np.arange(len(user_W)) - np.repeat(np.cumsum(num_U) - num_U, num_U)
        end_W = offsets[user_W] + num_next_U[user_W] - which_W * max_length
        begin_W = np.maximum(end_W - max_length, offsets[user_W])
        # What is held out is not known to be taken: it may be drawn.
        known_N = np.arange(len(log)) - offsets[log.user_N] < length_U[log.user_N]
        taken_N = np.unique(log.user_N[known_N].astype(np.int64) * log.num_items + log.item_N[known_N])
        return cls(log.num_items, log.item_N, user_W, begin_W, end_W - begin_W, taken_N)

    def __len__(self) -> int:
        return len(self.begin_W)

    def batches(self, size: int, generator: np.random.Generator) -> Iterator[Int64]:
        """All windows in random order, `size` at a time."""
        order_W = generator.permutation(len(self))
        for begin in range(0, len(order_W), size):
            yield order_W[begin : begin + size]

    def draw(self, user_X: Int64, num: int, generator: np.random.Generator) -> Int64:
        """Items (X, num), drawn uniformly, that the users do not have, as far as a few draws find any."""
        shape = (len(user_X), num)
        drawn_X = generator.integers(0, self.num_items, shape).reshape(-1)
        base_X = np.repeat(user_X * self.num_items, num)
        again = np.arange(len(drawn_X))
        for _ in range(3):
            again = again[self._are_taken(base_X[again] + drawn_X[again])]
            drawn_X[again] = generator.integers(0, self.num_items, len(again))
        return drawn_X.reshape(shape)

    def _are_taken(self, key_X: Int64) -> np.ndarray:
        at_X = np.minimum(np.searchsorted(self.taken_N, key_X), len(self.taken_N) - 1)
        found: np.ndarray = self.taken_N[at_X] == key_X
        return found


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Users' newest items and the histories before them."""

    histories: list[Int32]
    target_B: Int32

    @classmethod
    def of(cls, log: Log, most: int, generator: np.random.Generator) -> tuple["HeldOut", Int64]:
        """The newest item of those who have at least three, and how many rows that leaves each user.

        Of more than `most` such users some are drawn to be asked about; the others' newest item is left out all the same.
        """
        offsets = log.offsets
        length_U = np.diff(offsets)
        user_B = np.flatnonzero(length_U >= 3)
        left_U = length_U.copy()
        left_U[user_B] -= 1
        if len(user_B) > most:
            user_B = np.sort(generator.choice(user_B, most, replace=False))
        end_B = offsets[user_B] + left_U[user_B]
        histories = [log.item_N[begin:end] for begin, end in zip(offsets[user_B], end_B, strict=True)]
        return cls(histories, log.item_N[end_B]), left_U

    def __len__(self) -> int:
        return len(self.histories)

    def ndcg(self, user_BD: Float32, item_ID: Float32, k: int = 10) -> float:
        """Mean NDCG at k of the held-out items among all that users did not have: 1 / log2(1 + rank), 0 behind k.

        A score that equals the target's counts as better, so that scores that are all alike find nothing.
        """
        gains = 0.0
        for begin in range(0, len(self), 1024):
            score_BI = user_BD[begin : begin + 1024] @ item_ID.T
            rows = range(len(score_BI))
            target_B = self.target_B[begin : begin + 1024]
            own_B = score_BI[rows, target_B].copy()
            for row_I, history_L in zip(score_BI, self.histories[begin : begin + 1024], strict=True):
                row_I[history_L] = -np.inf
            score_BI[rows, target_B] = -np.inf
            rank_B = 1 + (score_BI >= own_B[:, None]).sum(axis=1)
            gains += float((1 / np.log2(1 + rank_B))[rank_B <= k].sum())
        return gains / max(1, len(self))
