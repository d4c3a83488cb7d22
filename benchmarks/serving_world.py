"""A large published catalogue for `make bench-serving`, made of nothing in about a minute.

Items lie in clusters, and users take from a few of them, so that an index has something to find; models are random,
which costs the same as trained ones. One command makes a home with a champion in it and users in its state:
`python benchmarks/serving_world.py FOLDER --items 1000000`.

Shape letters: I catalogue, D dimension, U users, L history.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
import pyarrow as pa
import torch

from tastemaker.bundle.manifest import BundleInfo, DatasetInfo
from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.bundle.writer import BundleWriter
from tastemaker.config import Settings
from tastemaker.data.schema import ITEM_DETAILS, ITEMS_SCHEMA
from tastemaker.features.columns import FeatureSchema
from tastemaker.features.counters import ROWS, Counters, row_of
from tastemaker.features.request_features import REQUEST_FEATURES
from tastemaker.features.user_state import Shown, Signal, UserState
from tastemaker.home import Home
from tastemaker.index.building import build_index
from tastemaker.index.config import IndexConfig, IndexKind
from tastemaker.models.als import Als, AlsConfig
from tastemaker.models.calibration import Calibration
from tastemaker.models.dlrm import Dlrm, DlrmConfig
from tastemaker.models.popularity import Popularity, PopularityConfig
from tastemaker.models.two_tower import TwoTower, TwoTowerConfig, two_tower_specs
from tastemaker.registry.client import Registry
from tastemaker.stages.bundle_sources import ALS_INDEX
from tastemaker.stages.hydration import feature_names
from tastemaker.stages.loading import write_pipeline
from tastemaker.stages.pipeline_config import PipelineConfig
from tastemaker.state.connection import open_keys, open_state

DIM: Final = 64
CANDIDATES: Final = 500
DENSE_FEATURES: Final = 50
CATEGORIES, TAGS, CLUSTERS = 200, 500, 1000
HISTORY: Final = 50
QUOTAS: Final = {"two_tower": 300, "als": 200, "recent": 60, "trending": 60, "popular": 60}
RERANKING: Final = (
    "fatigue", "freshness", "long_tail", "dedupe", "frequency_cap", "calibrated", "mmr", "spread", "franchise_cap",
    "category_cap", "shuffle", "sampling",
)  # fmt: skip
"""Every stage that needs no lists of its own, at its defaults."""
YEAR_MS: Final = 31_556_952_000
DAY_MS: Final = 86_400_000


@dataclass(frozen=True)
class World:
    """A home that is ready to be served. Users are named u0, u1 and so on, items i0, i1."""

    home: Home
    num_items: int
    num_users: int
    seconds: float
    parts: dict[str, float]

    @property
    def settings(self) -> Settings:
        """Defaults in this home."""
        return Settings(home=self.home.root)

    def bundle(self) -> Bundle:
        """The champion, opened."""
        settings = self.settings
        version = Registry(settings, self.home).aliases(settings.catalogue)["champion"]
        return Bundle.open(BundleStore.of(settings, self.home), version.ref)


def make_world(folder: Path, num_items: int, num_users: int, kind: IndexKind) -> World:
    """Makes it in `folder`, its vectors searched by indexes of a kind."""
    began = time.monotonic()
    home = Home.make(folder / "home")
    settings = Settings(home=home.root)
    clock = _Clock()
    rng = np.random.default_rng(0)
    cluster_I = rng.integers(0, CLUSTERS, num_items)
    vectors_ID = _vectors(rng, cluster_I)
    items = _items(rng, num_items)
    clock("items")
    writer = BundleWriter(BundleStore.of(settings, home), settings.catalogue)
    _write_vectors(writer, rng, FeatureSchema.fit(items), vectors_ID, IndexConfig(kind=kind))
    clock("vectors and indexes")
    _write(writer, rng, items)
    info = BundleInfo(dataset=DatasetInfo(fingerprint="f" * 64), recipe="bench", training_id="bench")
    ref = writer.commit(info)
    clock("bundle")
    registry = Registry(settings, home)
    version = registry.publish(settings.catalogue, ref, {})
    registry.set_alias(settings.catalogue, "champion", version.number, "bench", "the only one")
    clock("registry")
    with open_state(settings, home) as client:
        _put_users(client, open_keys(client, settings), rng, cluster_I, num_users)
    clock("users")
    return World(home, num_items, num_users, time.monotonic() - began, clock.seconds)


class _Clock:
    def __init__(self) -> None:
        self._last, self.seconds = time.monotonic(), dict[str, float]()

    def __call__(self, part: str) -> None:
        now = time.monotonic()
        self.seconds[part], self._last = now - self._last, now


def _vectors(rng: np.random.Generator, cluster_I: Any) -> Any:
    centre_CD = rng.normal(size=(CLUSTERS, DIM)).astype(np.float32)
    vectors_ID = rng.standard_normal((len(cluster_I), DIM), np.float32)
    vectors_ID *= np.float32(0.8)
    vectors_ID += centre_CD[cluster_I]
    vectors_ID /= np.linalg.norm(vectors_ID, axis=1, keepdims=True)
    return vectors_ID


def _items(rng: np.random.Generator, num: int) -> pa.Table:
    offsets = np.concatenate([[0], np.cumsum(rng.integers(1, 4, num))]).astype(np.int32)
    names = pa.array([f"tag {t}" for t in range(TAGS)])
    tags = names.take(pa.array(rng.integers(0, TAGS, offsets[-1])))
    categories = pa.array([f"category {c}" for c in range(CATEGORIES)])
    ids = pa.array([f"i{i}" for i in range(num)])
    columns = {
        "item_id": ids,
        "title": ids,
        "category": categories.take(pa.array(rng.integers(0, CATEGORIES, num))),
        "tags": pa.ListArray.from_arrays(pa.array(offsets), tags),
        "created_at_ms": pa.array(_now_ms() - rng.integers(0, 10 * YEAR_MS, num)),
        "price": pa.array(rng.gamma(2.0, 10.0, num)),
        "franchise": pa.array([f"franchise {f}" for f in range(num // 20 + 1)]).take(
            pa.array(rng.integers(0, num // 20 + 1, num))
        ),
    }
    details = [ITEM_DETAILS.field(name) for name in ("price", "franchise")]
    return pa.table(columns, schema=pa.schema([*ITEMS_SCHEMA, *details]))


def pipeline_config() -> PipelineConfig:
    """Every source, `DENSE_FEATURES` features, `CANDIDATES` candidates, every stage of reranking."""
    weights = {"two_tower": 0.5, "als": 0.3, "recent": 0.2, "trending": 0.2, "popular": 0.1}
    sources = [{"name": name, "quota": quota, "weight": weights[name]} for name, quota in QUOTAS.items()]
    given = len(feature_names(tuple(QUOTAS)))
    stages = {
        "retrieval": {"sources": sources, "num_candidates": CANDIDATES},
        "hydration": {"request_features": REQUEST_FEATURES[-(DENSE_FEATURES - given) :]},
        "reranking": {name: {} for name in RERANKING},
    }
    return PipelineConfig.parse(stages, "bench")


def _write_vectors(
    writer: BundleWriter,
    rng: np.random.Generator,
    schema: FeatureSchema,
    vectors_ID: Any,
    config: IndexConfig,
) -> None:
    """Towers and ALS factors, each with its index."""
    writer.add_towers("two_tower", _towers(schema, vectors_ID), lambda name: name.startswith("tables."))
    writer.add_index("index.faiss", build_index(vectors_ID, config).index)
    factors_ID = _turned(rng, vectors_ID)
    writer.add_model("als", Als(AlsConfig(dim=DIM), factors_ID))
    writer.add_index(ALS_INDEX, build_index(factors_ID, config).index, "als.safetensors")


def _write(writer: BundleWriter, rng: np.random.Generator, items: pa.Table) -> None:
    num = len(items)
    schema, config = FeatureSchema.fit(items), pipeline_config()
    writer.add_table("items.parquet", items)
    writer.add_json("features.json", schema.model_dump(mode="json"))
    writer.add_model("popularity", _popularity(rng, items))
    torch.manual_seed(0)
    sizes = {name: getattr(schema, name) for name in ("num_tags", "num_years", "num_categories")}
    read = feature_names(tuple(QUOTAS), config.hydration.request_features)
    ranker = Dlrm(
        DlrmConfig(
            dense_features=read, embedding_dim=16, context=("hours", "devices"), position=True, **sizes
        )
    )
    torch.nn.init.normal_(ranker.wide.weight, std=0.1)
    write_pipeline(writer, config, ranker, Calibration(intercept=-3.0))
    assert len(read) == DENSE_FEATURES, num


def _towers(schema: FeatureSchema, vectors_ID: Any) -> TwoTower:
    """Towers whose item vectors are the given ones: tags and years add nothing, row 0 is that of unknown items."""
    config = TwoTowerConfig(dim=DIM)
    num = len(vectors_ID)
    model = TwoTower(config, two_tower_specs(config, schema, num + 1), item_rows=np.arange(1, num + 1))
    with torch.no_grad():
        ids = model.get_parameter("tables.embedding_bags.item_ids.weight")
        ids[0].zero_()
        ids[1:] = torch.from_numpy(vectors_ID)
        for table in ("tags", "years"):
            model.get_parameter(f"tables.embedding_bags.{table}.weight").zero_()
    return model.eval()


def _turned(rng: np.random.Generator, vectors_ID: Any) -> Any:
    """Other factors with the same clusters in them."""
    turn_DD = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0].astype(np.float32)
    return vectors_ID @ turn_DD


def _popularity(rng: np.random.Generator, items: pa.Table) -> Popularity:
    num = len(items)
    counts_I = (1e6 / (1.0 + rng.permutation(num)) ** 0.8).astype(np.float32)
    segments = tuple(f"category=category {c}" for c in range(10))
    category = items["category"].combine_chunks().dictionary_encode()
    members_SI = np.stack(
        [
            np.asarray(pa.compute.equal(category.cast(pa.string()), name.partition("=")[2]))
            for name in segments
        ]
    )
    config = PopularityConfig(num_items=num, as_of_ms=_now_ms(), segments=segments)
    return Popularity(config, counts_I, counts_I * rng.random(num, np.float32), members_SI)


def _put_users(client: Any, keys: Any, rng: np.random.Generator, cluster_I: Any, num_users: int) -> None:
    """Histories from three clusters each, and records of users who have seen and taken something."""
    by_cluster = np.argsort(cluster_I, kind="stable")
    start_C = np.searchsorted(cluster_I[by_cluster], np.arange(CLUSTERS + 1))
    for first in range(0, num_users, 500):
        pipe = client.pipeline(transaction=False)
        for user in range(first, min(first + 500, num_users)):
            mine = rng.integers(0, CLUSTERS, 3)
            pool = np.concatenate([by_cluster[start_C[c] : start_C[c + 1]] for c in mine])
            taken = rng.choice(pool, min(HISTORY, len(pool)), replace=False).tolist()
            pipe.rpush(keys.history(f"u{user}"), *(f"i{item}" for item in taken))
            pipe.set(keys.user(f"u{user}"), _record(rng, taken, len(cluster_I)).encode())
        pipe.execute()


def _record(rng: np.random.Generator, taken: list[int], num_items: int) -> UserState:
    now_ms = _now_ms()
    ago_ms = np.sort(rng.integers(60_000, 10 * DAY_MS, 20))[::-1]
    at = [now_ms - int(ago) for ago in ago_ms]
    kinds = np.array([row_of(kind) for kind in ROWS])
    counters = Counters.zeros(1).plus(
        np.zeros(50, np.int64), rng.choice(kinds, 50), np.ones(50), now_ms - rng.integers(0, 30 * DAY_MS, 50)
    )  # fmt: skip
    shown = rng.integers(0, num_items, 60).tolist() + taken[:20]
    return UserState(
        counters,
        {f"category {c}": float(rng.random()) for c in rng.integers(0, CATEGORIES, 12)},
        taken=[Signal(time_ms, f"i{item}", 0.5) for time_ms, item in zip(at, taken, strict=False)],
        opinions={f"i{item}": (now_ms, True) for item in rng.integers(0, num_items, 10).tolist()},
        shown={f"i{item}": Shown(float(1 + rng.integers(0, 5)), now_ms - DAY_MS) for item in shown},
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=3000)
    parser.add_argument("--index", choices=get_args(IndexKind), default="auto")
    asked = parser.parse_args()
    world = make_world(asked.folder, asked.items, asked.users, asked.index)
    print(json.dumps({"seconds": world.seconds, "parts": world.parts}))


if __name__ == "__main__":
    main()
