"""The ranker of a recipe on a dataset: its shape, and which loop trains it with what."""

from pathlib import Path
from typing import Any

from tastemaker.features.columns import FeatureSchema
from tastemaker.models.ctr.fields import Fields
from tastemaker.models.ctr.ranker import ranking_fields
from tastemaker.models.dlrm import DlrmConfig
from tastemaker_training.artifacts import plain
from tastemaker_training.plan.recipe import Recipe

RANKER_MODULE, CLICK_MODULE = "tastemaker_training.fits.ranker", "tastemaker_training.fits.click_ranker"


def ranker_module(recipe: Recipe) -> str:
    """The module of its loop."""
    return CLICK_MODULE if recipe.ranker.is_click_model else RANKER_MODULE


def dlrm_config(recipe: Recipe, schema: FeatureSchema) -> DlrmConfig:
    """The DLRM's shape on a dataset of such columns."""
    return DlrmConfig(
        dense_features=recipe.ranker_features,
        num_tags=schema.num_tags,
        num_years=schema.num_years,
        num_categories=schema.num_categories,
        **dict(recipe.ranker.model),
    )


def click_fields(recipe: Recipe, schema: FeatureSchema) -> Fields:
    """The fields of a click model on a dataset of such columns."""
    return ranking_fields(
        recipe.ranker_features,
        num_tags=schema.num_tags,
        num_years=schema.num_years,
        num_categories=schema.num_categories,
        context=recipe.ranker.model.context,
        num_items=schema.num_items if recipe.pipeline.ranking.item_ids else None,
    )


def ranker_task(recipe: Recipe, schema: FeatureSchema, data: Path) -> tuple[str, dict[str, Any]]:
    """The loop as `Workers.submit` takes it, and its argument.

    Args:
        recipe: What to do.
        schema: Of the dataset's columns.
        data: File of the requests.
    """
    argument = {"fit": plain(recipe.ranker.fit), "seed": recipe.seed, "data": str(data)}
    if not recipe.ranker.is_click_model:
        return f"{RANKER_MODULE}:ranker_loop", argument | {"model": plain(dlrm_config(recipe, schema))}
    click = {"kind": recipe.ranker.kind, "config": dict(recipe.ranker.config)}
    return (
        f"{CLICK_MODULE}:click_ranker_loop",
        argument | click | {"fields": plain(click_fields(recipe, schema))},
    )
