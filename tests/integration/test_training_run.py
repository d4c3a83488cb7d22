"""A small recipe from events to a registered bundle, by the commands that a user types. Real Ray, TorchRec, MLflow."""

import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from small import NUM_GROUPS, NUM_USERS, SmallHome

from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.config import Settings
from tastemaker.home import Home
from tastemaker.stages.pipeline import Pipeline
from tastemaker.types import Query

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]


class Trained(SmallHome):
    """A home in which the recipe and one that extends it were trained and published."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        reads = "pipeline: {hydration: {request_features: [cross]}}"
        fit = "ranker: {fit: {loss: pointwise, hidden_records: 0.3}}"
        self.write("other.yaml", f"extends: small.yaml\n{reads}\n{fit}")
        self.trained, self.other = self.json("train", "small.yaml", "other.yaml", "--workers", "1", "--json")
        (self.again,) = self.json("train", "other.yaml", "--workers", "1", "--json")
        self.offline = self.json("evaluate", "small", "--json")
        self.reading = self.json("evaluate", "other", "--json")
        self.published = self.json("publish", "small", "--json")
        self.planted = self.json("publish", "small", "--plant-worse", "--json")

    def bundle(self, published: dict) -> Bundle:
        store = BundleStore.of(Settings(home=self.home), Home.open(self.home))
        return Bundle.open(store, published["uri"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
    return Trained(tmp_path_factory.mktemp("training"))


def test_the_table_has_every_system_with_intervals(trained):
    rows = {row["system"]: row for row in trained.offline["rows"]}
    assert list(rows) == [
        "popularity", "item-kNN", "item-kNN, recency", "ALS", "ALS, recency", "EASE", "EASE, recency",
        "two-tower", "pipeline before reranking", "pipeline",
    ]  # fmt: skip
    for row in rows.values():
        for metric in ("recall@10", "recall@50", "ndcg@10", "map@10", "mrr", "novelty"):
            assert row[f"{metric}_low"] <= row[metric] <= row[f"{metric}_high"]
        assert {"coverage", "gini"} <= row.keys()
    assert trained.offline["num_users"] == NUM_USERS


def test_who_reads_records_is_also_shown_without_them(trained):
    rows = {row["system"]: row for row in trained.reading["rows"]}
    assert list(rows)[-2:] == ["pipeline", "pipeline, no records"]
    paired = trained.reading["paired"]["pipeline, no records - pipeline"]
    difference = rows["pipeline, no records"]["ndcg@10"] - rows["pipeline"]["ndcg@10"]
    assert paired["mean"] == pytest.approx(difference, abs=1e-9)


def test_models_learn_the_groups_that_users_stay_with(trained):
    rows = {row["system"]: row["ndcg@10"] for row in trained.offline["rows"]}
    for learned in ("EASE", "two-tower", "pipeline"):
        assert rows[learned] > 1.5 * rows["popularity"]


def test_a_second_recipe_reuses_the_retrievers(trained):
    folders = sorted(path.name.rsplit("-", 1)[0] for path in (trained.home / "checkpoints").iterdir())
    assert folders == [
        "examples", "memory", "ranker", "ranker", "requests", "requests", "runs", "solo", "two-tower",
    ]  # fmt: skip
    assert trained.again["run"] != trained.other["run"]


def test_nothing_of_a_training_is_pickled(trained):
    names = [path.name for path in trained.home.rglob("*") if path.is_file()]
    assert "two_tower.safetensors" in names
    assert not [
        name for name in names if name.endswith((".pt", ".pth", ".pkl", ".pickle", ".joblib", ".metadata"))
    ]


def test_the_bundle_recommends_what_was_evaluated(trained):
    bundle = trained.bundle(trained.published)
    bundle.verify()
    pipeline = Pipeline.from_bundle(bundle)
    assert pipeline.source_names == ("two_tower", "ease", "als", "popular")
    history = np.array([bundle.index_of(str(item)) for item in (1, 5, 9, 13)], np.int32)
    (found,) = pipeline.recommend([Query(history, k=10)])
    assert len(found) == 10
    assert not set(found.item_index) & set(history)
    groups = [int(bundle.item_ids[item]) % NUM_GROUPS for item in found.item_index]
    assert groups[:5] == [1] * 5  # items 1, 5, 9 and 13 are of one group; reranking caps its share


def test_the_bundle_says_where_it_comes_from(trained):
    bundle = trained.bundle(trained.published)
    manifest = bundle.manifest
    assert manifest.dataset.fingerprint == trained.trained["dataset"]
    assert manifest.dataset.ranker.end_ms <= manifest.dataset.retrievers.end_ms
    assert manifest.recipe == "small"
    assert bundle.json("recipe.json")["two_tower"]["fit"]["epochs"] == 4
    users = bundle.table("user_metrics.parquet")
    assert users.num_rows == NUM_USERS
    rows = {row["system"]: row for row in trained.offline["rows"]}
    assert np.mean(users.column("ndcg@10").to_numpy()) == pytest.approx(
        rows["pipeline"]["ndcg@10"], abs=1e-12
    )
    assert trained.published["metrics"]["ndcg@10"] == pytest.approx(rows["pipeline"]["ndcg@10"], abs=1e-12)


def test_a_planted_bundle_says_so_and_is_worse(trained):
    bundle = trained.bundle(trained.planted)
    assert "planted: its ranker goes against its sources" in bundle.manifest.recipe
    assert trained.planted["version"] == trained.published["version"] + 1
    assert trained.planted["metrics"]["ndcg@10"] < trained.published["metrics"]["ndcg@10"]
    shared = {name: file.sha256 for name, file in trained.bundle(trained.published).manifest.files.items()}
    assert bundle.manifest.files["index.faiss"].sha256 == shared["index.faiss"]


def test_the_run_is_in_mlflow(trained):
    from tastemaker.registry.client import Registry

    registry = Registry(Settings(home=trained.home), Home.open(trained.home))
    assert (
        registry.version("default", trained.published["version"]).run_id == trained.trained["mlflow_run_id"]
    )


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_leaves_no_process_and_no_half_made_artifact(trained, signum):
    trained.write("long.yaml", "extends: small.yaml\ntwo_tower: {fit: {epochs: 100000}}\nseed: 4\n")
    process = trained.start("train", "long.yaml", "--workers", "1")
    started = psutil.Process(process.pid)
    deadline = time.monotonic() + 120
    while not (curves := list((trained.home / "checkpoints").glob("workers-*/curves.jsonl"))):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert curves[0].stat().st_size
    children = started.children(recursive=True)
    process.send_signal(signum)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert error.rstrip().endswith("interrupted: stopped all that was started")
    _, alive = psutil.wait_procs(children, timeout=15)
    assert [child.cmdline() for child in alive] == []
    assert not list((trained.home / "checkpoints").glob("workers-*"))
    assert trained.json("train", "other.yaml", "--workers", "1", "--json")  # the lock is free
