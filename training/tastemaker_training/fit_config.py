"""How models are trained, as a recipe says it: where tables lie, step sizes, how long."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from tastemaker.config import Strict
from tastemaker.errors import TrainingError
from tastemaker.models.dlrm import LossKind

Placement = Literal["table_wise", "row_wise", "data_parallel"]


class ShardingConfig(Strict):
    """How tables lie on the ranks."""

    default: Placement = Field("table_wise", description="placement of tables that `tables` does not name")
    tables: dict[str, Placement] = Field(default_factory=dict, description="placement by table name")

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


class OptimizerConfig(Strict):
    """Row-wise Adagrad for tables (one accumulator a row: its mean squared gradient), AdamW for the rest."""

    table_learning_rate: float = Field(0.1, gt=0, description="step size of the tables")
    table_epsilon: float = Field(1e-8, gt=0, description="added to the root of the accumulator")
    dense_learning_rate: float = Field(0.001, gt=0, description="step size of the dense parameters")
    dense_weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay of dense parameters")


class FitConfig(Strict):
    """What all fits share. Learning rates fall linearly to zero over the epochs."""

    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig, description="step sizes")
    sharding: ShardingConfig = Field(default_factory=ShardingConfig, description="where the tables lie")


class TwoTowerFitConfig(FitConfig):
    """How the two-tower is trained. The refit takes as many epochs as were best on validation."""

    epochs: int = Field(5, ge=1, description="passes over the examples")
    batch_size: int = Field(1024, ge=2, description="examples of a step, all ranks together")
    num_negatives: int = Field(512, ge=0, description="sampled items that each rank adds to a step")


class RankerFitConfig(FitConfig):
    """How the ranker is trained."""

    loss: LossKind = Field("listwise", description="softmax over a request, or each candidate by itself")
    epochs: int = Field(5, ge=1, description="passes over the requests")
    requests_per_batch: int = Field(16, ge=1, description="requests of a step, all ranks together")
    held_out_share: float = Field(0.1, gt=0, lt=1, description="requests kept for calibration and the curve")
