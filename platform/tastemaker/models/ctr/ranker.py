"""Any click model as the serving graph's ranker: what the graph knows of candidates, as fields and rows.

Numbers are the dense features; fields of one value are an item's year and category, what the request's context says, and the item
itself where it may be known by id; fields of many are an item's tags, those of the newest items of the history and, by id, these items in
order. A candidate's slot is none of them. Not for what the stages make of it (`stages.ranking`).

Shape letters: K candidates of one request, N rows of all requests, F dense features.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from tastemaker.errors import CompatibilityError
from tastemaker.features.columns import HISTORY, ITEM, FeatureSchema
from tastemaker.features.context import CONTEXT_TABLES, NUM_ROWS, ContextTable, query_feature
from tastemaker.features.ranking_batch import Bag
from tastemaker.features.ranking_data import CLICK, Target
from tastemaker.models.contributions import Contributions
from tastemaker.models.ctr.fields import Categorical, Fields, Multi, Rows, Values
from tastemaker.models.ctr.kinds import PackedClickModel
from tastemaker.models.ctr.model import ClickModel
from tastemaker.types import Float32, Int64

_FROM_0: Final = frozenset({"item_tags", "recent_tags", ITEM, HISTORY})
"""Features whose row 0 is a value like others; of the rest it stands for unknown."""


def ranking_fields(
    dense_features: Sequence[str],
    *,
    num_tags: int,
    num_years: int,
    num_categories: int,
    context: Sequence[ContextTable] = (),
    num_items: int | None = None,
) -> Fields:
    """The fields of the graph's candidates.

    Args:
        dense_features: Names, in order.
        num_tags: Rows of a table of tags.
        num_years: Rows of one of years, unknown among them.
        num_categories: Rows of one of categories, unknown among them.
        context: What of a request's time and device is read, in any order.
        num_items: Items that are known by id, of candidates and histories; None: none.
    """
    sizes = {"item_years": num_years - 1, "item_categories": num_categories - 1}
    sizes |= {query_feature(table): NUM_ROWS[table] - 1 for table in CONTEXT_TABLES if table in context}
    multi: list[tuple[str, int, str | None]]
    multi = [("item_tags", num_tags, None), ("recent_tags", num_tags, None)]
    multi += [(f"recent_{what}", sizes[f"item_{what}"], f"item_{what}") for what in ("years", "categories")]
    if num_items is not None:
        sizes[ITEM] = num_items
        multi.append((HISTORY, num_items, ITEM))
    return Fields(
        categorical=tuple(Categorical(name=name, num_values=max(num, 1)) for name, num in sizes.items()),
        multi=tuple(Multi(name=name, num_values=max(num, 1), like=like) for name, num, like in multi),
        dense=tuple(dense_features),
    )


def ranking_rows(
    fields: Fields, dense_NF: Float32, bags: Mapping[str, Bag], group_N: Int64 | None = None
) -> Rows:
    """Rows of candidates.

    Args:
        fields: As `ranking_fields` makes them.
        dense_NF: Their dense features.
        bags: Of each field that is no number: one bag a candidate, or one for all of them.
        group_N: Each candidate's request.
    """
    columns: dict[str, Any] = dict(zip(fields.dense, dense_NF.T, strict=True))
    for one in fields.categorical:
        columns[one.name] = _values(bags, one.name, len(dense_NF)).value_V
    for many in fields.multi:
        columns[many.name] = _values(bags, many.name, len(dense_NF))
    return Rows.of(fields, columns, group_N)


def _values(bags: Mapping[str, Bag], name: str, num_rows: int) -> Values:
    bag = bags[name]
    if len(bag.lengths) != num_rows:
        bag = bag.times(num_rows)
    offsets = np.concatenate([[0], np.cumsum(bag.lengths)]).astype(np.int64)
    return Values((bag.values + (name in _FROM_0)).astype(np.int32), offsets, bag.weights)


class ClickRanker:
    """A click model behind the interface of `models.rankers`. Thread-safe.

    Args:
        model: Fitted on rows of `ranking_fields`.
    """

    targets: tuple[Target, ...] = (CLICK,)

    def __init__(self, model: ClickModel) -> None:
        self.model = model

    @property
    def dense_features(self) -> tuple[str, ...]:
        """See `rankers.Ranker.dense_features`."""
        return self.model.fields.dense

    def require(self, schema: FeatureSchema) -> None:
        """See `rankers.Ranker.require`."""
        have = self._fields(schema)
        if have != self.model.fields:
            raise CompatibilityError(
                "tags, years and categories of the catalogue", value=_sizes(have), limit=_sizes(self.model.fields),
                mend="train the ranker with this feature schema",
            )  # fmt: skip

    def _fields(self, schema: FeatureSchema) -> Fields:
        """What the schema makes of fields of these names."""
        names = {field.name for field in self.model.fields.categorical}
        return ranking_fields(
            self.dense_features,
            num_tags=schema.num_tags,
            num_years=schema.num_years,
            num_categories=schema.num_categories,
            context=[table for table in CONTEXT_TABLES if query_feature(table) in names],
            num_items=schema.num_items if ITEM in names else None,
        )

    def logits(self, dense_KF: Float32, bags: Mapping[str, Bag]) -> Float32:
        """See `rankers.Ranker.logits`."""
        return self.model.scores(ranking_rows(self.model.fields, dense_KF, bags))[:, None]

    def contributions(self, dense_KF: Float32, bags: Mapping[str, Bag], at: int) -> Contributions:
        """See `rankers.Ranker.contributions`."""
        return self.model.contributions(ranking_rows(self.model.fields, dense_KF, bags), at)

    def config_dict(self) -> dict[str, Any]:
        """See `PackedClickModel`."""
        return PackedClickModel(self.model).config_dict()

    def tensors(self) -> Mapping[str, np.ndarray]:
        """What was learned."""
        return self.model.tensors()

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> "ClickRanker":
        """The ranker that both describe.

        Raises:
            CompatibilityError: See `PackedClickModel`.
            MissingExtraError: Its kind needs a package that is not installed.
        """
        return cls(PackedClickModel.from_state(config, tensors))


def _sizes(fields: Fields) -> str:
    return ", ".join(f"{name} {num - 1}" for name, num in fields.num_rows.items())
