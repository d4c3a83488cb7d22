"""A catalogue without a model of its users: content vectors alone, for a first version before there are events.

Nothing is held out, for nothing can be predicted; so there is no offline table. What the bundle lacks its pipeline passes
over: retrieval proposes by content, and the newest items where there is no history, and the ranker's place is empty.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tastemaker import __version__
from tastemaker.bundle.manifest import BundleInfo, DatasetInfo, TimeRange, code_revision
from tastemaker.bundle.store import BundleStore
from tastemaker.bundle.writer import BundleWriter
from tastemaker.config import Settings
from tastemaker.data.schema import Column, Dataset
from tastemaker.evaluation.comparison import log_of
from tastemaker.features.columns import FeatureSchema
from tastemaker.home import Home
from tastemaker.models.popularity import Popularity, fit_popularity, newest_first
from tastemaker.registry.client import Registry
from tastemaker_training.artifacts import Artifacts, artifact_name, plain
from tastemaker_training.plan.recipe import Recipe, recipe_text
from tastemaker_training.runs.run_record import Run
from tastemaker_training.sources.content import CONTENT_TENSORS, Content, fit_content

_LAYOUT = 1
"""Of the artifact's files; another number makes them anew."""
MAIN_INDEX = "index.faiss"
"""What similar items and variety are judged by: here content, where there is no item tower."""


def content_artifact(home: Home, recipe: Recipe, dataset: Dataset) -> Path:
    """The folder of the catalogue's content vectors, made unless it is there.

    Raises:
        DataError: The content is to be projected, and nobody took two items.
        MissingExtraError: The encoder is not installed.
    """
    key = {"version": __version__, "layout": _LAYOUT, "dataset": dataset.fingerprint}
    key |= {"config": plain(recipe.content)}
    return Artifacts(home).get(
        artifact_name("content-only", key),
        key,
        lambda folder: fit_content(log_of(dataset), recipe.content, home, folder),
    )


def offline_report(dataset: Dataset) -> dict[str, Any]:
    """The offline table of a run that nothing can be held out for: no rows."""
    return {"num_users": 0, "num_items": dataset.num_items, "rows": []}


def log_content_run(
    settings: Settings, home: Home, recipe: Recipe, dataset: Dataset, name: str, timings: Mapping[str, float]
) -> str:
    """Writes one MLflow run and gives its id."""
    data = {"fingerprint": dataset.fingerprint, "users": dataset.num_users, "items": dataset.num_items}
    with Registry(settings, home).run(name) as run:
        run.log_params({"recipe": plain(recipe), "data": data, "code": code_revision()})
        run.log_text("recipe.yaml", recipe_text(recipe))
        run.log_metrics({f"seconds/{step}": seconds for step, seconds in timings.items()})
        return run.id


def publish_content(settings: Settings, home: Home, run: Run, dataset: Dataset) -> dict[str, Any]:
    """Writes the run's bundle and registers it as a version of the catalogue; says which, JSON-able."""
    folder = content_artifact(home, run.recipe, dataset)
    schema = plain(FeatureSchema.fit(dataset.items))
    writer = BundleWriter(BundleStore.of(settings, home), settings.catalogue)
    writer.add_table("items.parquet", dataset.items)
    writer.add_json("features.json", schema)
    content = Content.load(folder, run.recipe.content_index)
    content.add_to(writer)
    writer.add_index(MAIN_INDEX, content.index, CONTENT_TENSORS)  # the same bytes, which are kept once
    writer.add_model("popularity", _popularity(dataset))
    writer.add_json("pipeline.json", plain(run.recipe.pipeline))
    writer.add_json("recipe.json", plain(run.recipe))
    writer.add_json("metrics.json", run.offline())
    info = BundleInfo(
        dataset=DatasetInfo(fingerprint=run.fingerprint, retrievers=_time_range(dataset)),
        recipe=run.recipe.name,
        training_id=folder.name,
        code_revision=run.code_revision,
        feature_schema=schema,
    )
    ref = writer.commit(info)
    version = Registry(settings, home).publish(settings.catalogue, ref, {}, run.mlflow_run_id)
    return {
        "version": version.number,
        "bundle": ref.bundle_id,
        "uri": ref.uri,
        "run": run.id,
        "recipe": run.recipe.name,
        "metrics": {},
    }


def _popularity(dataset: Dataset) -> Popularity:
    """What was taken, where anything was; else what is new."""
    tags: list[list[str]] = [tags or [] for tags in dataset.items[Column.TAGS].to_pylist()]
    categories: list[str | None] = dataset.items[Column.CATEGORY].to_pylist()
    segments: dict[str, Any] = {"tags": tags, "categories": categories}
    if len(dataset):
        return fit_popularity(dataset.item_index, dataset.timestamp_ms, dataset.num_items, **segments)
    created: Any = dataset.items[Column.CREATED_AT_MS].cast(pa.float64())
    return newest_first(created.to_numpy().astype(np.float64), **segments)


def _time_range(dataset: Dataset) -> TimeRange | None:
    if not len(dataset):
        return None
    return TimeRange(start_ms=int(dataset.timestamp_ms.min()), end_ms=int(dataset.timestamp_ms.max()))
