"""The ranker's part of a recipe: the DLRM that all ranks train together, or a click model of the zoo that one of them fits."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

from pydantic import Field, field_validator, model_validator

from tastemaker.errors import ConfigError
from tastemaker.features.context import ContextTable
from tastemaker.features.ranking_data import CLICK, Target
from tastemaker.models.ctr.kinds import CLICK_MODELS, click_model_class
from tastemaker.models.ctr.ranker import ranking_fields
from tastemaker.models.layers import ExpertsConfig
from tastemaker.strict import Strict
from tastemaker_training.plan.fit_config import RankerFitConfig

DLRM: Final = "dlrm"
"""Kind of the ranker that all ranks train together."""
CLICK_FIT: Final = ("negative_share", "hidden_share", "hidden_records", "click_weights", "held_out_share")
"""What of `fit` is read where the ranker is a click model; of `model` it is `context`."""
_CLICK_MODEL: Final = ("context", "position", "targets")
"""What of `model` a click model reads or refuses itself."""


class RankerModelConfig(Strict):
    """Shape of the ranker; what depends on the data is taken from it."""

    embedding_dim: int = Field(8, ge=1, description="dimension of its embeddings")
    bottom_hidden: tuple[int, ...] = Field((32,), description="hidden widths of the bottom MLP")
    top_hidden: tuple[int, ...] = Field((32,), description="hidden widths of the top MLP")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of hidden units dropped in training")
    context: tuple[ContextTable, ...] = Field((), description="what of a request's time and device is read")
    position: bool = Field(
        False, description="training takes account of the slot where a candidate was shown"
    )
    targets: tuple[Target, ...] = Field((CLICK,), description="what is predicted, click at least")
    experts: ExpertsConfig | None = Field(
        None, description="experts that the targets share; empty: they share the top MLP"
    )

    @field_validator("context")
    @classmethod
    def _named_once(cls, context: tuple[ContextTable, ...]) -> tuple[ContextTable, ...]:
        if len(set(context)) < len(context):
            raise ValueError("tables of the context that are named once each")
        return context


NUM_REPORTS: Final = 10
"""Of a click model's fit, whatever its epochs or trees."""


class RankerRecipe(Strict):
    """The ranker and its fit. Of a click model `config` says all but a few things that are read of `model` and `fit`."""

    kind: str = Field(DLRM, description="dlrm, trained by all ranks, or a click model: see docs/models.md")
    config: Mapping[str, Any] = Field(
        default_factory=dict, description="of a click model, what of its config differs from the defaults"
    )
    model: RankerModelConfig = Field(default_factory=RankerModelConfig, description="shape of the DLRM")
    fit: RankerFitConfig = Field(default_factory=RankerFitConfig, description="how it is trained")

    @model_validator(mode="after")
    def _positions_count_once(self) -> Self:
        if self.model.position and self.fit.click_weights.position != "none":
            raise ValueError("model.position and fit.click_weights.position make up for the same: choose one")
        return self

    @property
    def is_click_model(self) -> bool:
        """Whether it is one of the zoo's click models, fitted by one rank."""
        return self.kind != DLRM

    @property
    def num_reports(self) -> int:
        """How often its fit reports: behind each epoch, a click model's behind each tenth of its epochs or trees."""
        return NUM_REPORTS if self.is_click_model else self.fit.epochs

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        kinds = ", ".join([DLRM, *(kind for kind in CLICK_MODELS if kind != DLRM)])
        if self.kind not in CLICK_MODELS:
            raise ValueError(f"kind among {kinds}; {self.kind!r} is none")
        if not self.is_click_model:
            if self.config:
                raise ValueError("config is of click models; the DLRM has model and fit")
            return self
        if self.model.targets != (CLICK,) or self.model.position:
            raise ValueError(
                "a click model predicts the click alone and reads no position: that is the DLRM's"
            )
        click_model_class(self.kind).Config.parse(self.config, f"ranker {self.kind}")
        return self

    def check_fields(self, dense_features: Sequence[str], *, by_id: bool) -> None:
        """Passes when such a ranker can be made for the graph's features.

        Args:
            dense_features: Names of the numbers.
            by_id: Whether items are known by id.

        Raises:
            ValueError: The DLRM is to know items by id.
            ConfigError: The config names what is no field.
        """
        if not self.is_click_model:
            if by_id:
                raise ValueError(
                    "pipeline.ranking.item_ids is for click models; the DLRM knows no items by id"
                )
            return
        fields = ranking_fields(
            dense_features, num_tags=1, num_years=1, num_categories=1, context=self.model.context,
            num_items=1 if by_id else None,
        )  # fmt: skip
        kind = click_model_class(self.kind)
        kind.check_fields(fields, kind.Config.parse(self.config, f"ranker {self.kind}"))


def is_read_by_click_models(path: str) -> bool:
    """Whether a click model reads a key of a recipe, by its dotted path.

    >>> is_read_by_click_models("ranker.fit.click_weights.popularity"), is_read_by_click_models("ranker.fit.epochs")
    (True, False)
    """
    group, _, rest = path.removeprefix("ranker.").partition(".")
    read = {"model": _CLICK_MODEL, "fit": CLICK_FIT}.get(group) if path.startswith("ranker.") else None
    return read is None or rest.partition(".")[0] in read


def refuse_unread(kind: str, written: Mapping[str, Any], origin: str) -> None:
    """Passes when a recipe writes nothing for a click model that only the DLRM reads; one that writes all of it was resolved.

    Args:
        kind: Of the click model.
        written: The recipe's own `ranker`, without what it extends.
        origin: What to call the recipe.

    Raises:
        ConfigError: It does.
    """
    for group, shape in (("model", RankerModelConfig), ("fit", RankerFitConfig)):
        unread = [key for key in shape.model_fields if not is_read_by_click_models(f"ranker.{group}.{key}")]
        found = [key for key in unread if key in (written.get(group) or {})]
        if found and len(found) < len(unread):
            raise ConfigError(
                f"{origin}: ranker.{group}.{found[0]}", value=written[group][found[0]],
                limit=f"left to the DLRM: a {kind} does not read it",
                mend=f"remove it, or write what {kind} has in ranker.config",
            )  # fmt: skip
