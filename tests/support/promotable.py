"""Small bundles that differ in what gates look at."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tastemaker.bundle.manifest import BundleInfo, BundleRef, DatasetInfo
from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.bundle.writer import BundleWriter
from tastemaker.config import Settings
from tastemaker.config_experiments import PromotionSettings
from tastemaker.home import Home
from tastemaker.index.config import IndexConfig
from tastemaker.index.faiss_index import FaissIndex
from tastemaker.promotion.gate import Case

USERS = 200
BASE = np.random.default_rng(0).random(USERS)
ITEM_IDS = [f"i{n}" for n in range(50)]
VECTORS = np.random.default_rng(1).standard_normal((50, 8)).astype(np.float32)


def write_bundle(
    store: BundleStore,
    *,
    catalogue: str = "default",
    ndcg: np.ndarray | None = BASE,
    users: Sequence[str] | None = None,
    ids: Sequence[str] = ITEM_IDS,
    fingerprint: str = "f",
    weight: float = 1.0,
    kind: Any = "flat",
    effort: dict[str, int] | None = None,
    columns: dict[str, Any] | None = None,
    lists: Sequence[int] | None = None,
    ece: float | None = None,
    split: dict[str, int] | None = None,
    marker: str = "",
) -> BundleRef:
    """A bundle of 50 items; what is not asked for it lacks. `columns` are further ones of the users' metrics.

    Without `lists` it does not keep what it lists; items 0 to 9 are popular, those from 25 on of category "new".
    """
    writer = BundleWriter(store, catalogue)
    writer.add_tensors("item_tower.safetensors", {"w": np.array([weight])})
    category = ["old" if row < len(ids) // 2 else "new" for row in range(len(ids))]
    writer.add_table("items.parquet", pa.table({"item_id": list(ids), "category": category}))
    writer.add_index("index.faiss", FaissIndex.build(VECTORS, IndexConfig(kind=kind, **(effort or {}))))
    if ndcg is not None:
        named = list(users) if users is not None else [f"u{n}" for n in range(len(ndcg))]
        kept: dict[str, Any] = {"user_id": named, "ndcg@10": ndcg, **(columns or {})}
        writer.add_table("user_metrics.parquet", pa.table(kept))
    if lists is not None:
        had = [80] * 10 + [5] * 40  # items 0 to 9 have 800 of 1000
        writer.add_table("exposure.parquet", pa.table({"item_id": list(ids), "lists": lists, "users": had}))
    if ece is not None:
        writer.add_json("ranker.json", {})
        writer.add_json("metrics.json", {"ranker": {"held_out_ece": ece}})
    if split is not None:
        writer.add_json("recipe.json", {"split": split})
    info = BundleInfo(dataset=DatasetInfo(fingerprint=fingerprint), recipe=f"demo{marker}", training_id="t1")
    return writer.commit(info)


def case(
    store: BundleStore, home: Home, candidate: BundleRef, champion: BundleRef | None = None, **promotion: Any
) -> Case:
    """What gates are asked of version 2, beside version 1 where there is a champion, under these limits."""
    return Case(
        settings=Settings(promotion=PromotionSettings(**promotion)),
        home=home,
        number=2,
        alias="champion",
        candidate=Bundle.open(store, candidate),
        champion=Bundle.open(store, champion) if champion else None,
        champion_number=1 if champion else None,
    )
