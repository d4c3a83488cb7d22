"""A tiny bundle and the graph that serves it, for tests of the whole."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import psutil
import pyarrow.compute as pc
import scipy.sparse as sp
import torch

from tastemaker.bundle.manifest import BundleInfo, BundleRef, DatasetInfo
from tastemaker.bundle.store import BundleStore
from tastemaker.bundle.writer import BundleWriter
from tastemaker.config import Settings
from tastemaker.data.schema import ITEMS_SCHEMA
from tastemaker.events.archive import read_days
from tastemaker.experiments.decision_log import DECISION_SCHEMA
from tastemaker.features.columns import FeatureSchema, ItemColumns
from tastemaker.features.content import ContentConfig, ContentSpace
from tastemaker.features.records import read_users
from tastemaker.home import Home
from tastemaker.index.faiss_index import FaissIndex
from tastemaker.models.calibration import Calibration
from tastemaker.models.dlrm import Dlrm, DlrmConfig
from tastemaker.models.item_item import fit_ease
from tastemaker.models.popularity import fit_popularity
from tastemaker.models.two_tower import TwoTower, TwoTowerConfig, two_tower_specs
from tastemaker.registry.client import Registry
from tastemaker.stages.content import CONTENT_INDEX
from tastemaker.stages.hydration import feature_names
from tastemaker.stages.loading import write_pipeline
from tastemaker.stages.pipeline import Pipeline
from tastemaker.stages.pipeline_config import PipelineConfig
from tastemaker.state.connection import connect, url_of
from tastemaker.state.keys import Keys
from tastemaker.types import Query
from tastemaker_services.app import Serving

NUM_ITEMS = 60
SOURCES = ("two_tower", "ease", "popular")
YEAR_MS = 31_556_952_000
READ = ("item_click_7d", "session_length", "times_shown")


def write_bundle(store: BundleStore, catalogue: str, seed: int, moved: float = 0.0) -> BundleRef:
    """A pipeline whose ranker is random: each seed orders the items in its own way, and `moved` is how far from that it is."""
    generator = np.random.default_rng(0)
    torch.manual_seed(seed)
    items = {
        "item_id": [f"é/{i}" for i in range(NUM_ITEMS)],
        "title": [f"Title {i}" for i in range(NUM_ITEMS)],
        "category": [("Drama", "Comedy", "Noir")[i % 3] for i in range(NUM_ITEMS)],
        "tags": [["Drama"], ["Comedy", "Noir"]] * (NUM_ITEMS // 2),
        "created_at_ms": [i * YEAR_MS for i in range(NUM_ITEMS)],
    }
    import pyarrow as pa

    table = pa.table(items, schema=ITEMS_SCHEMA)
    schema = FeatureSchema.fit(table)
    taken = generator.random((50, NUM_ITEMS)) < np.linspace(0.5, 0.05, NUM_ITEMS)
    item_index = np.nonzero(taken)[1].astype(np.int32)
    two_tower_config = TwoTowerConfig(dim=8)
    two_tower = TwoTower(two_tower_config, two_tower_specs(two_tower_config, schema)).eval()
    sizes = {name: getattr(schema, name) for name in ("num_tags", "num_years", "num_categories")}
    ranker = Dlrm(DlrmConfig(dense_features=feature_names(SOURCES, READ), **sizes))
    torch.nn.init.normal_(ranker.wide.weight)
    moves = torch.randn(ranker.wide.weight.shape, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        ranker.wide.weight += moved * moves
    with torch.no_grad():  # what is of the moment is read and counts for nothing: answers are those offline
        ranker.wide.weight[:, -len(READ) :] = 0
        ranker.bottom[0].weight[:, -len(READ) :] = 0
    writer = BundleWriter(store, catalogue)
    writer.add_table("items.parquet", table)
    writer.add_json("features.json", schema.model_dump(mode="json"))
    writer.add_towers("two_tower", two_tower, is_item=lambda name: "embedding_bags" in name)
    writer.add_index(
        "index.faiss", FaissIndex.build(two_tower.encode_items(ItemColumns.from_items(table, schema)))
    )
    writer.add_model("ease", fit_ease(sp.csr_matrix(taken, dtype=np.float32), 10.0, half_life=5.0))
    space = ContentSpace.fit(table, ContentConfig(dim=512))
    writer.add_model("content", space)
    writer.add_index(CONTENT_INDEX, FaissIndex.build(space.encode(table)), "content.safetensors")
    writer.add_model("popularity", fit_popularity(item_index, np.arange(len(item_index)), NUM_ITEMS))
    retrieval = {"sources": [{"name": name, "quota": 30} for name in SOURCES], "num_candidates": 40}
    # No luck: served slates are compared with the pipeline's own.
    stages = {"retrieval": retrieval, "hydration": {"request_features": READ}, "exploration": {"share": 0.0}}
    config = PipelineConfig.parse(stages, "test")
    write_pipeline(writer, config, ranker, Calibration(slope=0.7, intercept=-2.0))
    return writer.commit(
        BundleInfo(dataset=DatasetInfo(fingerprint="f" * 64), recipe="test", training_id=f"t{seed}-{moved:g}")
    )


@dataclass
class Running:
    serving: Serving
    home: Home
    settings: Settings
    client: httpx.Client
    pipelines: dict[str, Pipeline]
    registry: Registry

    def recommend(self, user_id: str = "nobody", **body: Any) -> dict[str, Any]:
        headers = {"x-tastemaker-origin": body.pop("origin", "live")}
        response = self.client.post("/v1/recommendations", json={"user_id": user_id} | body, headers=headers)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def offline(
        self, bundle: str, history: list[int], k: int = 10, visit: Sequence[int] = (), user: str | None = None
    ) -> list[str]:
        """The bundle's own answer, in this process; the visit is part of the history, `user` is whose record counts."""
        record = None
        if user is not None:
            keys = Keys(self.settings.catalogue, self.settings.state.partitions)
            with connect(url_of(self.settings, self.home)) as client:
                record = read_users(client, keys, [user])[user]
        visit_L = np.array(visit, np.int32)
        query = Query(np.array(history, np.int32), k=k, visit_L=visit_L, record=record, now_ms=now_ms())
        [answer] = self.pipelines[bundle].recommend([query])
        return [f"é/{row}" for row in answer.item_index]


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def assert_gone(children: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(children, timeout=15)
    assert [process.cmdline() for process in alive] == []


def process_of(name: str) -> psutil.Process:
    """The newest of that name: other tests' fixtures have a Valkey of their own."""
    found = [p for p in psutil.Process().children(recursive=True) if name in " ".join(p.cmdline())]
    return max(found, key=lambda process: process.create_time())


def put_item(running: Running, item_id: str, **fields: Any) -> None:
    response = running.client.put("/v1/items", json={"items": [{"item_id": item_id} | fields]})
    assert (response.status_code, response.json()["accepted"]) == (200, 1), response.text


def logged(running: Running, request_id: str) -> bool:
    where = pc.field("request_id") == request_id
    folder = running.home / "decisions" / running.settings.catalogue
    return len(read_days(folder, DECISION_SCHEMA, "decision_id", where)) > 0
