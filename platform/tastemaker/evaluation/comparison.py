"""Runs a plan: fits the models fold by fold, measures them, compares them. Not the page of it (`comparison_page`).

Shape letters: U askers.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from tastemaker.bundle.reader import Bundle
from tastemaker.data.schema import Column, Dataset
from tastemaker.errors import DataError
from tastemaker.evaluation.comparing import differences
from tastemaker.evaluation.measuring import Items, Measured, measure
from tastemaker.evaluation.offline import Evaluation
from tastemaker.evaluation.plan import BundleModel, EvaluationPlan
from tastemaker.evaluation.replay import Replay
from tastemaker.evaluation.segments import segments
from tastemaker.evaluation.systems import BundleSystem, ModelSystem, System
from tastemaker.evaluation.windows import Fold, folds, within
from tastemaker.features.traits import ItemTraits
from tastemaker.models import zoo
from tastemaker.models.log import Log
from tastemaker.models.zoo import ZooModel
from tastemaker.types import Bool, Float64, Int32, Strings

_HISTORY_LENGTH = 200
OpenBundle = Callable[[str], Bundle]


def compare(plan: EvaluationPlan, dataset: Dataset, open_bundle: OpenBundle) -> dict[str, Any]:
    """All that the plan asks for, as JSON values.

    Raises:
        DataError: A fold has nothing to learn from or nobody to ask, or the table of users lacks a column.
        UsageError: There is no such version.
    """
    tags: list[list[str]] = [words or [] for words in dataset.items.column(Column.TAGS).to_pylist()]
    items = Items.of(ItemTraits.from_items(dataset.items), tags)
    labels, asked = _labels(plan, dataset.user_ids), []
    trials: dict[str, list[_Trial]] = {name: [] for name in plan.models}
    log = log_of(dataset, _attributes(plan, dataset.user_ids))
    allowed_I = None if plan.within is None else plan.within.among(log)
    for whole in folds(log, plan.split):
        fold = whole if allowed_I is None else within(whole, allowed_I)
        asked.append(_described(fold))
        for name, model in plan.models.items():
            began = time.monotonic()
            system = _system(plan, model, fold, dataset, open_bundle, allowed_I)
            took = time.monotonic() - began
            trials[name].append(_tried(plan, name, system, fold, items, labels, took, allowed_I))
    together = {name: _together([one.measured.evaluation for one in each]) for name, each in trials.items()}
    per_user = {name: evaluation.per_user for name, evaluation in together.items()}
    tested = differences(per_user, plan.against, plan.compared, plan.correction, plan.seed)
    return {
        "split": plan.split.model_dump(mode="json"),
        "ranked": _ranked(plan, dataset.num_items if allowed_I is None else int(allowed_I.sum())),
        "sampled": plan.sampled,
        "baseline": plan.against,
        "correction": plan.correction,
        "folds": asked,
        "systems": [_row(name, trials[name], evaluation, plan.seed) for name, evaluation in together.items()],
        "by_fold": {
            name: [_means(one.measured.evaluation, plan.compared) for one in each] for name, each in trials.items()
        },
        "differences": [asdict(one) for one in tested],
        "segments": {name: [row for one in each for row in one.segments] for name, each in trials.items()},
        "exposure": {name: each[-1].measured.exposure for name, each in trials.items()},
        "notes": _notes(plan),
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Trial:
    """One system on one fold."""

    measured: Measured
    segments: list[dict[str, Any]]
    fit_seconds: float
    evaluation_seconds: float


def _tried(
    plan: EvaluationPlan,
    name: str,
    system: System,
    fold: Fold,
    items: Items,
    labels: Mapping[str, Strings],
    fit_seconds: float,
    allowed_I: Bool | None,
) -> _Trial:
    began = time.monotonic()
    measured = measure(
        system,
        fold,
        plan.ks,
        items=items,
        graded=plan.graded,
        popularity_power=plan.popularity_power,
        propensity=plan.propensity,
        allowed_I=allowed_I,
        threads=plan.threads,
        description=f"{name}, {fold.name}",
    )
    took = time.monotonic() - began
    of_askers = {kind: words[fold.askers.row_B] for kind, words in labels.items()}
    found = segments(measured, fold, plan.segments, plan.compared, of_askers, graded=plan.graded)
    return _Trial(measured, [{"fold": fold.name, **asdict(one)} for one in found], fit_seconds, took)


def _row(name: str, trials: Sequence[_Trial], evaluation: Evaluation, seed: int) -> dict[str, Any]:
    return {
        "system": name,
        "fit_seconds": float(np.mean([trial.fit_seconds for trial in trials])),
        "evaluation_seconds": float(np.mean([trial.evaluation_seconds for trial in trials])),
        "num_users": len(evaluation.users),
        **evaluation.row(seed),
    }


def log_of(dataset: Dataset, users: pa.Table | None = None) -> Log:
    """A dataset as what models learn from, with what is known of its users where that is given."""
    return Log.of(
        dataset.user_index, dataset.item_index, num_users=dataset.num_users, num_items=dataset.num_items,
        value_N=dataset.value, timestamp_ms_N=dataset.timestamp_ms, items=dataset.items,
        users=users,
    )  # fmt: skip


def _system(
    plan: EvaluationPlan,
    model: ZooModel | BundleModel,
    fold: Fold,
    dataset: Dataset,
    open_bundle: OpenBundle,
    allowed_I: Bool | None,
) -> System:
    if isinstance(model, BundleModel):
        now_ms = int(max(times_ms.max() for times_ms in fold.timestamp_ms))
        return BundleSystem(Replay(open_bundle(model.bundle), _HISTORY_LENGTH, now_ms), dataset.item_ids)
    return ModelSystem(zoo.fit(model.kind, fold.train, model.config), plan.sampled, allowed_I)


def _described(fold: Fold) -> dict[str, Any]:
    return {
        "fold": fold.name,
        "num_rows": len(fold.train),
        "num_users": len(fold.askers),
        "num_cold_users": sum(not len(history_L) for history_L in fold.askers.histories),
        "num_targets": sum(len(items) for items in fold.targets),
    }


def _ranked(plan: EvaluationPlan, num_items: int) -> str:
    if plan.sampled is None:
        which = "" if plan.within is None else f" of {plan.within.by} {', '.join(plan.within.target)}"
        return f"all {num_items} items{which}, those taken left out"
    return (
        f"SAMPLED: the targets among {plan.sampled} items drawn for each user; not a measure of the catalogue"
    )


def _notes(plan: EvaluationPlan) -> list[str]:
    bundles = [name for name, model in plan.models.items() if isinstance(model, BundleModel)]
    notes = (
        [f"{', '.join(bundles)}: published before, and may have learned from what is held out here"]
        if bundles
        else []
    )
    if plan.users is None and (reading := _reading_attributes(plan)):
        notes.append(
            f"{', '.join(reading)}: nothing was known of the users; give `users` a table with their attributes, such as age_band"
        )
    if plan.sampled is not None:
        notes.append("sampled metrics order systems otherwise than full ones may (Krichene and Rendle 2020)")
    return notes


def _together(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Of several folds: each user's mean over those that asked for the user; overall figures' mean over the folds."""
    if len(evaluations) == 1:
        return evaluations[0]
    users: Int32 = np.unique(np.concatenate([one.users for one in evaluations]))
    per_user: dict[str, Float64] = {}
    for metric in dict.fromkeys(name for one in evaluations for name in one.per_user):
        total_U, count_U = np.zeros(len(users)), np.zeros(len(users))
        for one in evaluations:
            if metric not in one.per_user:
                continue  # nobody of this fold had a value
            known_U = ~np.isnan(one.per_user[metric])
            at_U = np.searchsorted(users, one.users[known_U])
            total_U[at_U] += one.per_user[metric][known_U]
            count_U[at_U] += 1
        per_user[metric] = np.where(count_U > 0, total_U / np.maximum(count_U, 1), np.nan)
    keys = [key for key in evaluations[0].overall if all(key in one.overall for one in evaluations)]
    overall = {key: float(np.mean([one.overall[key] for one in evaluations])) for key in keys}
    return Evaluation(users, per_user, overall)


