"""All metrics of a system on a fold: block by block, several at once, so that no more than some blocks' scores are in memory.

Shape letters: U askers, K slots (best first), I catalogue.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp

from tastemaker.errors import DataError
from tastemaker.evaluation import beyond, counterfactual, metrics, predictions
from tastemaker.evaluation.offline import Evaluation, depths, score_lists
from tastemaker.evaluation.systems import Answers, System
from tastemaker.evaluation.windows import Fold
from tastemaker.features.traits import ItemTraits
from tastemaker.models.item_propensities import given_propensity, popularity_propensity
from tastemaker.terminal import progress
from tastemaker.types import Bool, Float64, Int32, Int64

_BLOCK_SCORES = 2**21
_MOST_GRADE = 1000


@dataclass(frozen=True, slots=True)
class Items:
    """What metrics beyond accuracy read of the catalogue: traits, and groups whose exposure is told, by name (I, G)."""

    traits: ItemTraits
    group_names: tuple[str, ...]
    share_IG: sp.csr_matrix

    @classmethod
    def of(cls, traits: ItemTraits, tags: Sequence[Sequence[str]]) -> "Items":
        """Tags are the groups."""
        names, share_IG = beyond.group_shares(tags)
        return cls(traits, tuple(names), share_IG)


@dataclass(frozen=True, slots=True)
class Measured:
    """An evaluation, the lists that it is of, and by group of items its share of attention and of what was taken."""

    evaluation: Evaluation
    ranked_UK: Int32
    exposure: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def measure(
    system: System,
    fold: Fold,
    ks: Sequence[int] = (10, 50),
    *,
    items: Items | None = None,
    graded: bool = False,
    popularity_power: float | None = None,
    propensity: str | None = None,
    allowed_I: Bool | None = None,
    threads: int | None = None,
    description: str = "evaluating",
) -> Measured:
    """One list of max(ks) for every asker of the fold, and all metrics of them.

    Beside those of `offline.Evaluation`: `precision@k`, `auc`, `serendipity`, `popularity` (mean share of users who have the
    listed items), `popularity_lift` and, where items are given, `miscalibration`; overall `gauc` (AUC, users weighed by their targets), and `rmse` and `mae` of
    models that guess values.

    Args:
        system: What is asked.
        fold: Whom for.
        ks: Depths.
        items: The catalogue's traits and groups.
        graded: Whether NDCG takes the values of targets as grades.
        popularity_power: Adds `unbiased_recall@k` and `unbiased_dcg@k`: `counterfactual.snips_recall` and `snips_dcg` under
            `popularity_propensity`, not clipped; unset, they are not measured.
        propensity: Adds the same under `given_propensity` of this column of the items, in place of it.
        allowed_I: Items that alone stand in lists, those of serendipity's obvious ones too; unset, all do.
        threads: Blocks at once; unset, as many as there are cores.
        description: Of the progress bar.

    Raises:
        UsageError: There is no depth, or one below 1.
        DataError: A grade is below 0 or above 1000, a model's score is not finite, or the items have no such propensities.
    """
    ks = depths(ks)
    grades = _grades(fold) if graded else None
    answers = _answers(system, fold, max(ks), threads or os.cpu_count() or 1, description)
    history_UI = fold.askers.matrix(fold.train.num_items)
    num_users_I = _num_users(fold, history_UI)
    hit_UK = metrics.relevance(answers.ranked_BK, fold.targets)
    found = score_lists(
        fold.askers.row_B, answers.ranked_BK, hit_UK, fold.targets, num_users_I, fold.train.num_users, ks=ks,
        traits=None if items is None else items.traits,
        grades=grades,
    )  # fmt: skip
    per_user = found.per_user | _beyond(
        answers.ranked_BK, hit_UK, fold, history_UI, num_users_I, ks, items, allowed_I
    )
    if propensity is not None:
        per_user |= _unbiased(answers.ranked_BK, fold, given_propensity(fold.train, propensity), ks)
    elif popularity_power is not None:
        chance_I = popularity_propensity(num_users_I, popularity_power)
        per_user |= _unbiased(answers.ranked_BK, fold, chance_I, ks)
    overall = found.overall | _of_scores(fold, answers)
    if answers.auc_B is not None:
        per_user["auc"] = answers.auc_B
    per_user = {name: value_U for name, value_U in per_user.items() if not np.isnan(value_U).all()}
    top_UK = answers.ranked_BK[:, : ks[0]]
    exposure = {} if items is None else _exposure(top_UK, num_users_I.astype(np.float64), items)
    return Measured(Evaluation(found.users, per_user, overall, found.listed_I), answers.ranked_BK, exposure)


def _grades(fold: Fold) -> list[Float64]:
    """The targets' values, where the gain 2**grade - 1 of them is a number and no loss."""
    value_M = np.concatenate([*fold.values, np.empty(0)])
    if not (value_M.min(initial=0) >= 0 and value_M.max(initial=0) <= _MOST_GRADE):
        raise DataError(
            "a target's value as its grade in NDCG", value=f"{value_M.min():g} to {value_M.max():g}",
            limit=f"0 to {_MOST_GRADE}", mend="leave `graded` out, or import values of few steps, such as stars",
        )  # fmt: skip
    return [value_M.astype(np.float64) for value_M in fold.values]


