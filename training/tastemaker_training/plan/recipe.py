"""Recipes: whole training runs as one YAML file each. Not for how a part of it is done.

`extends: NAME` starts from another recipe (a packaged one, or a file beside this one) and changes what the file names.
`quick:` holds what `--quick` changes further. Lists and single values replace, groups of keys merge.
A value may carry the space that `tastemaker tune` searches around it (see `search_space`).
"""

import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal, Self

import yaml
from pydantic import Field, field_validator, model_validator

from tastemaker.config_sources import read_yaml
from tastemaker.errors import ConfigError, UsageError
from tastemaker.features.content import ContentConfig
from tastemaker.features.vocabulary import VocabularyConfig
from tastemaker.index.config import IndexConfig
from tastemaker.models.als import AlsConfig
from tastemaker.models.popular_groups import GroupsConfig
from tastemaker.models.two_tower import TwoTowerConfig
from tastemaker.models.zoo import ZooModel
from tastemaker.stages.bundle_sources import SOURCES
from tastemaker.stages.hydration import feature_names
from tastemaker.stages.pipeline_config import PipelineConfig
from tastemaker.strict import Strict
from tastemaker_training.plan.data_gate import DataGateConfig
from tastemaker_training.plan.fit_config import TwoTowerFitConfig
from tastemaker_training.plan.ranker_recipe import RankerRecipe, is_read_by_click_models, refuse_unread
from tastemaker_training.plan.search_space import Space, TuneConfig, split_spaces, with_values

_PACKAGE = "tastemaker_training.recipes"
RESERVED: Final = frozenset(SOURCES) | {
    "calibration", "features", "fresh", "index", "items", "metrics", "pipeline", "popularity", "ranker",
    "recipe", "two-tower",
}  # fmt: skip
"""Names of other files of a bundle, or of rows of the offline table."""
CONTENT_SOURCES: Final = frozenset({"content", "popular", "trending"})
"""Sources of a pipeline for which no one's events are needed."""


class SplitConfig(Strict):
    """What each user's newest items are held out for."""

    num_test: int = Field(5, ge=1, description="newest items, for test")
    num_validation: int = Field(
        5, ge=1, description="items before them, for validation and the ranker's positives"
    )


class KnnConfig(Strict):
    """Item-kNN."""

    similarity: Literal["cosine", "tfidf", "bm25"] = Field("cosine", description="how near two items are")
    num_neighbours: int = Field(100, ge=1, description="neighbours kept per item")


class EaseConfig(Strict):
    """EASE."""

    l2: float = Field(200.0, gt=0, description="ridge penalty")
    keep: int | None = Field(None, ge=1, description="strongest weights kept per item; empty keeps all")


class MemoryConfig(Strict):
    """Models that are solved for, not trained: baselines, and sources of the pipeline."""

    item_knn: KnnConfig = Field(default_factory=KnnConfig, description="item-kNN")
    ease: EaseConfig = Field(default_factory=EaseConfig, description="EASE")
    als: AlsConfig = Field(default_factory=AlsConfig, description="ALS")
    half_lives: tuple[float, ...] = Field(
        (2.5, 5.0, 10.0, 20.0), min_length=1, description="tried on validation"
    )
    groups: GroupsConfig = Field(
        default_factory=GroupsConfig, description="what is popular among users of an age band, on a device, …"
    )


class TwoTowerRecipe(Strict):
    """The two-tower retriever and its fit."""

    model: TwoTowerConfig = Field(default_factory=TwoTowerConfig, description="shape of the towers")
    ids: VocabularyConfig = Field(default_factory=VocabularyConfig, description="which items have own rows")
    fit: TwoTowerFitConfig = Field(default_factory=TwoTowerFitConfig, description="how it is trained")


