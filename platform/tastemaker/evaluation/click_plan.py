"""What of clicks is to be evaluated, as one YAML file: a table of what was shown, its fields, models. Lists: see `plan`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import Field, model_validator

from tastemaker.evaluation.comparing import Correction
from tastemaker.models.ctr.kinds import click_model_class
from tastemaker.models.packed import ChosenModel
from tastemaker.strict import Strict

CLICKS: Final = "clicks"
"""The key by which a plan is one of clicks."""
LEARNED_BY: Final = "unbiased_logloss"
"""Metric that propensities add."""
Tested = Literal["logloss", "gauc", "unbiased_logloss"]


class ClickModelChoice(ChosenModel):
    """A click model."""

    @classmethod
    def config_class(cls, kind: str) -> type[Strict]:
        """See `ChosenModel`."""
        return click_model_class(kind).Config


class GivenPropensity(Strict):
    """How likely each row was to be looked at."""

    column: str = Field(min_length=1, description="its column, above 0 and at most 1")
    of: Literal["clicks", "rows"] = Field(
        "clicks", description="clicks: what was not looked at is a no; rows: it is not in the table"
    )
    least: float = Field(0.01, gt=0, le=1, description="propensities below this count as this")


class ClickPlan(Strict):
    """One evaluation of click models on rows of what was shown."""

    clicks: str = Field(description="CSV or Parquet with a row for each item that was shown")
    label: str = Field("clicked", description="column of 1 and 0")
    group: str | None = Field(
        None,
        description="column that says which rows were one request's or one user's: they stay together; empty: each row is alone",
    )
    time: str | None = Field(
        None, description="column by which the newest are held out; empty: they are drawn"
    )
    held_out: float = Field(0.2, gt=0, lt=1, description="share of the groups that models are judged by")
    validation: float = Field(
        0.1, ge=0, lt=1, description="share, before these, by which fits know when to stop; 0: none"
    )
    values: tuple[str, ...] = Field((), description="columns of one word: ids, devices, …")
    lists: tuple[str, ...] = Field((), description="columns of words, as lists or 'a|b'")
    histories: Mapping[str, str] = Field(
        default_factory=dict,
        description="columns of lists, oldest first, whose words are those of a column of `values`",
    )
    texts: tuple[str, ...] = Field((), description="columns that are read by their hashed runs of letters")
    text_values: int = Field(5000, ge=1, description="values that runs of letters are hashed to")
    numbers: tuple[str, ...] = Field((), description="columns of numbers")
    propensity: GivenPropensity | None = Field(
        None, description="corrects the fits, and adds unbiased_logloss; empty: none"
    )
    models: Mapping[str, ClickModelChoice] = Field(min_length=1, description="click models by name")
    baseline: str | None = Field(None, description="what the others are compared with; empty: the first")
    compared: tuple[Tested, ...] = Field(
        ("logloss",), description="metrics whose differences are tested, all corrected together"
    )
    correction: Correction = Field("holm", description="for the number of questions")
    seed: int = Field(0, ge=0, description="of what is drawn, of intervals and tests")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        named = self.columns
        if not named or len(set(named)) < len(named):
            raise ValueError("values, lists, histories, texts or numbers: one column at least, each once")
        if self.label in named or self.group in self.numbers:
            raise ValueError("label and group cannot be read as features")
        if unknown := [one for one in self.histories.values() if one not in self.values]:
            raise ValueError(f"histories have the words of a column of values; {unknown[0]!r} is none")
        if self.baseline is not None and self.baseline not in self.models:
            raise ValueError(f"baseline must be one of the models: {', '.join(self.models)}")
        if self.held_out + self.validation >= 1:
            raise ValueError("held_out and validation leave nothing to learn from: less than 1 together")
        if "gauc" in self.compared and self.group is None:
            raise ValueError("gauc is of groups: name the column `group`")
        if LEARNED_BY in self.compared and self.propensity is None:
            raise ValueError(f"{LEARNED_BY} is of `propensity`: name its column")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """Of all features, in order."""
        return (*self.values, *self.lists, *self.histories, *self.texts, *self.numbers)

    @property
    def against(self) -> str:
        """The baseline's name."""
        return self.baseline or next(iter(self.models))


def read_click_plan(tree: Mapping[str, Any], file: Path) -> ClickPlan:
    """The plan of a file's tree; paths in it are from its folder.

    Raises:
        ConfigError: A key is unknown or a value wrong, or there is no such kind of model.
    """
    table = tree.get(CLICKS)
    resolved = {CLICKS: str((file.parent / table).resolve())} if isinstance(table, str) else {}
    return ClickPlan.parse({**tree, **resolved}, str(file))