def _num_users(fold: Fold, history_UI: sp.csr_matrix) -> Int64:
    """(I,) how many users have each item in what was learned from."""
    train = fold.train
    asks_U = np.zeros(train.num_users, np.bool_)
    asks_U[fold.askers.row_B] = True
    other_N = ~asks_U[train.user_N]
    others_UI = sp.csr_matrix(
        (np.ones(other_N.sum(), np.float32), (train.user_N[other_N], train.item_N[other_N])),
        (train.num_users, train.num_items),
    )
    taken = [np.bincount(one.indices, minlength=train.num_items) for one in (history_UI, others_UI)]
    return taken[0] + taken[1]


def _beyond(
    ranked_UK: Int32,
    hit_UK: Float64,
    fold: Fold,
    history_UI: sp.csr_matrix,
    num_users_I: Int64,
    ks: Sequence[int],
    items: Items | None,
    allowed_I: Bool | None,
) -> dict[str, Float64]:
    """Per user, what `score_lists` does not give."""
    size_U = metrics.num_targets(fold.targets)
    found = {f"precision@{k}": metrics.precision(hit_UK, size_U, k) for k in ks}
    top_UK = ranked_UK[:, : ks[0]]
    share_I = num_users_I / max(fold.train.num_users, 1)
    shown_I = np.ones(len(num_users_I), np.bool_) if allowed_I is None else allowed_I
    order_I = np.lexsort((-num_users_I, ~shown_I)).astype(np.int32)
    obvious_UK = beyond.most_popular_unseen(order_I, history_UI, ks[0])
    obvious_UK[~shown_I[obvious_UK]] = metrics.PADDING
    found["serendipity"] = beyond.serendipity(hit_UK[:, : ks[0]], top_UK, obvious_UK)
    found["popularity"] = np.nan_to_num(beyond.mean_popularity(top_UK, share_I))
    found["popularity_lift"] = beyond.popularity_lift(top_UK, history_UI, share_I)
    if items is not None and len(items.group_names):
        found["miscalibration"] = beyond.miscalibration(top_UK, history_UI, items.share_IG)
    return found


def _unbiased(ranked_UK: Int32, fold: Fold, propensity_I: Float64, ks: Sequence[int]) -> dict[str, Float64]:
    """Per user, metrics in which a target weighs by how unlikely it was to be seen."""
    hits_UK, weight_U = counterfactual.weighted_hits(
        ranked_UK, fold.targets, [propensity_I[items] for items in fold.targets], float(propensity_I.min())
    )
    found = {f"unbiased_recall@{k}": counterfactual.snips_recall(hits_UK, weight_U, k) for k in ks}
    return found | {f"unbiased_dcg@{k}": counterfactual.snips_dcg(hits_UK, weight_U, k) for k in ks}


def _of_scores(fold: Fold, answers: Answers) -> dict[str, float]:
    """Of all users together, what the scores themselves say."""
    found = {}
    if answers.auc_B is not None and not np.isnan(answers.auc_B).all():
        known_U = ~np.isnan(answers.auc_B)
        size_U = metrics.num_targets(fold.targets)
        found["gauc"] = float(np.average(answers.auc_B[known_U], weights=size_U[known_U]))
    if answers.target_scores:
        guess_M, value_M = np.concatenate(answers.target_scores), np.concatenate(fold.values)
        found |= {"rmse": predictions.rmse(guess_M, value_M), "mae": predictions.mae(guess_M, value_M)}
    return found


def _exposure(top_UK: Int32, count_I: Float64, items: Items) -> dict[str, tuple[float, float]]:
    shown_G = beyond.exposure(top_UK, items.share_IG)
    taken_G = np.asarray(count_I @ items.share_IG, np.float64)
    taken_G = taken_G / max(taken_G.sum(), 1e-12)
    return {
        name: (float(shown), float(taken))
        for name, shown, taken in zip(items.group_names, shown_G, taken_G, strict=True)
    }


def _answers(system: System, fold: Fold, k: int, threads: int, description: str) -> Answers:
    """All blocks' answers, in the askers' order."""
    size = max(1, _BLOCK_SCORES // max(1, fold.train.num_items))
    starts = range(0, len(fold.askers), size)
    with progress(description, len(fold.askers)) as advance, ThreadPoolExecutor(threads) as pool:

        def answer(at: int) -> Answers:
            found = system.answer(fold.askers[at : at + size], fold.targets[at : at + size], k)
            advance(len(found.ranked_BK))
            return found

        blocks = list(pool.map(answer, starts))
    auc = [block.auc_B for block in blocks if block.auc_B is not None]
    scores = [row for block in blocks if block.target_scores is not None for row in block.target_scores]
    return Answers(
        np.concatenate([block.ranked_BK for block in blocks]),
        np.concatenate(auc) if auc else None,
        scores or None,
    )
