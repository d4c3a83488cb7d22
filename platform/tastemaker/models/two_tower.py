"""The two-tower retriever: a history and an item each become a unit vector, and near ones belong together.

The query tower reads the history as a mean weighted by recency, from the same table of items that the item tower reads,
and when and on what the request is made, where the recipe asks for it; there is no table of users. The item tower adds
up identity, tags and year. Which row of its table an item has is part of the model: items that are rarely seen share
row 0. The loss lies in `losses`, examples in `features.examples`, distribution elsewhere.

Shape letters: B requests or items, I catalogue, D dimension.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from tastemaker.errors import CompatibilityError
from tastemaker.features.columns import (
    HISTORY,
    ITEM,
    ITEM_TAGS,
    ITEM_YEARS,
    FeatureSchema,
    ItemColumns,
    history_bag,
)
from tastemaker.features.context import (
    NUM_ROWS,
    ContextTable,
    context_bags,
    query_feature,
    query_rows,
)
from tastemaker.features.ranking_batch import Bag
from tastemaker.models.tables import Jagged, PlainTables, Tables, TableSpec, jagged
from tastemaker.strict import Strict
from tastemaker.types import Float32, Int32, Int64, Query

ITEM_FEATURES = (ITEM, ITEM_TAGS, ITEM_YEARS)
ContextRows = Mapping[ContextTable, Int64]
"""The row (B,) of each request in each table of the context."""
_ITEMS_AT_ONCE = 8192
_CONTEXT_SCALE = 1e-3
"""Small: a context that was not seen in training should say nothing."""
ITEM_IDS = "item_ids"
"""The table of items."""
ITEM_ROWS = "item_rows"
"""Name among the tensors of where items lie in their table."""
UNKNOWN_ROW = 0
"""Of item_ids, for items that have no row of their own."""


class TwoTowerConfig(Strict):
    """Shape of the towers and of what they read."""

    dim: int = Field(64, ge=1, description="dimension of tables and vectors")
    hidden: int = Field(128, ge=1, description="hidden width of the query tower")
    half_life: float | None = Field(3.0, gt=0, description="items back where a history weighs half")
    max_history: int = Field(20, ge=1, description="newest items of a history that are read")
    temperature: float = Field(0.1, gt=0, description="divides inner products in the loss")
    init_scale: float = Field(0.05, gt=0, description="tables start uniform in plus or minus this")
    context: tuple[ContextTable, ...] = Field(
        (), description="of the request's context, what the query reads"
    )


def two_tower_specs(
    config: TwoTowerConfig, schema: FeatureSchema, num_item_rows: int | None = None
) -> list[TableSpec]:
    """The towers' tables: item_ids (read by history and item), tags, years, and those of the context.

    Args:
        config: Their shape.
        schema: Vocabularies of tags and years.
        num_item_rows: Rows of item_ids; unset gives every item of the catalogue its own.
    """
    rows = {
        ITEM_IDS: (num_item_rows or schema.num_items, (HISTORY, ITEM)),
        "tags": (schema.num_tags, (ITEM_TAGS,)),
        "years": (schema.num_years, (ITEM_YEARS,)),
    }
    tables = [
        TableSpec(name=name, num_rows=num, dim=config.dim, features=features, init_scale=config.init_scale)
        for name, (num, features) in rows.items()
    ]
    return tables + [
        TableSpec(
            name=table, num_rows=NUM_ROWS[table], dim=config.dim, features=(query_feature(table),),
            init_scale=_CONTEXT_SCALE,
        )
        for table in config.context
    ]  # fmt: skip


class QueryTower(nn.Module):
    """What the history's pooled items say, plus a correction by an MLP that starts near zero."""

    def __init__(self, config: TwoTowerConfig) -> None:
        super().__init__()
        self.hidden = nn.Linear(config.dim, config.hidden)
        self.out = nn.Linear(config.hidden, config.dim)
        if not self.out.weight.is_meta:  # where it draws nothing, see `tables`
            nn.init.normal_(self.out.weight, std=1e-3)
        nn.init.zeros_(self.out.bias)

    def forward(self, history_BD: Tensor) -> Tensor:
        """Unit vectors (B, D)."""
        correction_BD = self.out(functional.relu(self.hidden(history_BD)))
        return functional.normalize(history_BD + correction_BD, dim=1)


