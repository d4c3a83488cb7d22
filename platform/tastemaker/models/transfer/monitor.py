"""Whether a transfer pays: a model that learned from other domains beside one of the target alone, by group of users.

Of some users what they have in the target is hidden before either learns: of a third all (`cold`), of a third all but their first few
items (`few`), of a third the newest fifth (`many`). They are then asked for what is hidden.

Shape letters: B askers, K slots, M targets, N rows of the log.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
from pydantic import Field

from tastemaker.models.log import Askers
from tastemaker.models.recommender import Recommender
from tastemaker.models.transfer.domains import Domains, own_counts, some_of
from tastemaker.resampling import bootstrap
from tastemaker.strict import Strict
from tastemaker.types import Float64, Int32, Int64

Group = Literal["cold", "few", "many"]
GROUPS: Final[tuple[Group, ...]] = get_args(Group)
_ROUNDS = 4000


class MonitorConfig(Strict):
    """What is held out, and what is called a gain."""

    k: int = Field(20, ge=1, description="length of the lists, of which NDCG is taken")
    few: int = Field(5, ge=1, description="items of the target that are still few")
    share: float = Field(
        0.3,
        gt=0,
        le=0.5,
        description="of users of whom something of the target is hidden, a third for each group",
    )
    most_users: int = Field(3000, ge=3, description="of whom something is hidden, at most")
    least_users: int = Field(
        30,
        ge=2,
        description="of a group: of fewer nothing is said; so many are asked where half of all are enough",
    )
    level: float = Field(
        0.95, gt=0, lt=1, description="chance that the intervals of all three groups hold the truth"
    )


class GroupVerdict(Strict):
    """What one group of users gains: mean NDCG of both models, and their difference with its interval; none of nobody."""

    group: str = Field(description="cold, few or many, with or without a history in a source")
    num_users: int = Field(ge=0, description="that were asked")
    alone: float | None = Field(None, description="of the model of the target alone")
    moved: float | None = Field(None, description="of the model that learned from other domains too")
    difference: float | None = Field(None, description="moved less alone")
    low: float | None = Field(None, description="lower end of the difference's interval")
    high: float | None = Field(None, description="its upper end")
    finding: Literal["helps", "hurts", "unclear", "too few"] = Field(
        description="helps or hurts where the interval leaves 0 out"
    )

    def line(self) -> str:
        """For people."""
        if self.difference is None:
            return f"{self.group}: {self.finding} ({self.num_users} users)"
        return (
            f"{self.group}: {self.finding}, {self.alone:.4f} alone, {self.moved:.4f} with transfer, difference "
            f"{self.difference:+.4f} [{self.low:+.4f}, {self.high:+.4f}], {self.num_users} users"
        )


class Verdict(Strict):
    """For whom the transfer is kept: the groups that it was shown to help. Others are served by the target's own model."""

    kept: tuple[Group, ...] = Field(description="groups that the transfer is kept for")
    groups: tuple[GroupVerdict, ...] = Field((), description="what was found, group by group")

    def lines(self) -> list[str]:
        """For people."""
        kept = f"transfer kept for: {', '.join(self.kept)}" if self.kept else "transfer dropped"
        return [kept, *(group.line() for group in self.groups if group.group in GROUPS)]


@dataclass(frozen=True, slots=True)
class Asked:
    """Who is asked, and for what: the items of the target that are hidden."""

    askers: Askers
    targets: Sequence[Int32]


@dataclass(frozen=True, slots=True)
class Held:
    """What is left of the domains, and who is asked in each group."""

    domains: Domains
    asked: Mapping[Group, Asked]


