"""An index in a bundle: its config and what was measured come back, it is read as a stream, and changes are found."""

import json

import numpy as np
import pyarrow as pa
import pytest

from tastemaker.bundle.manifest import BundleInfo, DatasetInfo
from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.bundle.writer import BundleWriter
from tastemaker.errors import CompatibilityError, IntegrityError
from tastemaker.index.config import IndexConfig, MeasuredIndex
from tastemaker.index.faiss_index import FaissIndex

VECTORS = np.random.default_rng(0).standard_normal((300, 8), np.float32)
LISTS = IndexConfig(kind="ivf-flat", nlist=8, nprobe=3)
MEASURED = MeasuredIndex(
    queries="users",
    num_queries=9,
    k=100,
    recall=0.97,
    p50_ms=0.1,
    p99_ms=0.3,
    wall_p99_ms=0.4,
    build_seconds=1.0,
    memory_bytes=9,
)


def released(tmp_path, config=LISTS):
    store = BundleStore(tmp_path)
    writer = BundleWriter(store, "default")
    writer.add_tensors("item_tower.safetensors", {"w": np.ones(1)})
    writer.add_table("items.parquet", pa.table({"item_id": [f"i{n}" for n in range(len(VECTORS))]}))
    writer.add_index("index.faiss", FaissIndex.build(VECTORS, config), measured=MEASURED)
    info = BundleInfo(dataset=DatasetInfo(fingerprint="f"), recipe="demo", training_id="t1")
    return store, writer.commit(info)


def blob(tmp_path, store, ref):
    sha256 = Bundle.open(store, ref).manifest.files["index.faiss"].sha256
    return tmp_path / "blobs" / "sha256" / sha256[:2] / sha256


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf-flat", "ivf-pq"])
def test_config_and_measurements_come_back(tmp_path, kind):
    store, ref = released(tmp_path, IndexConfig(kind=kind))
    bundle = Bundle.open(store, ref)
    info = bundle.manifest.files["index.faiss"].index
    assert (info.kind, info.measured) == (kind, MEASURED)
    assert bundle.index().config == info.config == FaissIndex.build(VECTORS, IndexConfig(kind=kind)).config
    assert bundle.index() is bundle.index()
    assert np.array_equal(bundle.index().vectors(), VECTORS)


def edited(store, ref, change):
    """Another manifest of the same blobs."""
    _, content = store.get_manifest(ref.uri)
    manifest = json.loads(content)
    change(manifest["files"]["index.faiss"]["index"])
    return store.put_manifest("default", json.dumps(manifest).encode())


def test_a_bundle_of_the_release_before_has_no_config(tmp_path):
    store, ref = released(tmp_path, IndexConfig(kind="hnsw"))

    def forget(index):
        del index["config"], index["measured"]

    index = Bundle.open(store, edited(store, ref, forget)).index()
    assert index.config == IndexConfig(kind="hnsw", links=32, build_beam=80, beam=200)


def test_a_config_of_another_index_is_refused(tmp_path):
    store, ref = released(tmp_path)
    bundle = Bundle.open(store, edited(store, ref, lambda index: index["config"].update(nlist=9)))
    with pytest.raises(IntegrityError, match="nlist of the index, is 8, must be 9, as its config says"):
        bundle.index()


def test_an_index_of_another_size_is_refused(tmp_path):
    store, ref = released(tmp_path)
    with pytest.raises(CompatibilityError, match=r"size of index\.faiss, is \(300, 8\), must be \(300, 9\)"):
        Bundle.open(store, edited(store, ref, lambda index: index.update(dim=9))).index()


def test_a_changed_index_is_found_when_the_bundle_is_opened(tmp_path):
    store, ref = released(tmp_path)
    path = blob(tmp_path, store, ref)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"index\.faiss of bundle .* was changed"):
        Bundle.open(store, ref)


@pytest.mark.parametrize(("change", "match"), [
    (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "not of the catalogue"),
    (lambda content: content[:3000] + bytes([content[3000] ^ 1]) + content[3001:], "was changed"),
    (lambda content: content + b"more", "was changed"),
    (lambda content: content[:200], "FAISS's format"),
])  # fmt: skip
def test_an_index_that_changes_behind_an_open_bundle_is_found_when_it_is_read(tmp_path, change, match):
    store, ref = released(tmp_path)
    bundle, path = Bundle.open(store, ref), blob(tmp_path, store, ref)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(IntegrityError, match=match):
        bundle.index()
    with pytest.raises(IntegrityError, match=match):
        bundle.index()  # nothing of it was kept


def test_a_bundle_that_was_opened_without_a_look_checks_its_index_before_it_parses_it(tmp_path):
    store, ref = released(tmp_path)
    path = blob(tmp_path, store, ref)
    path.write_bytes(b"no index")
    with pytest.raises(IntegrityError, match=r"index\.faiss of bundle .* was changed since it was published"):
        Bundle.open(store, ref, whole=False).index()


def test_an_index_that_is_gone_is_an_error_of_the_store(tmp_path):
    store, ref = released(tmp_path)
    bundle = Bundle.open(store, ref)
    blob(tmp_path, store, ref).unlink()
    with pytest.raises(IntegrityError, match=r"index\.faiss of bundle .* is missing"):
        bundle.index()
