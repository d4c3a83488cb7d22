"""How models are trained, as a recipe says it: where tables lie, step sizes, how long, what is kept on the way."""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from tastemaker.errors import TrainingError
from tastemaker.features.negatives import NegativesConfig
from tastemaker.features.ranking_data import Target
from tastemaker.models.ranking_losses import LossKind
from tastemaker.strict import Strict
from tastemaker_training.rows.stream import StreamConfig

Placement = Literal["table_wise", "row_wise", "column_wise", "data_parallel"]
Precision = Literal["fp32", "bf16"]
TableType = Literal["fp32", "fp16"]


class ShardingConfig(Strict):
    """How tables lie on the ranks."""

    default: Placement = Field("table_wise", description="placement of tables that `tables` does not name")
    tables: dict[str, Placement] = Field(default_factory=dict, description="placement by table name")
    column_width: int = Field(32, ge=4, description="columns of one shard of a column_wise table, at least")
    budget_mib: int | None = Field(
        None, ge=1, description="memory of a rank for tables and their optimizer state; empty: all of it"
    )
    table_type: TableType = Field("fp32", description="type of the rows of sharded tables")

    def placements(self, names: Sequence[str]) -> dict[str, Placement]:
        """The placement of each of a model's tables.

        Raises:
            TrainingError: The config names a table that the model has not.
        """
        for unknown in sorted(self.tables.keys() - set(names)):
            raise TrainingError(
                f"sharding.tables.{unknown}", limit=f"one of {', '.join(names)}", mend="rename it"
            )
        return {name: self.tables.get(name, self.default) for name in names}

    def type_of(self, table: str) -> TableType:
        """The type of a table's rows: replicas, which a plain optimizer updates, are always fp32."""
        replicated = self.tables.get(table, self.default) == "data_parallel"
        return "fp32" if replicated else self.table_type


class OptimizerConfig(Strict):
    """Row-wise Adagrad for tables (one accumulator a row: its mean squared gradient), AdamW for the rest."""

    table_learning_rate: float = Field(0.1, gt=0, description="step size of the tables")
    table_epsilon: float = Field(1e-8, gt=0, description="added to the root of the accumulator")
    dense_learning_rate: float = Field(0.001, gt=0, description="step size of the dense parameters")
    dense_weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay of dense parameters")
    dense_clip_norm: float | None = Field(
        None, gt=0, description="largest norm of the dense gradient, all parameters together; empty: any"
    )
    warmup_steps: int = Field(0, ge=0, description="steps over which learning rates rise linearly")

    def rate(self, step: int, num_steps: int) -> float:
        """What learning rates are multiplied by in step `step` of `num_steps`: a rise, and a fall to zero.

        >>> [OptimizerConfig(warmup_steps=2).rate(step, 4) for step in range(4)]
        [0.5, 0.75, 0.5, 0.25]
        """
        rise = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        return rise * (1.0 - step / num_steps)


class CheckpointConfig(Strict):
    """What is kept of a fit under way. The end of each epoch is always kept, and the best of them."""

    every_steps: int | None = Field(None, ge=1, description="steps between checkpoints within an epoch")
    keep: int = Field(2, ge=1, description="newest checkpoints that are kept; the best is kept besides")


class FitConfig(Strict):
    """What all fits share. Learning rates fall linearly to zero over the epochs."""

    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig, description="step sizes")
    sharding: ShardingConfig = Field(default_factory=ShardingConfig, description="where the tables lie")
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig, description="what is kept")
    prefetch: int = Field(2, ge=0, description="batches that are made ahead of the step; 0 makes none")
    precision: Precision = Field("fp32", description="arithmetic of the dense parts; losses are fp32")
    accumulate: int = Field(
        1, ge=1, description="backward passes of one dense update; tables are updated in each"
    )


class TwoTowerFitConfig(FitConfig):
    """How the two-tower is trained. The refit takes as many epochs as were best on validation."""

    epochs: int = Field(5, ge=1, description="passes over the examples")
    batch_size: int = Field(1024, ge=2, description="examples of a step, all ranks together")
    negatives: NegativesConfig = Field(
        default_factory=NegativesConfig, description="what stands against the targets"
    )
    stream: StreamConfig = Field(default_factory=StreamConfig, description="how examples are read")
    validation_users: int = Field(
        20_000, ge=1, description="users that validation asks about after each epoch, at most"
    )


class ClickWeightsConfig(Strict):
    """How much each click counts in the listwise loss: more where few look, less where an item is shown a lot."""

    position: Literal["none", "randomised", "em", "file"] = Field(
        "none",
        description="a click counts 1 / examination of its slot: from lists drawn by luck in the decision log, from impressions by EM, or from a file",
    )
    file: str | None = Field(
        None, description="where position is file: what `tastemaker position-bias --to` wrote"
    )
    least_examination: float = Field(
        0.05,
        gt=0,
        le=1,
        description="examination below this counts as this, so that no click weighs more than 1 / it",
    )
    days: float = Field(
        28.0, gt=0, description="where position is randomised: of the decision log, the newest"
    )
    popularity: float = Field(
        0.0,
        ge=0,
        le=1,
        description="exponent: a click counts (interactions of its item + 1)^-exponent; 0 weighs all alike",
    )

    @model_validator(mode="after")
    def _names_its_file(self) -> Self:
        if (self.position == "file") != (self.file is not None):
            raise ValueError("position: file needs file, and only that does")
        return self

    @property
    def weighs(self) -> bool:
        """Whether clicks count differently at all."""
        return self.position != "none" or self.popularity > 0


class RankerFitConfig(FitConfig):
    """How the ranker is trained."""

    loss: LossKind = Field(
        "listwise", description="loss of clicks: softmax over a request, or each candidate by itself"
    )
    loss_weights: dict[Target, float] = Field(
        default_factory=dict, description="weights of the targets' losses; 1 where not named"
    )
    negative_share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of a request's candidates without a click that an epoch learns from",
    )
    hidden_share: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of requests whose context and positions an epoch hides, to learn `unknown`",
    )
    hidden_records: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of requests whose user's record an epoch hides, to learn users of whom nothing is known",
    )
    click_weights: ClickWeightsConfig = Field(
        default_factory=ClickWeightsConfig, description="how much each click counts"
    )
    epochs: int = Field(5, ge=1, description="passes over the requests")
    requests_per_batch: int = Field(16, ge=1, description="requests of a step, all ranks together")
    held_out_share: float = Field(0.1, gt=0, lt=1, description="requests kept for calibration and the curve")

    @model_validator(mode="after")
    def _only_lists_weigh(self) -> Self:
        if self.click_weights.weighs and self.loss != "listwise":
            raise ValueError(
                "click_weights go with loss: listwise; for loss: pointwise there is ranker.model.position"
            )
        return self
