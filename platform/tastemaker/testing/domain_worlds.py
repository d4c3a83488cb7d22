"""Two domains over the same users, drawn by a seed: related, where taste in the one tells the taste in the other, or not.

Shape letters: U users, I items, C cold users.
"""

from dataclasses import dataclass

import numpy as np

from tastemaker.models.log import Askers, Log
from tastemaker.models.recommender import Recommender
from tastemaker.models.transfer.domains import ByRows, joined
from tastemaker.types import Bool, Int32

_OWN_GROUP = 0.9
_SECOND_MS = 1000


@dataclass(frozen=True, slots=True)
class TwoDomains:
    """Users who like one group of items in each domain, and take 9 of 10 items from it, each of the group's alike.

    In related domains the group is the same in both, else the two are drawn apart. Everybody takes 8 to 12 items of the source
    and 2 to 8 of the target; what the first `num_cold` users take of the target is not in the log, and `first_C` is what they
    took first.
    """

    log: Log
    domains: ByRows
    group_U: Int32
    first_C: Int32
    items_each: int

    @classmethod
    def of(
        cls,
        seed: int,
        *,
        related: bool,
        num_users: int = 400,
        num_cold: int = 100,
        num_groups: int = 4,
        items_each: int = 12,
    ) -> "TwoDomains":
        """The world of a seed."""
        draws = np.random.default_rng(seed)
        source_U = draws.integers(num_groups, size=num_users)
        group_U = source_U if related else draws.integers(num_groups, size=num_users)
        group_I = np.repeat(np.arange(num_groups), items_each).astype(np.int32)
        source = [_taken(group_I, group, int(draws.integers(8, 13)), draws) for group in source_U]
        target = [_taken(group_I, group, int(draws.integers(2, 9)), draws) for group in group_U]
        first_C = np.array([items[0] for items in target[:num_cold]], np.int32) + len(group_I)
        nothing = [np.empty(0, np.int32)] * num_cold
        logs = {
            "source": _log(source, len(group_I)),
            "target": _log(nothing + target[num_cold:], len(group_I)),
        }
        return cls(*joined(logs), group_U.astype(np.int32), first_C.astype(np.int32), items_each)

    def cold(self) -> Askers:
        """The users of whom the log has nothing of the target, as strangers."""
        known = Askers.known(self.log, np.arange(len(self.first_C), dtype=np.int32))
        return Askers.strangers(known.histories)

    def hit_rate(self, model: Recommender, k: int) -> float:
        """Share of the cold users whose first item of the target is in the model's list of k."""
        item_BK, _ = model.recommend(self.cold(), k)
        return float((item_BK == self.first_C[:, None]).any(axis=1).mean())

    def best_hit_rate(self, k: int) -> float:
        """What is expected of lists of who knows each user's group in the target, for k up to the items of a group."""
        num_groups = int(self.group_U.max()) + 1
        stray = (1 - _OWN_GROUP) / (num_groups * self.items_each)
        return k * (_OWN_GROUP / self.items_each + stray)


def _taken(group_I: Int32, group: int, num: int, draws: np.random.Generator) -> Int32:
    own_I: Bool = group_I == group
    chance_I = _OWN_GROUP * own_I / own_I.sum() + (1 - _OWN_GROUP) / len(group_I)
    return draws.choice(len(group_I), num, replace=False, p=chance_I).astype(np.int32)


def _log(taken: list[Int32], num_items: int) -> Log:
    user_N = np.repeat(np.arange(len(taken)), [len(items) for items in taken]).astype(np.int32)
    item_N = np.concatenate(taken)
    return Log.of(
        user_N, item_N, num_users=len(taken), num_items=num_items,
        timestamp_ms_N=_SECOND_MS * np.arange(len(item_N)),
    )  # fmt: skip
