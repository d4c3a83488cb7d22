"""Releases a run's models as one bundle and registers it. What may serve is decided later, by the gates."""

from typing import Any

import torch

from tastemaker.bundle.manifest import BundleInfo, DatasetInfo, TimeRange
from tastemaker.bundle.store import BundleStore
from tastemaker.bundle.writer import BundleWriter
from tastemaker.config import Settings
from tastemaker.data.importers import num_refused_rows
from tastemaker.data.log import read_frozen
from tastemaker.data.schema import Dataset
from tastemaker.data.splits import Histories
from tastemaker.errors import TrainingError, UsageError
from tastemaker.evaluation.offline import Evaluation
from tastemaker.home import Home
from tastemaker.models.calibration import Calibration
from tastemaker.models.dlrm import Dlrm
from tastemaker.models.rankers import Ranker
from tastemaker.promotion.compared import EXPOSURE, USER_METRICS, exposure_table, user_table
from tastemaker.registry.client import Registry
from tastemaker.stages.loading import write_pipeline
from tastemaker_training.artifacts import plain
from tastemaker_training.distributed.exchange import read_curves
from tastemaker_training.plan.data_profile import profile
from tastemaker_training.runs import evaluate
from tastemaker_training.runs.content_only import publish_content
from tastemaker_training.runs.run_record import Run
from tastemaker_training.runs.steps import Steps

PLANTED = "planted: its ranker goes against its sources, for a test to find"


def publish_run(settings: Settings, home: Home, run: Run) -> dict[str, Any]:
    """Writes the run's bundle and registers it as a version of the catalogue; says which, JSON-able.

    Raises:
        TrainingError: The catalogue's data is no longer what the run was trained on.
    """
    if run.recipe.is_content_only:
        return publish_content(settings, home, run, _dataset(settings, home, run))
    steps = _steps(settings, home, run)
    evaluation = evaluate.load_evaluations(run.folder)[evaluate.PIPELINE]
    model, calibration = steps.load_ranker()
    return _release(steps, run, model, calibration, evaluation, run.recipe.name, _ranker_figures(steps))


def publish_planted(settings: Settings, home: Home, run: Run) -> dict[str, Any]:
    """Publishes the run's bundle with a ranker in it that turns its sources' scores round, and says so in its manifest.

    One that was never trained is not always worse: by chance it likes what is popular.

    Raises:
        UsageError: The run's ranker is a click model.
    """
    steps = _steps(settings, home, run)
    trained, _ = steps.load_ranker()
    if not isinstance(trained, Dlrm):
        what, limit = f"ranker of run {run.id}", "the DLRM, whose weights are turned round"
        raise UsageError(what, value=run.recipe.ranker.kind, limit=limit, mend="plant another recipe's")
    torch.manual_seed(run.recipe.seed)
    planted = Dlrm(trained.config)
    planted.mean_F.copy_(trained.mean_F)
    planted.scale_F.copy_(trained.scale_F)
    with torch.no_grad():
        for f, name in enumerate(trained.config.dense_features):
            if name.endswith("_z"):
                planted.wide.weight[:, f] = -1.0
    pipeline = steps.pipeline_of(planted, Calibration())
    systems = {evaluate.PIPELINE: evaluate.recommend_whole(pipeline)}
    evaluation = evaluate.evaluate_systems(systems, steps.split, steps.dataset)[evaluate.PIPELINE]
    return _release(steps, run, planted, Calibration(), evaluation, f"{run.recipe.name} ({PLANTED})", {})


def _steps(settings: Settings, home: Home, run: Run) -> Steps:
    dataset = _dataset(settings, home, run)
    return Steps.of(settings, home, run.recipe, run.num_workers, warm_start=run.warm_start, dataset=dataset)


def _dataset(settings: Settings, home: Home, run: Run) -> Dataset:
    """What the run was trained on."""
    dataset = read_frozen(home, settings.catalogue, run.fingerprint)
    if dataset.fingerprint != run.fingerprint:
        raise TrainingError(
            f"data of catalogue {settings.catalogue}", value=dataset.fingerprint[:12],
            limit=f"{run.fingerprint[:12]}, which run {run.id} was trained on", mend="train again",
        )  # fmt: skip
    return dataset


def _release(
    steps: Steps,
    run: Run,
    model: Ranker,
    calibration: Calibration,
    evaluation: Evaluation,
    recipe: str,
    ranker: dict[str, float],
) -> dict[str, Any]:
    settings, config = steps.settings, steps.recipe.pipeline
    row = evaluation.row(run.recipe.seed)
    writer = BundleWriter(BundleStore.of(settings, steps.home), settings.catalogue)
    steps.refit.add_to(writer, config)
    write_pipeline(writer, config, model, calibration)
    writer.add_json("recipe.json", plain(run.recipe))
    refused = num_refused_rows(steps.home, settings.catalogue)
    writer.add_json("data_profile.json", plain(profile(steps.dataset, refused)))
    writer.add_json("metrics.json", run.offline() | {"released": row, "ranker": ranker})
    before, dataset = steps.split.train_validation, steps.dataset
    writer.add_table(USER_METRICS, user_table(evaluation, dataset.user_ids, before.lengths))
    if len(evaluation.listed_I):
        num_users_I = before.to_csr(dataset.num_items).getnnz(axis=0)
        writer.add_table(EXPOSURE, exposure_table(evaluation, dataset.item_ids, num_users_I))
    metrics = {name: row[name] for name in evaluate.SHOWN if name in row}  # an earlier release measured fewer
    ref = writer.commit(
        BundleInfo(
            dataset=DatasetInfo(
                fingerprint=run.fingerprint,
                retrievers=_time_range(steps.split.train_validation),
                ranker=_time_range(steps.split.validation),
            ),
            recipe=recipe,
            training_id=steps.two_tower.name,
            code_revision=run.code_revision,
            feature_schema=steps.refit.columns.schema.model_dump(mode="json"),
            metrics=metrics,
        )
    )
    version = Registry(settings, steps.home).publish(settings.catalogue, ref, metrics, run.mlflow_run_id)
    return {
        "version": version.number,
        "bundle": ref.bundle_id,
        "uri": ref.uri,
        "run": run.id,
        "recipe": recipe,
        "metrics": metrics,
    }


def _ranker_figures(steps: Steps) -> dict[str, float]:
    """What the ranker's training measured last on requests that it held out."""
    reports = [report for report in read_curves(steps.ranker) if "epoch" in report]
    last = reports[-1] if reports else {}
    return {name: value for name, value in last.items() if name.startswith("held_out_")}


def _time_range(histories: Histories) -> TimeRange:
    times = histories.timestamp_ms
    assert times is not None, "histories of a dataset have times"
    return TimeRange(start_ms=int(times.min()), end_ms=int(times.max()))
