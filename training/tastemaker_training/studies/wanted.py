"""Which study is asked for: the part of a recipe that is tuned, its spaces, and whether trials of it can run at all."""

import os
from pathlib import Path

from tastemaker.config import Settings
from tastemaker.errors import ConfigError, UsageError
from tastemaker_training.artifacts import plain
from tastemaker_training.distributed.workers import check_workers
from tastemaker_training.plan.recipe import Recipe, read_recipe, search_space
from tastemaker_training.plan.search_space import PARTS, Part, Space, with_values
from tastemaker_training.studies.study import Study, reported


def wanted_study(
    settings: Settings,
    recipe: str,
    num_workers: int,
    *,
    part: str | None = None,
    num_trials: int | None = None,
    quick: bool = False,
) -> Study:
    """The study that these arguments of `tune` ask for, without a record.

    Raises:
        UsageError: The recipe searches nothing, or there are not so many cores.
        ConfigError: The recipe is no recipe.
    """
    wanted = _wanted(recipe, part, num_trials, quick)
    check_workers(num_workers, settings)
    _check_concurrency(num_workers, wanted.recipe.tune.concurrency, settings)
    return wanted


def _wanted(name: str, asked: str | None, num_trials: int | None, quick: bool) -> Study:
    recipe = read_recipe(name, quick=quick)
    part, spaces = _part(recipe, search_space(name, quick=quick), asked)
    config = recipe.tune
    if num_trials is not None and num_trials < 1:
        raise UsageError("--trials", value=num_trials, limit="at least 1", mend="ask for one or more")
    told = reported(recipe, part)
    if config.metric not in (None, *told):
        raise ConfigError(
            f"recipe {recipe.name}: tune.metric", value=config.metric,
            limit=f"one of {', '.join(told)}, which the {part} reports", mend="correct it",
        )  # fmt: skip
    is_click_model = part == "ranker" and recipe.ranker.is_click_model
    epochs = config.max_epochs or getattr(recipe, part).fit.epochs
    if is_click_model:
        epochs = recipe.ranker.num_reports
    if config.grace_epochs > epochs:
        limit = f"at most the {epochs} {'reports' if is_click_model else 'epochs'} of a trial"
        raise ConfigError(
            f"recipe {recipe.name}: tune.grace_epochs",
            value=config.grace_epochs,
            limit=limit,
            mend="lower it",
        )
    changes = {"tune.num_trials": num_trials or config.num_trials}
    if not is_click_model:
        changes[f"{part}.fit.epochs"] = epochs
    recipe = Recipe.parse(with_values(plain(recipe), changes), f"recipe {recipe.name}")
    return Study(Path(), part, recipe, spaces, config.metric or told[0], "", "")


def _part(recipe: Recipe, spaces: dict[str, Space], asked: str | None) -> tuple[Part, dict[str, Space]]:
    """What is tuned, and its spaces."""
    found = {part: {path: spaces[path] for path in spaces if path.startswith(f"{part}.")} for part in PARTS}
    if asked is not None and asked not in PARTS:
        raise UsageError("--part", value=asked, limit=f"one of {', '.join(PARTS)}", mend="choose one")
    chosen = next((part for part in PARTS if (found[part] if asked is None else part == asked)), PARTS[0])
    if not found[chosen]:
        what = f"recipe {recipe.name} searches nothing of its {asked or ' or '.join(PARTS)}"
        raise UsageError(what, mend="write a value as {default: 0.1, search: {low: 0.01, high: 1.0}}")
    return chosen, found[chosen]


def _check_concurrency(num_workers: int, concurrency: int, settings: Settings) -> None:
    cores = os.cpu_count() or 1
    if settings.ray.address is None and num_workers * concurrency > cores:
        raise UsageError(
            f"tune.concurrency with {num_workers} workers each", value=concurrency, mend="lower one of them",
            limit=f"at most {cores // num_workers}, for this machine has {cores} cores",
        )  # fmt: skip
