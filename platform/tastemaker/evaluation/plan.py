"""What is to be evaluated, as one YAML file: data, split, systems, metrics, segments."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from tastemaker.config_sources import read_yaml
from tastemaker.evaluation.comparing import Correction
from tastemaker.evaluation.windows import Cutoff, LastOut, Rolling
from tastemaker.models.transfer.domains import ItemsWith
from tastemaker.models.zoo import ZooModel
from tastemaker.strict import Strict

_AT_A_DEPTH: Final = (
    "ndcg", "recall", "precision", "hit_rate", "map", "unbiased_recall", "unbiased_dcg",
)  # fmt: skip
_OF_A_USER: Final = (
    "mrr", "auc", "novelty", "diversity", "serendipity", "popularity", "popularity_lift", "miscalibration",
)  # fmt: skip


class BundleModel(Strict):
    """A bundle as it was published: it may have seen what is held out."""

    bundle: str = Field(description="alias or number of a version of the catalogue")


class EvaluationPlan(Strict):
    """One evaluation."""

    data: str | None = Field(
        None,
        description="a MovieLens folder or zip, a CSV or Parquet table of events; empty: the catalogue's log",
    )
    users: str | None = Field(
        None,
        description="CSV or Parquet with user_id and columns that segments name, such as country, or that models read of users, such as age_band",
    )
    split: Annotated[LastOut | Cutoff | Rolling, Field(discriminator="kind")] = Field(
        default_factory=LastOut, description="what is held out"
    )
    models: Mapping[str, ZooModel | BundleModel] = Field(
        min_length=1, description="systems by name: models, each fitted on every fold, and bundles"
    )
    baseline: str | None = Field(None, description="what the others are compared with; empty: the first")
    ks: tuple[int, ...] = Field((10, 50), min_length=1, description="depths of lists")
    compared: tuple[str, ...] = Field(
        ("ndcg@10", "recall@10"), description="metrics whose differences are tested, all corrected together"
    )
    correction: Correction = Field("holm", description="for the number of questions")
    segments: tuple[str, ...] = Field(
        ("activity", "popularity", "item-age"),
        description="activity, popularity, item-age, or columns of `users`",
    )
    graded: bool = Field(False, description="whether NDCG takes the values of targets as grades")
    sampled: int | None = Field(
        None,
        ge=1,
        description="items not taken that targets are ranked among; empty: the whole catalogue, as it should be",
    )
    within: ItemsWith | None = Field(
        None,
        description="items that alone are targets and stand in lists, such as one domain's; what users took of others stays in their histories; empty: all",
    )
    popularity_power: float | None = Field(
        None,
        ge=0,
        description="adds metrics in which a target weighs by 1 / popularity ** ((power + 1) / 2); empty: none",
    )
    propensity: str | None = Field(
        None,
        min_length=1,
        description="the same by how likely items were to be seen, as this column of the items says, above 0 and at most 1",
    )
    threads: int | None = Field(None, ge=1, description="blocks of users at once; empty: as there are cores")
    seed: int = Field(0, ge=0, description="of intervals and tests")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.baseline is not None and self.baseline not in self.models:
            raise ValueError(f"baseline must be one of the models: {', '.join(self.models)}")
        if self.sampled is not None and any(isinstance(model, BundleModel) for model in self.models.values()):
            raise ValueError("sampled needs scores of all items, which a bundle does not give: leave one out")
        if self.within is not None and any(isinstance(model, BundleModel) for model in self.models.values()):
            raise ValueError("within needs scores of all items, which a bundle does not give: leave one out")
        if self.popularity_power is not None and self.propensity is not None:
            raise ValueError("popularity_power or propensity, one of them")
        if min(self.ks) < 1:
            raise ValueError("ks must be 1 or more")
        known = {*_OF_A_USER, *(f"{metric}@{k}" for metric in _AT_A_DEPTH for k in self.ks)}
        if unknown := [metric for metric in self.compared if metric not in known]:
            raise ValueError(
                f"compared metrics of users, at the depths ks ({', '.join(map(str, self.ks))}); {unknown[0]!r} is none"
            )
        return self

    @property
    def against(self) -> str:
        """The baseline's name."""
        return self.baseline or next(iter(self.models))


def read_plan(file: Path) -> EvaluationPlan:
    """The plan in a file; paths in it are from its folder.

    Raises:
        ConfigError: A key is unknown or a value wrong, or there is no such kind of model.
    """
    tree = read_yaml(file)
    for key in ("data", "users"):
        if isinstance(tree.get(key), str):
            tree[key] = str((file.parent / tree[key]).resolve())
    return EvaluationPlan.parse(tree, str(file))