def _means(evaluation: Evaluation, metrics: Sequence[str]) -> dict[str, float]:
    known = [metric for metric in metrics if metric in evaluation.per_user]
    return {metric: float(np.nanmean(evaluation.per_user[metric])) for metric in known}


def _labels(plan: EvaluationPlan, user_ids: Sequence[str]) -> Mapping[str, Strings]:
    """A word for each user of the log, by column of the table of users that a segment names."""
    wanted = [kind for kind in plan.segments if kind not in ("activity", "popularity", "item-age")]
    if not wanted:
        return {}
    if plan.users is None:
        raise DataError(
            f"segments {', '.join(wanted)}",
            limit="columns of `users`",
            mend="give `users`, or leave them out",
        )
    table = _table_of_users(plan.users, wanted)
    ids = [str(value) for value in table.column("user_id").to_pylist()]
    found = {}
    for name in wanted:
        words = dict(zip(ids, table.column(name).to_pylist(), strict=True))
        each = ["" if words.get(user_id) is None else str(words[user_id]) for user_id in user_ids]
        found[name] = np.array(each, dtype=object)
    return found


def _attributes(plan: EvaluationPlan, user_ids: Sequence[str]) -> pa.Table | None:
    """The table of users in the order of the log's, where a model reads it; null where it has none of them."""
    if plan.users is None or not _reading_attributes(plan):
        return None
    table = _table_of_users(plan.users)
    row = {str(user_id): at for at, user_id in enumerate(table.column("user_id").to_pylist())}
    return table.drop_columns("user_id").take(pa.array([row.get(one) for one in user_ids], pa.int64()))


def _reading_attributes(plan: EvaluationPlan) -> list[str]:
    """Names of the models to which it says something what is known of users beside their events."""
    return [
        name
        for name, model in plan.models.items()
        if isinstance(model, ZooModel) and zoo.model_class(model.kind).reads_attributes
    ]


def _table_of_users(file: str, wanted: Sequence[str] = ()) -> pa.Table:
    table = _read_table(Path(file))
    if missing := [name for name in ("user_id", *wanted) if name not in table.column_names]:
        raise DataError(f"{file} lacks {', '.join(missing)}", value=", ".join(table.column_names))
    return table


def _read_table(path: Path) -> pa.Table:
    try:
        return pq.read_table(path) if path.suffix == ".parquet" else pyarrow.csv.read_csv(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path} cannot be read", value=str(error), mend="give a CSV or Parquet table"
        ) from error