class QueryEncoder(nn.Module):
    """The query side: what serving needs beside an index. Inference is thread-safe.

    Args:
        config: The shape.
        specs: Tables of which those for this side's features are kept.
        tables: An `nn.Module` that looks up this side's features; unset keeps plain tables.
        item_rows: The row of item_ids (I,) of each item; unset: row i of item i. Later items have `UNKNOWN_ROW`.
    """

    ITEM_FEATURES: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        config: TwoTowerConfig,
        specs: Sequence[TableSpec],
        tables: Tables | None = None,
        item_rows: Int64 | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.query_features = (HISTORY, *(query_feature(table) for table in config.context))
        mine = {*self.query_features, *self.ITEM_FEATURES}
        self.specs = tuple(spec for spec in specs if set(spec.features) & mine)
        self.tables: Tables = PlainTables(self.specs) if tables is None else tables
        self.query_tower = QueryTower(config)
        num_rows = next(spec.num_rows for spec in specs if HISTORY in spec.features)
        self.item_rows: Int64 = np.arange(num_rows) if item_rows is None else item_rows

    def rows_of(self, bags: Mapping[str, Jagged]) -> dict[str, Jagged]:
        """Bags of items as bags of rows of item_ids; those of other tables stay."""
        return {name: self._item_rows(bag) if name in (HISTORY, ITEM) else bag for name, bag in bags.items()}

    def _item_rows(self, bag: Jagged) -> Jagged:
        item_V = bag.values.cpu().numpy()
        known_V = item_V < len(self.item_rows)
        rows_V = np.where(known_V, self.item_rows[np.where(known_V, item_V, 0)], UNKNOWN_ROW)
        return Jagged(torch.from_numpy(rows_V).to(bag.values.device), bag.lengths, bag.weights)

    def query(self, bags: Mapping[str, Jagged]) -> Tensor:
        """Vectors (B, D) of queries; `bags` holds `query_features`, of which `history` has items."""
        looked_up = self.tables.lookup(self.rows_of({name: bags[name] for name in self.query_features}))
        sum_BD = looked_up[HISTORY]
        for feature in self.query_features[1:]:
            sum_BD = sum_BD + looked_up[feature]
        vector_BD: Tensor = self.query_tower(sum_BD)
        return vector_BD

    def query_bags(self, histories: Sequence[Int32], context: ContextRows | None = None) -> dict[str, Bag]:
        """What `query` reads: of histories that are ordered oldest first, and of `context` where it is known."""
        bag = history_bag(histories, self.config.half_life, self.config.max_history)
        unknown = dict.fromkeys(self.config.context, np.zeros(len(histories), np.int64))
        return {HISTORY: bag} | context_bags(self.config.context, context or unknown)

    @torch.inference_mode()
    def encode(self, histories: Sequence[Int32], context: ContextRows | None = None) -> Float32:
        """Vectors (B, D) of histories that are ordered oldest first, in an unknown context unless told."""
        vector_BD: Float32 = self.query(jagged(self.query_bags(histories, context))).numpy()
        return vector_BD

    def encode_queries(self, queries: Sequence[Query]) -> Float32:
        """Vectors (B, D) of requests."""
        context = query_rows(queries) if self.config.context else None
        return self.encode([query.history_L for query in queries], context)

    def config_dict(self) -> dict[str, Any]:
        """What `from_state` needs beside the tensors; JSON."""
        specs = [spec.model_dump(mode="json") for spec in self.specs]
        return {"config": self.config.model_dump(mode="json"), "specs": specs}

    def tensors(self) -> dict[str, np.ndarray]:
        """Weights by name, tables under `tables.embedding_bags.T.weight`; and `item_rows`."""
        weights = {name: value.detach().cpu().numpy() for name, value in self.state_dict().items()}
        return weights | {ITEM_ROWS: self.item_rows}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        """The model that a `config_dict` and `tensors` describe, ready for inference.

        Either may be those of the whole two-tower: what this side does not need is passed over.

        Raises:
            CompatibilityError: A weight is missing or has another shape than the config says.
        """
        specs = [TableSpec.parse(spec, "two-tower table") for spec in config["specs"]]
        rows_I = tensors.get(ITEM_ROWS)  # the release before had a row for each item
        with torch.device("meta"):
            model = cls(TwoTowerConfig.parse(config["config"], "two-tower"), specs, item_rows=rows_I)
        # The given arrays become the weights: tables that lie in a mapped file stay there.
        given = {name: tensors[name] for name in model.state_dict() if name in tensors}
        state = {name: torch.from_numpy(np.require(v, requirements="W")).float() for name, v in given.items()}
        try:
            model.load_state_dict(state, assign=True)
        except RuntimeError as error:
            raise CompatibilityError(
                "two-tower weights", value=str(error).splitlines()[-1].strip(),
                mend="use the weights that were trained with this config",
            ) from error  # fmt: skip
        return model.eval()


