"""`tastemaker index tune` on a home with an import and a released bundle, as a user types it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from small import movielens_folder
from tagged import write_bundle

from tastemaker import context
from tastemaker.bundle.manifest import BundleInfo, BundleRef, DatasetInfo
from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.bundle.writer import BundleWriter
from tastemaker.cli import invoke
from tastemaker.config import Settings
from tastemaker.errors import BundleError, UsageError
from tastemaker.evaluation.index_queries import bundle_queries
from tastemaker.home import Home
from tastemaker.index.config import IndexConfig
from tastemaker.index.faiss_index import FaissIndex
from tastemaker.registry.client import Registry

# SQLAlchemy 2.1 warns about a loading strategy that MLflow 3.17 uses.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

NUM_ITEMS, DIM = 2000, 16
VECTORS = np.random.default_rng(0).standard_normal((NUM_ITEMS, DIM), np.float32)


@dataclass(frozen=True)
class Shop:
    """A home whose champion has random vectors."""

    home: Home
    store: BundleStore
    registry: Registry
    ref: BundleRef


def released(store: BundleStore) -> BundleRef:
    writer = BundleWriter(store, "default")
    writer.add_tensors("item_tower.safetensors", {"w": np.ones(1)})
    writer.add_table("items.parquet", pa.table({"item_id": [f"{n + 1}" for n in range(NUM_ITEMS)]}))
    writer.add_index("index.faiss", FaissIndex.build(VECTORS))
    return writer.commit(BundleInfo(dataset=DatasetInfo(fingerprint="f"), recipe="demo", training_id="t1"))


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_home: Callable[[Path], Home]) -> Shop:
    home = make_home(tmp_path / "home")
    settings = Settings(home=home.root)
    monkeypatch.setattr(context, "_settings", settings)
    store, registry = BundleStore.of(settings, home), Registry(settings, home)
    ref = released(store)
    registry.publish("default", ref, {"ndcg@10": 0.1})
    registry.set_alias("default", "champion", 1, actor="test", reason="test")
    return Shop(home, store, registry, ref)


def tune(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    capsys.readouterr()
    invoke(["index", "tune", "--queries", "40", "--latency", "1000", *arguments, "--json"])
    return json.loads(capsys.readouterr().out)


def test_it_chooses_shows_and_writes(shop: Shop, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = tune(capsys, "--out", str(tmp_path / "out"))
    assert found["meets"]
    assert found["queries"] == "perturbed-items"  # the home has no events
    assert {trial["config"]["kind"] for trial in found["trials"]} == {"flat", "hnsw", "ivf-flat", "ivf-pq"}
    flat = next(trial for trial in found["trials"] if trial["config"]["kind"] == "flat")
    assert flat["measured"]["recall"] == 1.0
    assert flat["measured"]["memory_bytes"] == NUM_ITEMS * DIM * 4
    assert found["chosen"]["measured"]["recall"] >= 0.95
    assert found["published"] is None
    page = (tmp_path / "out" / "index.html").read_text()
    assert "Plotly.newPlot" in page
    assert "src=" not in page.split("</script>")[0][:200]
    part = yaml.safe_load((tmp_path / "out" / "index.yaml").read_text())
    config = IndexConfig.parse(part["index"], "test")
    assert (config.kind, config.nprobe, config.beam) == tuple(
        found["chosen"]["config"].get(key) for key in ("kind", "nprobe", "beam")
    )


def test_applied_it_is_a_new_version_that_shares_all_other_files(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    found = tune(capsys, "--kinds", "ivf-pq", "--apply")
    made = shop.registry.version("default", found["published"]["version"])
    assert (made.number, made.metrics) == (2, {"ndcg@10": 0.1})
    old, new = Bundle.open(shop.store, shop.ref), Bundle.open(shop.store, made.ref)
    changed = {
        name for name, file in new.manifest.files.items() if file.sha256 != old.manifest.files[name].sha256
    }
    assert changed == {"index.faiss"}
    info = new.manifest.files["index.faiss"].index
    assert info is not None
    assert info.measured is not None
    assert (info.kind, info.measured.queries) == ("ivf-pq", "perturbed-items")
    assert new.index().config.model_dump(exclude_none=True) == found["chosen"]["config"]
    assert np.array_equal(new.index().vectors(), VECTORS)
    assert shop.registry.aliases("default")["champion"].number == 1
    invoke(["promote", "2", "--json"])
    assert shop.registry.aliases("default")["champion"].number == 2
    listed = invoke(["bundles", "list"])
    assert [one["sha256"][:12] for one in listed["versions"]] == [old.bundle_id, new.bundle_id]
    rows = [line for line in capsys.readouterr().out.splitlines() if new.bundle_id in line]
    assert "champion" in rows[-1]


def test_nothing_is_published_where_nothing_is_fast_enough(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["index", "tune", "--queries", "20", "--kinds", "flat", "--latency", "0.001"]
    invoke([*arguments])
    told = "nothing reaches recall 0.95 within 0.001 ms; nearest: flat, exact"
    assert told in capsys.readouterr().out
    with pytest.raises(BundleError, match=r"no index reaches both .* raise --latency"):
        invoke([*arguments, "--apply"])
    assert told in capsys.readouterr().out
    (page,) = shop.home.root.rglob("index.html")
    curves = page.read_text().split("Plotly.newPlot")[-1]
    assert '"name":"nearest"' in curves
    assert '"name":"chosen"' not in curves
    assert len(shop.registry.versions("default")) == 1


def test_a_bundle_that_has_the_chosen_index_is_not_published_again(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    found = tune(capsys, "--kinds", "flat", "--apply")
    assert (found["is_so_already"], found["published"]) == (True, None)
    assert len(shop.registry.versions("default")) == 1


@pytest.mark.parametrize(
    ("arguments", "match"),
    [(["--index", "ease.json"], r"--index, is 'ease.json', must be one of: index\.faiss"),
     (["--kinds", "ivf"], r"--kinds, is \['ivf'\], must be some of: flat, hnsw"), (["--kinds", ","], "--kinds")],
)  # fmt: skip
def test_what_it_does_not_know_is_refused(shop: Shop, arguments: list[str], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        invoke(["index", "tune", *arguments])


def test_users_are_searched_for_where_the_home_knows_them(
    shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    invoke(["data", "import", str(movielens_folder(tmp_path / "movielens"))])
    found = tune(capsys, "--kinds", "flat", "--queries", "60")
    assert found["queries"] == "users"  # by the mean of their items: there is no query tower
    assert found["chosen"]["measured"]["num_queries"] == 60
    bundle = Bundle.open(shop.store, shop.ref)
    vectors = bundle_queries(bundle, "index.faiss", shop.home, 60).vectors_BD
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(60), abs=1e-5)


def test_a_query_tower_makes_the_vectors_where_there_is_one(shop: Shop, tmp_path: Path) -> None:
    invoke(["data", "import", str(movielens_folder(tmp_path / "movielens"))])
    bundle = Bundle.open(shop.store, write_bundle(shop.store, [f"{n + 1}" for n in range(60)]))
    queries = bundle_queries(bundle, "index.faiss", shop.home, 80)
    assert (queries.kind, len(queries.vectors_BD)) == ("users", 80)
    # Users stay with one of four groups of items, which are the four tags: the best of each are items of it.
    best, _ = bundle.index().search(queries.vectors_BD, 1)
    assert np.bincount(best[:, 0] % 4).min() >= 10
