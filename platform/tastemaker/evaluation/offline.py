"""Evaluating a recommender offline: full catalogue, seen items masked, one list per user, and intervals.

Shape letters: U evaluated users, K slots (best first).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tastemaker.data.splits import Histories
from tastemaker.errors import DataError, UsageError
from tastemaker.evaluation import metrics
from tastemaker.features.context import device_context
from tastemaker.features.traits import ItemTraits
from tastemaker.resampling import bootstrap
from tastemaker.terminal import progress
from tastemaker.types import Float64, Int32, Int64, Query

Recommend = Callable[[Sequence[Query], int], Sequence[Int32]]
"""Gives for each query at most k rows of the catalogue, best first, none of them in the query's history."""

BLOCK = 128


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one recommender reached.

    `users` are the rows of the users with targets; `per_user` has one value for each of them by metric name:
    `recall@k`, `ndcg@k`, `map@k`, `hit_rate@k` for every k, `mrr` over lists of the largest k, `novelty` and, where the items'
    traits are given, `diversity` by tags over lists of the smallest k (0 for an empty list). `overall` has `coverage` and `gini`, of the smallest k.
    `listed_I` counts the lists of the smallest k that hold each item; empty in what an earlier release saved.
    """

    users: Int32
    per_user: dict[str, Float64]
    overall: dict[str, float]
    listed_I: Int64 = field(default_factory=lambda: np.empty(0, np.int64))

    def row(self, seed: int = 0) -> dict[str, float]:
        """Each metric's mean and its 95% user-bootstrap bounds (`<metric>_low`, `<metric>_high`), JSON-able.

        `coverage` and `gini` have no bounds: users drawn again have fewer distinct lists, so a bootstrap of
        either does not lie around its value.
        """
        row: dict[str, float] = {}
        names = list(self.per_user)
        low_M, high_M = bootstrap(np.column_stack([self.per_user[name] for name in names]), seed)
        for name, low, high in zip(names, low_M, high_M, strict=True):
            mean = float(np.nanmean(self.per_user[name]))
            row |= {name: mean, f"{name}_low": float(low), f"{name}_high": float(high)}
        return row | self.overall


def evaluate(
    recommend: Recommend,
    histories: Histories,
    targets: Histories,
    num_items: int,
    ks: Sequence[int] = (10, 50),
    *,
    user_ids: Sequence[str] | None = None,
    traits: ItemTraits | None = None,
    most_users: int | None = None,
    description: str = "evaluating",
) -> Evaluation:
    """Asks for one list of max(ks) for every user with targets, and scores it.

    A query has the user's whole history; its `now_ms` and device are those of the first target (unknown where that has
    none), its seed the user's row.

    Args:
        recommend: See `Recommend`; called with blocks of users.
        histories: What each user did before.
        targets: What each user did next.
        num_items: Size of the catalogue.
        ks: Depths.
        user_ids: The queries' user ids; empty where unset.
        traits: Of the items; unset, how unlike the items of a list are is not measured.
        most_users: Draws so many, always the same ones; unset, all are asked.
        description: Of the progress bar.

    Raises:
        UsageError: There is no depth, or one below 1.
        DataError: There is no target, or a list holds an item that its user has seen.
    """
    ks = depths(ks)
    users = np.flatnonzero(targets.lengths > 0).astype(np.int32)
    if not len(users):
        raise DataError("no user has a test item", mend="import more events, or hold out fewer of them")
    if most_users is not None and most_users < len(users):
        users = np.sort(np.random.default_rng(0).choice(users, most_users, replace=False))
    depth = ks[-1]
    ranked_UK = np.full((len(users), depth), metrics.PADDING, np.int32)
    with progress(description, len(users)) as advance:
        for start in range(0, len(users), BLOCK):
            block = users[start : start + BLOCK]
            queries = [_query(int(user), histories, targets, depth, user_ids) for user in block]
            for row, (query, items) in enumerate(zip(queries, recommend(queries, depth), strict=True), start):
                ranked_UK[row, : min(len(items), depth)] = items[:depth]
                if np.isin(items, query.history_L).any():
                    raise DataError("a recommended item is in its user's history", mend="mask seen items")
            advance(len(block))
    return _score(users, ranked_UK, histories, targets, num_items, ks=ks, traits=traits)


def depths(ks: Sequence[int]) -> list[int]:
    """The depths of lists, each once, ascending.

    >>> depths((50, 10, 10))
    [10, 50]

    Raises:
        UsageError: There is none, or one below 1.
    """
    if not ks or min(ks) < 1:
        raise UsageError("depths of lists", value=list(ks), limit="some, of 1 or more")
    return sorted(set(ks))


def _query(
    user: int, histories: Histories, targets: Histories, k: int, user_ids: Sequence[str] | None
) -> Query:
    return Query(
        history_L=histories[user],
        k=k,
        user_id="" if user_ids is None else user_ids[user],
        seed=user,
        now_ms=targets.first_time_ms(user),
        context=device_context(int(targets.device_rows(user)[0])),
    )


def _score(
    users: Int32,
    ranked_UK: Int32,
    histories: Histories,
    targets: Histories,
    num_items: int,
    *,
    ks: Sequence[int],
    traits: ItemTraits | None,
) -> Evaluation:
    used = np.unique(histories.user_index.astype(np.int64) * num_items + histories.item_index) % num_items
    num_users_I = np.bincount(used, minlength=num_items)
    wanted = [np.unique(targets[int(user)]) for user in users]
    hit_UK = metrics.relevance(ranked_UK, wanted)
    return score_lists(users, ranked_UK, hit_UK, wanted, num_users_I, len(histories), ks=ks, traits=traits)


def score_lists(
    users: Int32,
    ranked_UK: Int32,
    hit_UK: Float64,
    targets: Sequence[Int32],
    num_users_I: Int64,
    num_users: int,
    *,
    ks: Sequence[int],
    traits: ItemTraits | None = None,
    grades: Sequence[Float64] | None = None,
) -> Evaluation:
    """What lists reached, see `Evaluation`.

    Args:
        users: Whose lists they are.
        ranked_UK: Lists, best first.
        hit_UK: Their `metrics.relevance`, without grades.
        targets: Of each user, each once.
        num_users_I: How many users have each item.
        num_users: How many there are.
        ks: Depths, ascending.
        traits: Of the items; unset, how unlike the items of a list are is not measured.
        grades: Of the targets, for NDCG; unset, each is 1.
    """
    num_items = len(num_users_I)
    size_U = metrics.num_targets(targets)
    grade_UK = hit_UK if grades is None else metrics.relevance(ranked_UK, targets, grades)
    ideal_UM = metrics.ideal_grades(targets, grades)
    per_user: dict[str, Float64] = {}
    for k in ks:
        per_user[f"recall@{k}"] = metrics.recall(hit_UK, size_U, k)
        per_user[f"ndcg@{k}"] = metrics.ndcg(grade_UK, ideal_UM, k)
        per_user[f"map@{k}"] = metrics.average_precision(hit_UK, size_U, k)
        per_user[f"hit_rate@{k}"] = metrics.hit_rate(hit_UK, size_U, k)
    per_user["mrr"] = metrics.reciprocal_rank(hit_UK, size_U)
    top_UK = ranked_UK[:, : ks[0]]
    per_user["novelty"] = np.nan_to_num(metrics.novelty(top_UK, num_users_I, num_users))
    if traits is not None:
        unlike_U = metrics.intra_list_diversity(top_UK, metrics.tag_similarity(traits))
        per_user["diversity"] = np.nan_to_num(unlike_U)
    overall = {"coverage": metrics.coverage(top_UK, num_items), "gini": metrics.gini(top_UK, num_items)}
    listed_I = np.bincount(top_UK[top_UK != metrics.PADDING], minlength=num_items)
    return Evaluation(users, per_user, overall, listed_I)


def paired_bootstrap(a_U: Float64, b_U: Float64, seed: int = 0) -> tuple[float, float, float]:
    """Mean of a - b over the same users, with the bounds of its 95% bootstrap interval.

    >>> paired_bootstrap(np.array([1.0, 0.5]), np.array([0.5, 0.0]))
    (0.5, 0.5, 0.5)
    """
    difference_U = a_U - b_U
    low, high = bootstrap(difference_U[:, None], seed)
    return float(difference_U.mean()), float(low[0]), float(high[0])