class TwoTower(QueryEncoder):
    """Both towers over shared tables."""

    ITEM_FEATURES: ClassVar[tuple[str, ...]] = ITEM_FEATURES

    def item(self, bags: Mapping[str, Jagged]) -> Tensor:
        """Vectors (B, D) of items; `bags` holds the features of `ItemColumns.item_bags`."""
        looked_up = self.tables.lookup(self.rows_of({feature: bags[feature] for feature in ITEM_FEATURES}))
        sum_BD = torch.stack([looked_up[feature] for feature in ITEM_FEATURES]).sum(dim=0)
        return functional.normalize(sum_BD, dim=1)

    @torch.inference_mode()
    def encode_items(self, columns: ItemColumns) -> Float32:
        """Vectors (I, D) of the whole catalogue."""
        starts = range(0, len(columns), _ITEMS_AT_ONCE)
        chunks = [np.arange(start, min(start + _ITEMS_AT_ONCE, len(columns))) for start in starts]
        vectors = [self.item(jagged(columns.item_bags(rows))).numpy() for rows in chunks]
        return np.concatenate(vectors)

    def query_tensors(self) -> dict[str, np.ndarray]:
        """The part of `tensors` that `QueryEncoder` needs; `item_tensors` is the rest."""
        names = QueryEncoder.from_state(self.config_dict(), self.tensors()).tensors().keys()
        return {name: value for name, value in self.tensors().items() if name in names}

    def item_tensors(self) -> dict[str, np.ndarray]:
        """The part of `tensors` that only the item side reads."""
        query = self.query_tensors().keys()
        return {name: value for name, value in self.tensors().items() if name not in query}


class NewItemTower(TwoTower):
    """The item tower for items that came after the fit: its table of items is cut to the row of unknown ones."""

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        """Of the whole two-tower's `config_dict` and `tensors`, see `QueryEncoder.from_state`."""
        name = f"tables.embedding_bags.{ITEM_IDS}.weight"
        unknown_1D = tensors[name][UNKNOWN_ROW : UNKNOWN_ROW + 1]
        if ITEM_ROWS not in tensors:  # the release before had a row for each item, and none for unknown ones
            unknown_1D = np.zeros_like(unknown_1D)
        specs = [spec | {"num_rows": 1} if spec["name"] == ITEM_IDS else spec for spec in config["specs"]]
        cut = {**tensors, name: unknown_1D.copy(), ITEM_ROWS: np.zeros(1, np.int64)}
        return super().from_state({**config, "specs": specs}, cut)
