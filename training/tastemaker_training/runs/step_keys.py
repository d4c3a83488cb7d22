"""What each artifact of a training depends on: it is made anew where any of that is another. Not how it is made."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from tastemaker import __version__
from tastemaker.data.splits import Histories
from tastemaker.features.impressions import Slots
from tastemaker.features.places import Place
from tastemaker.index.config import IndexConfig
from tastemaker.models.dlrm import DlrmConfig
from tastemaker.models.zoo import model_class
from tastemaker_training.artifacts import artifact_name, plain
from tastemaker_training.plan.ranker_recipe import CLICK_FIT
from tastemaker_training.plan.recipe import Recipe
from tastemaker_training.plan.recipe_data import events_fingerprint, fingerprint, table_fingerprint
from tastemaker_training.runs import evaluate

Key = tuple[str, dict[str, Any]]
"""Kind of an artifact, and all that it depends on."""
_CLICK_MODEL = ("dense_features", "num_tags", "num_years", "num_categories", "context")
"""What of the DLRM's shape is a click model's too."""
_LAYOUT = 3
"""Of all artifacts' files; another number makes them anew."""


def step_keys(
    recipe: Recipe,
    dataset: str,
    dlrm: DlrmConfig,
    *,
    rejections: Histories | None,
    slots: Slots | None,
    events: pa.Table | None,
    homes: Mapping[str, Place],
    attributes: pa.Table | None,
    warm_start: str | None,
    click_weights: Mapping[str, Any] | None,
) -> dict[str, Key]:
    """The key of each step's artifact; the number of ranks is part of none.

    Args:
        recipe: What is done.
        dataset: Fingerprint of what it is done with.
        dlrm: The ranker's shape on it.
        rejections: What users were shown and left, where that is learned from.
        slots: Where candidates were shown, where that is.
        events: What records and counters are made of, where the ranker reads them.
        homes: Where users are at home, where the ranker reads how far that is.
        attributes: What is known of users beside their events, where one of the further models reads it.
        warm_start: Training id of the two-tower that this one begins from.
        click_weights: How clicks count, where they do not count alike.
    """
    data = {"version": __version__, "layout": _LAYOUT, "dataset": dataset, "split": plain(recipe.split)}
    seed = {"seed": recipe.seed}
    memory = ("memory", data | {"config": plain(recipe.memory)})
    content = ("content", data | {"config": plain(recipe.content)})
    fit = plain(recipe.two_tower.fit)
    kept = {"max_history": recipe.two_tower.model.max_history, "validation": fit.pop("validation_users")}
    kept["ids"] = plain(recipe.two_tower.ids)
    if rejections is not None:
        kept["rejections"] = fingerprint(rejections.offsets, rejections.item_index, rejections.timestamp_ms)
    examples = ("examples", data | kept)
    learned = {"model": plain(recipe.two_tower.model), "fit": fit, "warm_start": warm_start}
    two_tower = ("two-tower", seed | learned | {"examples": artifact_name(*examples)})
    models = {
        model_step(name): ("model", data | {"model": plain(model)} | _told(model.kind, attributes))
        for name, model in recipe.models.items()
    }
    fitted = [artifact_name(*memory), artifact_name(*two_tower)]
    sources = {"sources": fitted + _named(recipe, models, proposing=True)}
    read = _read(recipe)
    if slots is not None:
        read["slots"] = fingerprint(slots.pair_P, slots.slot_P)
    if events is not None:
        read["events"] = events_fingerprint(events)
    if click_weights is not None:
        read["click_weights"] = dict(click_weights)
    if homes:
        read["homes"] = sorted(homes.items())
    if reads_content(recipe):
        read["items"] = artifact_name(*content)
    requests = ("requests", sources | read)
    ranker = _ranker(recipe, dlrm)
    return {
        "memory": memory,
        "content": content,
        "examples": examples,
        "two_tower": two_tower,
        "requests": requests,
        "ranker": ("ranker", seed | ranker | {"requests": artifact_name(*requests)}),
        "solo": (
            "solo",
            {"sources": fitted + _named(recipe, models, proposing=False), "metrics": list(evaluate.SHOWN)},
        ),
    } | models


def _ranker(recipe: Recipe, dlrm: DlrmConfig) -> dict[str, Any]:
    """What the ranker is fitted by."""
    fit, model = plain(recipe.ranker.fit), plain(dlrm)
    if not recipe.ranker.is_click_model:
        return {"fit": fit, "model": model}
    return {
        "kind": recipe.ranker.kind,
        "config": dict(recipe.ranker.config),
        "fit": {name: fit[name] for name in CLICK_FIT},
        "model": {name: model[name] for name in _CLICK_MODEL},
    }


def _told(kind: str, attributes: pa.Table | None) -> dict[str, Any]:
    """What a kind of model reads of its users."""
    if attributes is None or not model_class(kind).reads_attributes:
        return {}
    return {"attributes": table_fingerprint(attributes)}


def model_step(name: str) -> str:
    """The step that fits one of the recipe's further models."""
    return f"model {name}"


def _named(recipe: Recipe, models: Mapping[str, Key], *, proposing: bool) -> list[str]:
    """What the further models are called and made of, all of them or those that are sources."""
    sources = {source.name for source in recipe.pipeline.retrieval.sources}
    return [
        f"{name}: {artifact_name(*models[model_step(name)])}"
        for name in recipe.models
        if name in sources or not proposing
    ]


def reads_content(recipe: Recipe) -> bool:
    """Whether a source reads content vectors."""
    return any(source.name == "content" for source in recipe.pipeline.retrieval.sources)


def _read(recipe: Recipe) -> dict[str, Any]:
    """What of the pipeline's config the ranker's requests are made by."""
    stages = plain(recipe.pipeline)
    read = {name: stages[name] for name in ("retrieval", "hydration", "ranking")}
    del read["ranking"]["score_weights"]  # they weigh what was learned
    indexes = {"index": recipe.index, "content_index": recipe.content_index}
    return read | {name: plain(config) for name, config in indexes.items() if config != IndexConfig()}
