"""The ranker: a small DLRM [Naumov et al. 2019] with an output for each target. Not its losses.

Dense features pass a bottom MLP into the embeddings' space; all pairs of vectors give their dot product; a top MLP turns
these and the bottom's output into logits. Departures from the paper: the standardised dense features also reach the
logits through one linear layer (`wide`), since with thousands of positives, not billions, most of the signal is linear in
the sources' scores; and a candidate's slot, which only training knows, adds to them and meets nothing else, so that taking
it away leaves the rest as it is [Zhao et al. 2019].

Shape letters: B candidates of all requests of a batch, F dense features, D dimension, V vectors that interact,
P pairs of them, T targets.
"""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from tastemaker.errors import CompatibilityError
from tastemaker.features.columns import FeatureSchema
from tastemaker.features.context import NUM_ROWS, ContextTable, query_feature
from tastemaker.features.ranking_batch import POSITION, Bag
from tastemaker.features.ranking_data import CLICK, Target
from tastemaker.models.contributions import Contributions
from tastemaker.models.expected_gradients import expected_gradients
from tastemaker.models.layers import Experts, ExpertsConfig, dot_products, mlp
from tastemaker.models.tables import Jagged, PlainTables, Tables, TableSpec, jagged
from tastemaker.strict import Strict
from tastemaker.types import Float32

MAX_POSITION = 50
"""Last row of the table of positions: this slot and those below it. Row 0 is no position."""
_LARGEST_DEVIATION = 5.0


class DlrmConfig(Strict):
    """Shape of the ranker."""

    dense_features: tuple[str, ...] = Field(min_length=1, description="names of the dense features, in order")
    num_tags: int = Field(ge=1, description="rows of the table of tags")
    num_years: int = Field(ge=1, description="rows of the table of year buckets")
    num_categories: int = Field(ge=1, description="rows of the table of categories")
    embedding_dim: int = Field(8, ge=1, description="dimension of embeddings and of the bottom MLP's output")
    bottom_hidden: tuple[int, ...] = Field((32,), description="hidden widths of the bottom MLP")
    top_hidden: tuple[int, ...] = Field((32,), description="hidden widths of the top MLP")
    dropout: float = Field(0.2, ge=0, lt=1, description="share of hidden units dropped in training")
    context: tuple[ContextTable, ...] = Field((), description="what of a request's time and device is read")
    position: bool = Field(
        False, description="training takes account of the slot where a candidate was shown"
    )
    targets: tuple[Target, ...] = Field((CLICK,), description="what is predicted, click at least")
    experts: ExpertsConfig | None = Field(
        None, description="experts that the targets share; null: they share the top MLP"
    )

    @field_validator("targets")
    @classmethod
    def _with_click(cls, targets: tuple[Target, ...]) -> tuple[Target, ...]:
        if CLICK not in targets or len(set(targets)) < len(targets):
            raise ValueError("targets that are named once each, click among them")
        return targets

    @property
    def optional_features(self) -> tuple[str, ...]:
        """The features that it reads only because it was asked to: of context, and the position."""
        context = tuple(query_feature(table) for table in self.context)
        return (*context, POSITION) if self.position else context


def dlrm_specs(config: DlrmConfig) -> list[TableSpec]:
    """The ranker's tables; the candidate's bag and the recent history's bag read the same rows."""
    rows: dict[str, tuple[int, tuple[str, ...]]] = {
        "tags": (config.num_tags, ("item_tags", "recent_tags")),
        "years": (config.num_years, ("item_years", "recent_years")),
        "categories": (config.num_categories, ("item_categories", "recent_categories")),
    }
    for table in config.context:
        rows[table] = (NUM_ROWS[table], (query_feature(table),))
    if config.position:
        rows["positions"] = (MAX_POSITION + 1, (POSITION,))
    return [
        TableSpec(name=name, num_rows=num, dim=config.embedding_dim, features=features)
        for name, (num, features) in rows.items()
    ]


