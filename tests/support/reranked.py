"""Lists, items and their order after the reranking stages that a test names."""

from collections.abc import Mapping

import numpy as np
from records import NOW_MS

from tastemaker.data.item_rows import Item, table_of
from tastemaker.features.traits import ItemTraits
from tastemaker.stages.rerankers.config import RerankingConfig
from tastemaker.stages.rerankers.seen import RerankingItems
from tastemaker.stages.reranking import Reranking
from tastemaker.types import Candidates, Query

DAY_MS = 86_400_000
NOTHING = np.empty(0, np.int32)
NONE = {"fatigue": None, "mmr": None, "category_cap": None}


def unit(num: int, dim: int = 4, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(num, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def ranked(num: int) -> Candidates:
    """Rows 0, 1, … whose relevance falls from 1 to 0 in equal steps."""
    score = (1 / (1 + np.exp(np.linspace(-3, 3, num)))).astype(np.float32)
    return Candidates(np.arange(num, dtype=np.int32), score, np.ones(num, np.uint32), score[:, None])


def catalogue(*rows: Mapping[str, object], interactions: list[float] | None = None) -> ItemTraits:
    """Items i0, i1, … of these attributes."""
    items = [Item.model_validate({"item_id": f"i{i}", **row}) for i, row in enumerate(rows)]
    table = table_of([(item.item_id, item.encode()) for item in items])
    return ItemTraits.from_items(table, None if interactions is None else np.array(interactions, np.float32))


def order_of(traits: ItemTraits, query: Query | None = None, **config: object) -> list[int]:
    """The order in which rows 0, 1, … come out of the stages that are configured, and none else."""
    names = sorted(traits.category.codes)
    code = {traits.category.codes[name]: place for place, name in enumerate(names)} | {-1: -1}
    category = np.array([code[c] for c in traits.category.code_I.tolist()], np.int32)
    items = RerankingItems(unit(len(traits)), category, traits)
    row = {f"i{i}": i for i in range(len(traits))}
    stage = Reranking(items, RerankingConfig.model_validate(NONE | {"keep_top": 0} | config), row.get)
    asked = query or Query(NOTHING, k=len(traits), now_ms=NOW_MS)
    [out] = stage([asked], [ranked(len(traits))])
    return out.item_index.tolist()
