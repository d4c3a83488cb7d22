"""What goes into a bundle comes out of it, and nothing else does."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tastemaker.bundle.manifest import BundleInfo, DatasetInfo, TimeRange
from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.bundle.writer import BundleWriter
from tastemaker.config import Settings, StorageSettings
from tastemaker.errors import BundleError, IntegrityError
from tastemaker.home import Home
from tastemaker.index.faiss_index import FaissIndex

INFO = BundleInfo(
    dataset=DatasetInfo(
        fingerprint="f" * 64,
        retrievers=TimeRange(start_ms=1, end_ms=9),
        ranker=TimeRange(start_ms=5, end_ms=9),
    ),
    recipe="demo",
    training_id="t1",
    feature_schema={"tags": ["Drama", "Comédie"]},
    metrics={"ndcg@10": 0.1},
)


class Scale:
    """A model of one number."""

    def __init__(self, kind, factor):
        self.kind, self.factor = kind, factor

    def config_dict(self):
        return {"kind": self.kind}

    def tensors(self):
        return {"factor": np.float32(self.factor)}

    @classmethod
    def from_state(cls, config, tensors):
        return cls(config["kind"], float(tensors["factor"]))


@pytest.fixture(params=["folder", "memory"])
def store(request, tmp_path):
    return BundleStore(tmp_path / "bundles" if request.param == "folder" else f"memory://{tmp_path.name}")


def write(store, catalogue="default", info=INFO, extra=None):
    writer = BundleWriter(store, catalogue)
    writer.add_model("scale", Scale("linear", 2.5))
    writer.add_tensors("item_tower.safetensors", {"w": np.eye(2, dtype=np.float32)})
    writer.add_tensors("query_tower.safetensors", {"w": np.ones((2, 2), np.float32)})
    writer.add_table("items.parquet", pa.table({"item_id": ["a", "é/..", "東京"], "tags": [["x"], [], None]}))
    writer.add_index("index.faiss", FaissIndex.build(np.array([[1, 0], [0, 1], [1, 1]], np.float32)))
    for name, value in (extra or {}).items():
        writer.add_json(name, value)
    return writer.commit(info)


def test_everything_that_was_added_comes_back(store):
    ref = write(store)
    bundle = Bundle.open(store, ref)
    assert bundle.item_ids == ("a", "é/..", "東京")
    assert (bundle.index_of("東京"), bundle.index_of("b")) == (2, None)
    assert bundle.table("items.parquet").column("tags").to_pylist() == [["x"], [], None]
    scale = bundle.model("scale", Scale)
    assert (scale.kind, scale.factor) == ("linear", 2.5)
    assert bundle.index().search(np.array([[2, 1]], np.float32), 2)[0].tolist() == [[2, 0]]  # 3, 2 and 1
    assert bundle.has("scale.json")
    assert not bundle.has("ranker.json")
    with pytest.raises(BundleError, match=r"has no file ranker.json: publish it with a recipe"):
        bundle.json("ranker.json")


def test_the_manifest_says_where_a_bundle_comes_from(store):
    ref = write(store)
    manifest = Bundle.open(store, ref.uri).manifest
    assert re.fullmatch(r"[0-9.]+(\+g[0-9a-f]{12})?", INFO.code_revision)
    assert (manifest.catalogue, manifest.schema_version, manifest.code_revision) == (
        "default",
        1,
        INFO.code_revision,
    )
    assert manifest.dataset == INFO.dataset
    assert manifest.feature_schema == {"tags": ["Drama", "Comédie"]}
    assert (
        manifest.files["index.faiss"].training_id
        == manifest.files["query_tower.safetensors"].training_id
        == "t1"
    )
    assert manifest.files["index.faiss"].index.tower_sha256 == manifest.files["item_tower.safetensors"].sha256
    assert ref.uri == f"manifests/default/{ref.sha256[:12]}.json"
    assert store.bundles("default") == [ref.uri]
    assert store.bundles("other") == []


class TwoTower(Scale):
    """A model of two towers."""

    def tensors(self):
        return {"query.w": np.float32(1), "item.w": np.float32(2), "tables.item": np.float32(self.factor)}

    @classmethod
    def from_state(cls, config, tensors):
        assert tensors["query.w"] == 1
        assert tensors["item.w"] == 2
        return cls(config["kind"], float(tensors["tables.item"]))


def test_the_towers_of_a_model_lie_in_a_file_each(store):
    writer = BundleWriter(store, "default")
    writer.add_towers("two_tower", TwoTower("dot", 3.0), is_item=lambda name: not name.startswith("query."))
    bundle = Bundle.open(store, writer.commit(INFO))
    assert bundle.towers("two_tower", TwoTower).factor == 3.0
    assert set(bundle.tensors("item_tower.safetensors")) == {"item.w", "tables.item"}
    trainings = {name: file.training_id for name, file in bundle.manifest.files.items()}
    assert trainings == {
        "two_tower.json": None,
        "item_tower.safetensors": "t1",
        "query_tower.safetensors": "t1",
    }


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_is_refused_with_its_name(store, number):
    writer = BundleWriter(store, "default")
    writer.add_model("scale", Scale("linear", number))
    writer.add_towers(
        "two_tower", TwoTower("dot", number), is_item=lambda name: not name.startswith("query.")
    )
    bundle = Bundle.open(store, writer.commit(INFO))
    with pytest.raises(IntegrityError, match=r"factor in scale\.safetensors of bundle .* not finite"):
        bundle.model("scale", Scale)
    with pytest.raises(IntegrityError, match=r"in (query|item)_tower\.safetensors of bundle .* not finite"):
        bundle.towers("two_tower", TwoTower)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)
arrays = hnp.arrays(
    st.sampled_from([np.float32, np.float64, np.float16, np.int64, np.int32, np.uint8, np.bool_]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)


@settings(max_examples=60, deadline=None)
@given(
    value=json_values, tensors=st.dictionaries(st.text(max_size=8), arrays, max_size=3), flip=st.booleans()
)
def test_any_json_and_any_tensors_come_back(tmp_path_factory, value, tensors, flip):
    tensors = {key: array.T if flip else array for key, array in tensors.items() if key != "__metadata__"}
    store = BundleStore(tmp_path_factory.getbasetemp() / "any")
    writer = BundleWriter(store, "default")
    writer.add_json("value.json", value)
    writer.add_tensors("arrays.safetensors", tensors)
    bundle = Bundle.open(store, writer.commit(INFO))
    assert bundle.json("value.json") == value
    back = bundle.tensors("arrays.safetensors")
    assert back.keys() == tensors.keys()
    for key, array in tensors.items():
        assert back[key].dtype == array.dtype
        assert np.array_equal(back[key], array, equal_nan=array.dtype.kind == "f")
        assert back[key].flags.writeable


def test_bundles_share_the_blobs_that_did_not_change(tmp_path):
    store = BundleStore(tmp_path)
    first, second = write(store), write(store, "other", extra={"recipe.json": {"steps": 2}})
    one, two = Bundle.open(store, first).manifest.files, Bundle.open(store, second).manifest.files
    blobs = [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]
    assert first.sha256 != second.sha256
    assert len(blobs) == len(one) + 1 == len(two)


def test_a_damaged_blob_is_replaced_when_its_content_is_published_again(tmp_path):
    store = BundleStore(tmp_path)
    ref = write(store)
    for path in (tmp_path / "blobs").rglob("*"):
        if path.is_file():
            path.write_bytes(b"x")
    with pytest.raises(IntegrityError, match="was changed since it was published"):
        Bundle.open(store, ref)
    write(store)
    assert Bundle.open(store, ref).item_ids[0] == "a"


def test_a_bundle_that_was_not_committed_does_not_exist(tmp_path):
    code = textwrap.dedent("""
        import os, signal, sys
        from tastemaker.bundle.store import BundleStore
        from tastemaker.bundle.writer import BundleWriter
        writer = BundleWriter(BundleStore(sys.argv[1]), "default")
        writer.add_json("one.json", 1)
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)   # in the middle of the next file
        writer.add_json("two.json", 2)
    """)
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=os.environ, check=False)
    assert done.returncode == -signal.SIGKILL
    files = [path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(files) == ["blobs", "tmp"]  # the whole first file, and the rest of the second
    assert BundleStore(tmp_path).bundles("default") == []


@pytest.mark.parametrize(
    ("add", "match"),
    [
        (lambda w: w.add_json("x.json", float("nan")), "x.json is not JSON"),
        (lambda w: w.add_json("x.json", {1, 2}), "x.json is not JSON"),
        (lambda w: w.add_json("../x.json", 1), r"'\.\./x\.json', must be a plain name"),
        (lambda w: w.add_tensors("x.safetensors", {"a": np.array(["s"])}), "x.safetensors: a, is '<U1'"),
        (lambda w: [w.add_json("x.json", 1), w.add_json("x.json", 1)], "x.json was added already"),
        (
            lambda w: [w.add_index("index.faiss", FaissIndex.build(np.eye(2))), w.commit(INFO)],
            "built with item_tower.safetensors, which is not in the bundle",
        ),
    ],
)
def test_what_cannot_be_stored_is_refused_in_one_line(tmp_path, add, match):
    with pytest.raises(BundleError, match=match):
        add(BundleWriter(BundleStore(tmp_path), "default"))


def test_the_store_lies_in_the_home_unless_told(tmp_path):
    home = Home.make(tmp_path / "home")
    ref = write(BundleStore.of(Settings(), home))
    assert json.loads((home / "bundles" / ref.uri).read_text())["recipe"] == "demo"
    elsewhere = Settings(storage=StorageSettings(url=f"file://{tmp_path}/away"))
    assert write(BundleStore.of(elsewhere, home)).uri.startswith("manifests/default/")
    assert (tmp_path / "away/bundles/manifests/default").is_dir()
    with pytest.raises(BundleError, match="URL of the bundle store, is 'nope://x'"):
        BundleStore("nope://x")