class Dlrm(nn.Module):
    """Logits of candidates, for each target; that of a watch time is log(1 + seconds). Thread-safe under `eval()`.

    Args:
        config: The shape.
        tables: An `nn.Module` that looks up the features of `dlrm_specs(config)`; unset keeps plain tables.
    """

    mean_F: Tensor
    scale_F: Tensor
    pairs_2P: Tensor

    def __init__(self, config: DlrmConfig, tables: Tables | None = None) -> None:
        super().__init__()
        self.config = config
        specs = dlrm_specs(config)
        self.tables: Tables = PlainTables(specs) if tables is None else tables
        self.features = tuple(feature for spec in specs for feature in spec.features)
        self._interacting = tuple(feature for feature in self.features if feature != POSITION)
        num_dense, num_targets = len(config.dense_features), len(config.targets)
        num_vectors = len(self._interacting) + 1
        pairs = torch.tril_indices(num_vectors, num_vectors, offset=-1)
        self.bottom = mlp((num_dense, *config.bottom_hidden, config.embedding_dim), config.dropout)
        self.top = _top(config, pairs.shape[1] + config.embedding_dim)
        self.wide = nn.Linear(num_dense, num_targets)
        if config.position:
            self.slot = nn.Linear(config.embedding_dim, num_targets, bias=False)
        self.register_buffer("pairs_2P", pairs, persistent=False)
        self.register_buffer("mean_F", torch.zeros(num_dense))
        self.register_buffer("scale_F", torch.ones(num_dense))
        nn.init.zeros_(self.wide.weight)

    def set_normalisation(self, dense_NF: Float32) -> None:
        """Takes each dense feature's mean and deviation from the training data; a constant one keeps scale 1."""
        mean, deviation = dense_NF.mean(0, dtype=np.float64), dense_NF.std(0, dtype=np.float64)
        self.mean_F.copy_(torch.from_numpy(mean))
        self.scale_F.copy_(torch.from_numpy(np.where(deviation > 1e-6, deviation, 1.0)))

    def set_prior(self, label_NT: Float32) -> None:
        """Starts each output at what the training data has on average, which losses of single candidates need."""
        for column, target in enumerate(self.config.targets):
            known = label_NT[:, column][~np.isnan(label_NT[:, column])].astype(np.float64)
            if target == "watch":
                start = np.log1p(known).mean() if len(known) else 0.0
            else:
                start = np.log((known.sum() + 1) / (len(known) - known.sum() + 1))
            self.wide.bias.data[column] = float(start)

    def forward(self, dense_BF: Tensor, bags: Mapping[str, Jagged]) -> Tensor:
        """Logits (B, T). Features further than 5 deviations from the mean count as 5.

        A feature with one bag where there are several candidates has that bag for each of them.
        """
        looked_up = self.tables.lookup({feature: bags[feature] for feature in self.features})
        return self._met(self._standardised(dense_BF), looked_up)

    def _standardised(self, dense_BF: Tensor) -> Tensor:
        return ((dense_BF - self.mean_F) / self.scale_F).clamp(-_LARGEST_DEVIATION, _LARGEST_DEVIATION)

    def _met(self, dense_BF: Tensor, looked_up: Mapping[str, Tensor]) -> Tensor:
        """Logits (B, T) of standardised features and what the tables have for the others."""
        bottom_BD = self.bottom(dense_BF)
        of_table = (looked_up[name].expand_as(bottom_BD) for name in self._interacting)
        vectors_BVD = torch.stack([bottom_BD, *of_table], dim=1)
        top_BX = torch.cat([bottom_BD, self.interact(vectors_BVD)], dim=1)
        logit_BT: Tensor = self.top(top_BX) + self.wide(dense_BF)
        return logit_BT + self.slot(looked_up[POSITION]) if self.config.position else logit_BT

    def interact(self, vectors_BVD: Tensor) -> Tensor:
        """Dot products (B, P) of each pair of vectors, in the order (1,0), (2,0), (2,1), (3,0) and so on."""
        return dot_products(vectors_BVD, self.pairs_2P)

    @property
    def dense_features(self) -> tuple[str, ...]:
        """See `rankers.Ranker.dense_features`."""
        return self.config.dense_features

    @property
    def targets(self) -> tuple[Target, ...]:
        """See `rankers.Ranker.targets`."""
        return self.config.targets

    def require(self, schema: FeatureSchema) -> None:
        """See `rankers.Ranker.require`; from here on it is in evaluation."""
        self.eval()
        have = (schema.num_tags, schema.num_years, schema.num_categories)
        want = (self.config.num_tags, self.config.num_years, self.config.num_categories)
        if have != want:
            raise CompatibilityError(
                "tags, years and categories of the catalogue", value=have, limit=want,
                mend="train the ranker with this feature schema",
            )  # fmt: skip

    def logits(self, dense_KF: Float32, bags: Mapping[str, Bag]) -> Float32:
        """See `rankers.Ranker.logits`; what is one bag for all candidates is looked up once."""
        assert not self.training, "`require` hands it over to inference: dropout is of training"
        read = {feature: bags[feature] for feature in self.features}
        with torch.inference_mode():
            logit_KT: Float32 = self(torch.from_numpy(dense_KF), jagged(read)).numpy()
        return logit_KT

    def contributions(self, dense_KF: Float32, bags: Mapping[str, Bag], at: int) -> Contributions:
        """See `rankers.Ranker.contributions`: of each dense feature, and of each other one by what its table has for it."""
        click, (num, num_dense) = self.targets.index(CLICK), dense_KF.shape
        with torch.no_grad():
            looked_up = self.tables.lookup(jagged({feature: bags[feature] for feature in self.features}))
            moving = [looked_up[name].expand(num, -1) for name in self._interacting]
            input_KX = torch.cat([self._standardised(torch.from_numpy(dense_KF)), *moving], 1)
        width = self.config.embedding_dim
        still = {POSITION: looked_up[POSITION][:1]} if self.config.position else {}

        def outputs(input_NX: Tensor) -> Tensor:
            vectors = torch.split(input_NX[:, num_dense:], width, 1)
            met = dict(zip(self._interacting, vectors, strict=True)) | still
            return self._met(input_NX[:, :num_dense], met)[:, click]

        names = [*self.dense_features, *(name for name in self._interacting for _ in range(width))]
        return expected_gradients(outputs, input_KX, names, at)

    def config_dict(self) -> dict[str, Any]:
        """What `from_state` needs beside the tensors; JSON."""
        return self.config.model_dump(mode="json")

    def tensors(self) -> dict[str, np.ndarray]:
        """Weights and normalisation by name; tables under `tables.embedding_bags.T.weight`."""
        return {name: value.detach().cpu().numpy() for name, value in self.state_dict().items()}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        """The model that `config_dict` and `tensors` describe, ready for inference.

        Raises:
            CompatibilityError: The tensors are not of this shape.
        """
        model = cls(DlrmConfig.parse(config, "ranker"))
        try:
            model.load_state_dict(
                {name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}
            )
        except RuntimeError as error:
            raise CompatibilityError(
                "ranker's weights",
                value=str(error).splitlines()[-1].strip(),
                mend="use the weights trained with this config",
            ) from error
        return model.eval()


def _top(config: DlrmConfig, width: int) -> nn.Module:
    """Outputs (B, T): one MLP that all targets share to its last layer, or experts."""
    if config.experts is None:
        return mlp((width, *config.top_hidden, len(config.targets)), config.dropout)
    return Experts(width, config.experts, config.top_hidden, len(config.targets), config.dropout)