def hold_out(domains: Domains, config: MonitorConfig, seed: int) -> Held:
    """Hides what some users with two or more items of the target have of it.

    Users of `many` keep more than `few` items. At most half of all users are drawn. An item that is hidden of a user is so with
    all its rows; whoever then has nothing of any domain is not asked.
    """
    draws, log = np.random.default_rng((seed, 0)), domains.log
    own_U = own_counts(Askers.known(log), domains.is_target)
    able = draws.permutation(np.flatnonzero(own_U >= 2))
    wanted = max(len(GROUPS) * config.least_users, round(config.share * len(able)))
    num = min(wanted, config.most_users, len(able) // 2) // len(GROUPS)
    many = able[own_U[able] >= config.few + 2][:num]
    rest = np.setdiff1d(able, many)
    rest = draws.permutation(rest)
    users = {"cold": rest[:num], "few": rest[num : 2 * num], "many": many}
    histories, hidden = log.histories(), {}
    for group, user_B in users.items():
        for user in user_B:
            history_L = histories[user]
            own = np.array([*dict.fromkeys(history_L[domains.is_target[history_L]])], np.int32)
            hidden[int(user)] = own[_kept(group, len(own), config.few, draws) :]
    key_N = log.user_N.astype(np.int64) * log.num_items + log.item_N
    gone = [user * log.num_items + items.astype(np.int64) for user, items in hidden.items()]
    left = domains.without(np.isin(key_N, np.concatenate([*gone, np.empty(0, np.int64)])))
    return Held(left, {group: _asked(left, users[group], hidden) for group in GROUPS})


def _kept(group: str, num: int, few: int, draws: np.random.Generator) -> int:
    """How many of a user's items of the target, the oldest, are not hidden."""
    if group == "cold":
        return 0
    if group == "few":
        return int(draws.integers(1, min(few, num - 1) + 1))
    return max(few + 1, num - max(1, num // 5))


def _asked(left: Domains, user_B: Int64, hidden: Mapping[int, Int32]) -> Asked:
    known = Askers.known(left.log, np.sort(user_B).astype(np.int32))
    place = np.flatnonzero([len(history_L) > 0 for history_L in known.histories])
    askers = some_of(known, place)
    return Asked(askers, [hidden[int(user)] for user in askers.row_B])


def judge(
    alone: Recommender, moved: Recommender, held: Held, config: MonitorConfig, seed: int = 0
) -> Verdict:
    """For whom `moved` is better than `alone`, both fitted on what was left. A group that gains nothing for sure loses it.

    Differences of NDCG@k are paired by user; their intervals are percentile bootstraps at a level by which all three hold
    together [Bonferroni: 1 - (1 - level) / 3].
    """
    level = 1 - (1 - config.level) / len(GROUPS)
    source_I = held.domains.domain_I > 0
    kept: list[Group] = []
    found = []
    for group in GROUPS:
        asked = held.asked[group]
        value = [ndcg_of(model, asked, config.k) for model in (alone, moved)]
        whole = _group(group, value[0], value[1], config, level, seed)
        if whole.finding == "helps":
            kept.append(group)
        found.append(whole)
        if group == "cold":  # who has nothing of either domain is nobody
            continue
        crosses_B = own_counts(asked.askers, source_I) > 0
        for name, some_B in (("with a source", crosses_B), ("without a source", ~crosses_B)):
            parts = (value[0][some_B], value[1][some_B])
            found.append(_group(f"{group}, {name}", *parts, config, level, seed))
    return Verdict(kept=tuple(kept), groups=tuple(found))


def ndcg_of(model: Recommender, asked: Asked, k: int) -> Float64:
    """(B,) NDCG@k of lists that should hold what is hidden: the sum of 1 / log2(place + 1) over the best there is."""
    item_BK, _ = model.recommend(asked.askers, k)
    gain_K = 1 / np.log2(np.arange(k) + 2)
    rows = zip(item_BK, asked.targets, strict=True)
    return np.array(
        [gain_K[np.isin(item_K, items)].sum() / gain_K[: len(items)].sum() for item_K, items in rows]
    )


def _group(
    name: str, alone_B: Float64, moved_B: Float64, config: MonitorConfig, level: float, seed: int
) -> GroupVerdict:
    num = len(alone_B)
    if num == 0:
        return GroupVerdict(group=name, num_users=0, finding="too few")
    (low,), (high,) = bootstrap((moved_B - alone_B)[:, None], (seed, 1), _ROUNDS, level)
    clear: Literal["helps", "hurts", "unclear"] = "helps" if low > 0 else "hurts" if high < 0 else "unclear"
    alone, moved = float(alone_B.mean()), float(moved_B.mean())
    return GroupVerdict(
        group=name, num_users=num, alone=alone, moved=moved, difference=moved - alone, low=float(low), high=float(high),
        finding="too few" if num < config.least_users else clear,
    )  # fmt: skip


def group_of(own_B: Int64 | Sequence[int], few: int) -> Int64:
    """(B,) the place in `GROUPS` of who has so many items of the target.

    >>> group_of([0, 1, 5, 6], few=5).tolist()
    [0, 1, 1, 2]
    """
    own = np.asarray(own_B)
    return np.where(own == 0, 0, np.where(own <= few, 1, 2))
