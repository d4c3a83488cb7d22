"""Splits of a log by time into what is learned from and what is asked for: each user's last, one moment, rolling windows.

What a user had before is no target, nor is an item twice. Shape letters: N rows, M targets.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
from pydantic import Field

from tastemaker.errors import DataError
from tastemaker.models.log import Askers, Log
from tastemaker.strict import Strict
from tastemaker.types import Bool, Float32, Int32, Int64


class LastOut(Strict):
    """Each user's newest items are held out."""

    kind: Literal["last-out"] = Field("last-out", description="each user's newest items")
    num: int = Field(1, ge=1, description="items of a user; who has no more than these has none held out")


class Cutoff(Strict):
    """All from one moment on is held out."""

    kind: Literal["cutoff"] = Field("cutoff", description="all from one moment on")
    share: float = Field(0.8, gt=0, lt=1, description="of the rows that lie before it")


class Rolling(Strict):
    """Several windows, each asked of a model of all before it."""

    kind: Literal["rolling"] = Field("rolling", description="windows one after the other")
    share: float = Field(0.8, gt=0, lt=1, description="of the rows that lie before the first window")
    windows: int = Field(4, ge=2, description="windows of as many rows each")


SplitPlan = LastOut | Cutoff | Rolling


@dataclass(frozen=True, slots=True)
class Fold:
    """What one fit learns from, and who is asked for.

    `askers` have targets, and are rows of `train` with the histories that they have in it. `targets` are each asker's items,
    each once, with `values` and `timestamp_ms` beside.
    """

    name: str
    train: Log
    askers: Askers
    targets: Sequence[Int32]
    values: Sequence[Float32]
    timestamp_ms: Sequence[Int64]


def folds(log: Log, plan: SplitPlan) -> Iterator[Fold]:
    """The folds of a plan, in order of time.

    Raises:
        DataError: A fold has nothing to learn from or nobody to ask.
    """
    if isinstance(plan, LastOut):
        yield _fold("last out", log, _last(log, plan.num), None)
        return
    bounds = _moments(log, plan)
    for number, (begin_ms, end_ms) in enumerate(pairwise(bounds), 1):
        test_N = (log.timestamp_ms_N >= begin_ms) & (log.timestamp_ms_N < end_ms)
        name = "cutoff" if isinstance(plan, Cutoff) else f"window {number} of {plan.windows}"
        yield _fold(name, log, test_N, log.timestamp_ms_N < begin_ms)


def within(fold: Fold, allowed_I: Bool) -> Fold:
    """The same with no targets but the items that are allowed; whoever has none left is not asked.

    Raises:
        DataError: Nobody is left.
    """
    kept = [allowed_I[items] for items in fold.targets]
    gone = np.array([at for at, kept_M in enumerate(kept) if not kept_M.any()], np.int64)
    left, askers = fold.askers.without(gone)
    if not len(left):
        raise DataError(f"fold {fold.name} has nobody to ask", limit="some", mend="allow other items")
    return replace(
        fold, askers=askers, targets=[fold.targets[at][kept[at]] for at in left],
        values=[fold.values[at][kept[at]] for at in left],
        timestamp_ms=[fold.timestamp_ms[at][kept[at]] for at in left],
    )  # fmt: skip


def _moments(log: Log, plan: Cutoff | Rolling) -> list[int]:
    """Where windows begin, and a moment behind the last row."""
    time_N = np.sort(log.timestamp_ms_N)
    if not len(time_N):
        raise DataError("the log is empty", mend="import events")
    num = 1 if isinstance(plan, Cutoff) else plan.windows
    rows = plan.share * len(time_N) + (1 - plan.share) * len(time_N) * np.arange(num) / num
    return [*(int(time_N[int(row)]) for row in rows), int(time_N[-1]) + 1]


def _last(log: Log, num: int) -> Bool:
    """The newest `num` first uses of each user who has more."""
    first_N = _first_uses(log)
    rows = np.flatnonzero(first_N)
    size_U = np.bincount(log.user_N[rows], minlength=log.num_users)
    left = np.cumsum(size_U)[log.user_N[rows]] - np.arange(len(rows))  # of the user from here on
    held_N = np.zeros(len(log), np.bool_)
    held_N[rows[(left <= num) & (size_U[log.user_N[rows]] > num)]] = True
    # A later use of an item that is held out would give it away.
    key_N = _keys(log)
    return held_N | (np.isin(key_N, key_N[held_N]) & ~first_N)


def _fold(name: str, log: Log, test_N: Bool, train_N: Bool | None) -> Fold:
    train_N = ~test_N if train_N is None else train_N
    train = _rows(log, train_N)
    key_N = _keys(log)
    target_N = test_N & ~np.isin(key_N, key_N[train_N])
    target_N[target_N] = _first_uses(_rows(log, target_N))
    users = np.unique(log.user_N[target_N])
    if not len(users) or not len(train):
        raise DataError(
            f"fold {name} has {len(train)} rows to learn from and {len(users)} users to ask",
            limit="some of both", mend="hold out fewer or more",
        )  # fmt: skip
    cuts = np.searchsorted(log.user_N[target_N], users)[1:]
    return Fold(
        name,
        train,
        Askers.known(train, users.astype(np.int32)),
        np.split(log.item_N[target_N], cuts),
        np.split(log.value_N[target_N], cuts),
        np.split(log.timestamp_ms_N[target_N], cuts),
    )


def _rows(log: Log, kept_N: Bool) -> Log:
    return replace(
        log, user_N=log.user_N[kept_N], item_N=log.item_N[kept_N], value_N=log.value_N[kept_N],
        timestamp_ms_N=log.timestamp_ms_N[kept_N],
    )  # fmt: skip


def _keys(log: Log) -> Int64:
    return log.user_N.astype(np.int64) * log.num_items + log.item_N


def _first_uses(log: Log) -> Bool:
    """Whether each row is the first of its user and item."""
    first_N = np.zeros(len(log), np.bool_)
    first_N[np.unique(_keys(log), return_index=True)[1]] = True
    return first_N