class Recipe(Strict):
    """One whole training run."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,60}$", description="names its runs")
    seed: int = Field(0, ge=0, description="of everything that is trained")
    split: SplitConfig = Field(default_factory=SplitConfig, description="what is held out")
    content: ContentConfig = Field(
        default_factory=ContentConfig,
        description="content vectors, where the pipeline names source `content`",
    )
    memory: MemoryConfig = Field(default_factory=MemoryConfig, description="baselines and solved sources")
    two_tower: TwoTowerRecipe = Field(default_factory=TwoTowerRecipe, description="the trained retriever")
    models: dict[str, ZooModel] = Field(
        default_factory=dict,
        description="further models, as rows of the offline table and, by their names, sources of the pipeline",
    )
    ranker: RankerRecipe = Field(default_factory=RankerRecipe, description="the ranker")
    pipeline: PipelineConfig = Field(description="the stages that serve")
    data_gate: DataGateConfig = Field(
        default_factory=DataGateConfig, description="how much a retrain's data may differ from the champion's"
    )
    index: IndexConfig = Field(
        default_factory=IndexConfig, description="how the item tower's vectors are searched"
    )
    content_index: IndexConfig = Field(
        default_factory=IndexConfig, description="how content vectors are searched"
    )
    tune: TuneConfig = Field(default_factory=TuneConfig, description="how its spaces are searched")

    @property
    def is_content_only(self) -> bool:
        """Whether content vectors are all that is trained: its pipeline has no ranker."""
        return not self.pipeline.ranker

    @field_validator("models")
    @classmethod
    def _own_names(cls, models: dict[str, ZooModel]) -> dict[str, ZooModel]:
        for name in models:
            if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,39}", name) or name in RESERVED:
                raise ValueError(
                    f"names of small letters, digits and dashes, none of which is taken; {name!r} is not such"
                )
        return models

    @model_validator(mode="after")
    def _trains_its_sources(self) -> Self:
        names = {source.name for source in self.pipeline.retrieval.sources}
        known = {*SOURCES, *self.models}
        if unknown := sorted(names - known):
            raise ValueError(f"sources among {', '.join(sorted(known))}; {unknown[0]!r} is none")
        if self.is_content_only and not names <= CONTENT_SOURCES:
            raise ValueError(f"without a ranker, sources among {', '.join(sorted(CONTENT_SOURCES))}")
        return self

    @property
    def ranker_features(self) -> tuple[str, ...]:
        """Names of the dense features that the ranker reads."""
        pipeline = self.pipeline
        return feature_names(pipeline.retrieval.ranked_sources, pipeline.hydration.request_features)

    @model_validator(mode="after")
    def _ranker_has_its_fields(self) -> Self:
        self.ranker.check_fields(self.ranker_features, by_id=self.pipeline.ranking.item_ids)
        return self


def packaged_recipes() -> list[str]:
    """Names of the recipes that ship with the package."""
    return sorted(
        file.name.removesuffix(".yaml") for file in files(_PACKAGE).iterdir() if file.name.endswith(".yaml")
    )


def is_recipe(path: Path) -> bool:
    """Whether a YAML file is written as a recipe: it has a pipeline of its own, or extends what has one.

    Raises:
        ConfigError: The file cannot be read.
    """
    return not read_yaml(path).keys().isdisjoint(("pipeline", "extends"))


def read_recipe(name: str, *, quick: bool = False) -> Recipe:
    """The recipe of a packaged name or of a YAML file, its search spaces replaced by their defaults.

    Both forms of it, with and without its `quick:` keys, are checked whichever is wanted.

    Raises:
        UsageError: There is no such recipe.
        ConfigError: A key is unknown or a value wrong, or recipes extend each other in a circle.
    """
    return _read_forms(name)[quick][0]


def search_space(name: str, *, quick: bool = False) -> dict[str, Space]:
    """The search spaces of a recipe, by the dotted path of the value that each stands beside.

    Those that it extends of the DLRM's model and fit are none of a click model's.

    Raises:
        UsageError: There is no such recipe.
        ConfigError: See `read_recipe`; or a space is written wrongly or holds a value that its key refuses.
    """
    return _read_forms(name)[quick][1]


def _read_forms(name: str) -> dict[bool, tuple[Recipe, dict[str, Space]]]:
    """Recipe and spaces, without and with the `quick:` keys."""
    tree, origin = _resolve(name, Path.cwd(), ())
    overlay = tree.pop("quick", None) or {}
    own = _read(name, Path.cwd())[0]
    own_overlay = own.pop("quick", None) or {}
    return {
        False: _parse(tree, own, origin),
        True: _parse(_merge(tree, overlay), _merge(own, own_overlay), f"{origin}, quick"),
    }


def _parse(tree: Mapping[str, Any], own: Mapping[str, Any], origin: str) -> tuple[Recipe, dict[str, Space]]:
    """Of a whole recipe; `own` is what of it the recipe does not extend."""
    plain, spaces = split_spaces(tree, origin)
    recipe = Recipe.parse(plain, origin)
    if recipe.ranker.is_click_model:
        refuse_unread(recipe.ranker.kind, own.get("ranker") or {}, origin)
        spaces = {path: space for path, space in spaces.items() if _is_for_click_models(path, own)}
    for path, space in spaces.items():
        for value in space.bounds():
            Recipe.parse(with_values(plain, {path: value}), f"{origin}, search of {path}")
    return recipe, spaces


def _is_for_click_models(path: str, own: Mapping[str, Any]) -> bool:
    """Whether a space is not of the DLRM's model and fit, or is of what click models read of them and the recipe's own."""
    if not path.startswith(("ranker.model.", "ranker.fit.")):
        return True
    found: Any = own
    for key in path.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found is not None and is_read_by_click_models(path)


def recipe_text(recipe: Recipe) -> str:
    """The resolved recipe as YAML: all values, defaults included."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=110)


def _resolve(name: str, folder: Path, children: tuple[str, ...]) -> tuple[dict[str, Any], str]:
    tree, origin, folder = _read(name, folder)
    if origin in children:
        raise ConfigError(
            f"{origin} extends itself", value=" -> ".join((*children, origin)), mend="break the circle"
        )
    parent = tree.pop("extends", None)
    if parent is not None:
        tree = _merge(_resolve(str(parent), folder, (*children, origin))[0], tree)
    return tree, origin


def _read(name: str, folder: Path) -> tuple[dict[str, Any], str, Path]:
    """The recipe's own keys, what to call it in errors, and where the files that it names lie."""
    if name.endswith((".yaml", ".yml")):
        path = (folder / name).resolve()
        tree, origin, folder = read_yaml(path), str(path), path.parent
        tree.setdefault("name", path.stem)
    elif name in packaged_recipes():
        tree, origin = (
            yaml.safe_load((files(_PACKAGE) / f"{name}.yaml").read_text(encoding="utf-8")),
            f"recipe {name}",
        )
        tree.setdefault("name", name)
    else:
        known = ", ".join(packaged_recipes())
        raise UsageError("recipe", value=name, limit=f"one of {known}, or a .yaml file", mend="choose one")
    return tree, origin, folder


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` over it; groups of keys merge, everything else is replaced."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged
