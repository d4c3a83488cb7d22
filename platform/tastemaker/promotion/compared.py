"""What gates compare two versions by: figures of the same held-out users, from the bundles or measured now.

Two versions of one dataset were measured when they were published. Where the champion is of older data, both answer now, for a
sample of the users that the newer version holds out. The champion was not trained on what a user did last: publishing held that
out of its data too, unless the user had too few items by then to be split, which speaks for the champion.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa

from tastemaker.bundle.reader import Bundle
from tastemaker.data.log import read_frozen
from tastemaker.data.schema import Dataset
from tastemaker.data.splits import leave_last
from tastemaker.errors import DataError
from tastemaker.evaluation.offline import Evaluation, evaluate
from tastemaker.promotion.gate import Case
from tastemaker.types import Int32, Int64, Query

USER_METRICS: Final = "user_metrics.parquet"
INTERACTIONS: Final = "interactions"
"""Column of `user_metrics.parquet`: how many items a user had before those held out."""
EXPOSURE: Final = "exposure.parquet"
"""File of a bundle: `item_id`, `lists` (of held-out users, that have it), `users` (that had it before)."""


@dataclass(frozen=True)
class Figures:
    """Of one version: the users' metrics, and what was listed; None where its bundle does not keep that."""

    users: pa.Table | None
    exposure: pa.Table | None

    @classmethod
    def of(cls, bundle: Bundle) -> "Figures":
        """As they were when the bundle was published."""
        return cls(*(bundle.table(name) if bundle.has(name) else None for name in (USER_METRICS, EXPOSURE)))


@dataclass(frozen=True)
class Compared:
    """The figures of both versions; `how` says where they come from, in words."""

    ours: Figures
    theirs: Figures
    how: str


def compared(case: Case) -> Compared | str:
    """The figures of both versions, made when a gate first asks for them; why there are none."""
    if case.champion is None:
        return case.no_champion
    if "compared" not in case.shared:
        case.shared["compared"] = _compare(case, case.champion)
    found: Compared | str = case.shared["compared"]
    return found


def _compare(case: Case, champion: Bundle) -> Compared | str:
    mine, other = case.candidate.manifest.dataset, champion.manifest.dataset
    if mine.fingerprint == other.fingerprint:
        return Compared(Figures.of(case.candidate), Figures.of(champion), "of publishing")
    split = _split(case.candidate)
    if split is None:
        return "the champion was evaluated on other data, and the bundle does not say how its own was split"
    try:
        dataset = read_frozen(case.home, case.settings.catalogue, mine.fingerprint)
    except DataError as error:
        return f"the champion was evaluated on other data, and that of the version cannot be read: {error}"
    if dataset.fingerprint != mine.fingerprint:
        return "the champion was evaluated on other data, and that of the version is here no more"
    try:
        ours, theirs = (_measure(case, bundle, dataset, split) for bundle in (case.candidate, champion))
    except DataError as error:
        return str(error)
    return Compared(ours, theirs, "measured now")


def _split(bundle: Bundle) -> tuple[int, int] | None:
    recipe: Any = bundle.json("recipe.json") if bundle.has("recipe.json") else {}
    split = recipe.get("split", {})
    found = (split.get("num_test"), split.get("num_validation"))
    return found if all(isinstance(one, int) for one in found) else None


def _measure(case: Case, bundle: Bundle, dataset: Dataset, split: tuple[int, int]) -> Figures:
    """What the bundle's pipeline reaches where the history alone is known of a user.

    Raises:
        DataError: No user has an item held out.
    """
    parts = leave_last(dataset, *split)
    found = evaluate(
        _Answers(bundle, dataset), parts.train_validation, parts.test, dataset.num_items,
        user_ids=dataset.user_ids, most_users=case.limits.sample_users,
        description=f"asking bundle {bundle.bundle_id}",
    )  # fmt: skip
    had = parts.train_validation.to_csr(dataset.num_items)
    return Figures(
        user_table(found, dataset.user_ids, parts.train_validation.lengths),
        exposure_table(found, dataset.item_ids, had.getnnz(axis=0)),
    )


def user_table(found: Evaluation, user_ids: Sequence[str], lengths_U: Int64) -> pa.Table:
    """`user_metrics.parquet` of an evaluation. `lengths_U` is what each user of the dataset had before."""
    users = pa.array([user_ids[user] for user in found.users], pa.string())
    columns: dict[str, Any] = {"user_id": users, INTERACTIONS: lengths_U[found.users], **found.per_user}
    return pa.table(columns)


def exposure_table(found: Evaluation, item_ids: Sequence[str], num_users_I: Int64) -> pa.Table:
    """`exposure.parquet` of an evaluation. `num_users_I` is how many users had each item before."""
    columns: dict[str, Any] = {
        "item_id": pa.array(list(item_ids), pa.string()),
        "lists": found.listed_I.astype(np.int64),
        "users": num_users_I.astype(np.int64),
    }
    return pa.table(columns)


class _Answers:
    """A bundle's pipeline as a recommender in the rows of a dataset; items that either does not know are left out."""

    def __init__(self, bundle: Bundle, dataset: Dataset) -> None:
        from tastemaker.stages.pipeline import Pipeline

        self._pipeline = Pipeline.from_bundle(bundle)
        rows = [bundle.index_of(item_id) for item_id in dataset.item_ids]
        self._row_I = np.array([-1 if row is None else row for row in rows], np.int32)
        self._back = np.full(len(bundle.item_ids), -1, np.int32)
        known_I = self._row_I >= 0
        self._back[self._row_I[known_I]] = np.flatnonzero(known_I)

    def __call__(self, queries: Sequence[Query], k: int) -> list[Int32]:
        """Lists of at most k rows of the dataset."""
        asked = [self._in_its_rows(query) for query in queries]
        found = [self._back[answer.item_index] for answer in self._pipeline.recommend(asked)]
        return [rows[rows >= 0][:k] for rows in found]

    def _in_its_rows(self, query: Query) -> Query:
        history_L = self._row_I[query.history_L]
        return replace(query, history_L=history_L[history_L >= 0])
