"""What serving relies on: a bundle is whole, unchanged and of one piece, or it is refused."""

import hashlib
import json
import shutil

import numpy as np
import pyarrow as pa
import pytest

from tastemaker.bundle.manifest import BundleInfo, DatasetInfo
from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.bundle.writer import BundleWriter
from tastemaker.errors import BundleError, CompatibilityError, IntegrityError
from tastemaker.index.faiss_index import FaissIndex

INFO = BundleInfo(dataset=DatasetInfo(fingerprint="f"), recipe="demo", training_id="t1")


def write(root, *, query_training=None, index_training=None, num_items=3, tower=1.0):
    writer = BundleWriter(BundleStore(root), "default")
    writer.add_tensors("item_tower.safetensors", {"w": np.full((2, 2), tower, np.float32)})
    writer.add_tensors("query_tower.safetensors", {"w": np.ones((2, 2), np.float32)}, query_training)
    writer.add_table("items.parquet", pa.table({"item_id": [f"i{n}" for n in range(num_items)]}))
    writer.add_index("index.faiss", FaissIndex.build(np.ones((3, 2))), training_id=index_training)
    writer.add_json("pipeline.json", {"k": 10})
    return writer.commit(INFO)


def rewrite(root, ref, change):
    """A bundle whose manifest was changed and hashed anew: what a hostile or faulty writer could make."""
    manifest = json.loads((root / ref.uri).read_text())
    change(manifest)
    return BundleStore(root).put_manifest("default", json.dumps(manifest).encode())


@pytest.fixture
def ref(tmp_path):
    return write(tmp_path)


def every_file(root):
    return [path for path in sorted(root.rglob("*")) if path.is_file()]


def test_one_flipped_bit_anywhere_is_found(tmp_path, ref):
    for path in every_file(tmp_path):
        content = path.read_bytes()
        for at in {0, len(content) // 2, len(content) - 1}:
            path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
            with pytest.raises(IntegrityError, match="was changed since it was published, is 'SHA-256"):
                Bundle.open(BundleStore(tmp_path), ref)
        path.write_bytes(content)
    assert Bundle.open(BundleStore(tmp_path), ref).has("index.faiss")


def test_a_file_cut_short_or_made_longer_is_found(tmp_path, ref):
    for path in every_file(tmp_path):
        content = path.read_bytes()
        for changed in (content[:-1], b"", content + b" "):
            path.write_bytes(changed)
            with pytest.raises(IntegrityError, match="was changed since it was published"):
                Bundle.open(BundleStore(tmp_path), ref)
        path.write_bytes(content)


def test_a_missing_file_is_found(tmp_path, ref):
    for path in every_file(tmp_path):
        path.rename(tmp_path / "away")
        with pytest.raises(IntegrityError, match="is missing from the bundle store"):
            Bundle.open(BundleStore(tmp_path), ref)
        (tmp_path / "away").rename(path)


def test_a_file_changed_after_opening_is_found_when_it_is_read(tmp_path, ref):
    bundle = Bundle.open(BundleStore(tmp_path), ref)
    sha256 = bundle.manifest.files["pipeline.json"].sha256
    (tmp_path / "blobs/sha256" / sha256[:2] / sha256).write_bytes(b'{"k": 99}')
    with pytest.raises(IntegrityError, match=r"pipeline\.json of bundle .* was changed"):
        bundle.json("pipeline.json")


def test_the_manifest_must_have_the_hash_that_the_registry_keeps(tmp_path, ref):
    with pytest.raises(IntegrityError, match="was changed since it was published"):
        Bundle.open(BundleStore(tmp_path), ref.uri, sha256="0" * 64)


@pytest.mark.parametrize(
    "uri",
    [
        "/etc/passwd",
        "../manifests/default/0123456789ab.json",
        "manifests/../0123456789ab.json",
        "manifests/default/../../x.json",
        "manifests/default/0123456789ab.json/..",
        "manifests/default/0123456789ab.json\n",
        "file:///etc/passwd",
        "",
    ],
)
def test_a_uri_that_leaves_the_store_is_refused(tmp_path, uri):
    with pytest.raises(IntegrityError, match=r"must be manifests/<catalogue>/<bundle id>\.json"):
        Bundle.open(BundleStore(tmp_path), uri)


@pytest.mark.parametrize(
    "name", ["../x.json", "/etc/passwd", "a/b.json", "..", ".x.json", "x", "a\\b.json", "a.json\n"]
)
def test_a_file_name_that_is_a_path_is_refused(tmp_path, ref, name):
    bad = rewrite(tmp_path, ref, lambda m: m["files"].update({name: m["files"].pop("pipeline.json")}))
    with pytest.raises(IntegrityError, match=r"name of a bundle's file, is .* must be a plain name"):
        Bundle.open(BundleStore(tmp_path), bad)


@pytest.mark.parametrize(
    "sha256", ["../../../etc/passwd", "ab", "A" * 64, "g" * 64, "0" * 63 + "\n", "0" * 64 + "\n"]
)
def test_a_hash_that_is_none_is_refused(tmp_path, ref, sha256):
    bad = rewrite(tmp_path, ref, lambda m: m["files"]["pipeline.json"].update(sha256=sha256))
    with pytest.raises(IntegrityError, match=r"files\.pipeline\.json\.sha256"):
        Bundle.open(BundleStore(tmp_path), bad)


def test_a_link_out_of_the_store_is_refused(tmp_path):
    root, outside = tmp_path / "store", tmp_path / "outside"
    ref = write(root)
    blob = next(path for path in every_file(root / "blobs"))
    shutil.move(blob, outside)
    blob.symlink_to(outside)
    with pytest.raises(IntegrityError, match="is a link out of the bundle store"):
        Bundle.open(BundleStore(root), ref)


def test_a_store_behind_a_link_is_fine(tmp_path):
    ref = write(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert Bundle.open(BundleStore(tmp_path / "link"), ref).bundle_id == ref.bundle_id


def test_a_query_tower_of_another_training_is_refused(tmp_path):
    with pytest.raises(
        CompatibilityError, match=r"index.faiss is of training t1, query_tower.safetensors of another"
    ):
        write(tmp_path, query_training="t0")
    ref = write(tmp_path)
    bad = rewrite(tmp_path, ref, lambda m: m["files"]["query_tower.safetensors"].update(training_id="t0"))
    with pytest.raises(CompatibilityError, match="of another, is 't0'"):
        Bundle.open(BundleStore(tmp_path), bad)


def test_an_index_of_another_training_is_refused(tmp_path):
    with pytest.raises(CompatibilityError, match=r"index.faiss is of training t0"):
        write(tmp_path, index_training="t0")


def test_towers_of_two_trainings_are_refused_without_an_index_too(tmp_path):
    writer = BundleWriter(BundleStore(tmp_path), "default")
    writer.add_tensors("item_tower.safetensors", {}, training_id="t1")
    writer.add_tensors("query_tower.safetensors", {}, training_id="t2")
    with pytest.raises(CompatibilityError, match="the towers are of different trainings"):
        writer.commit(INFO)


def test_an_index_of_another_item_tower_is_refused(tmp_path, ref):
    other = Bundle.open(BundleStore(tmp_path), write(tmp_path, tower=2.0)).manifest.files[
        "item_tower.safetensors"
    ]
    swapped = {"sha256": other.sha256, "size": other.size}
    bad = rewrite(tmp_path, ref, lambda m: m["files"]["item_tower.safetensors"].update(swapped))
    with pytest.raises(CompatibilityError, match=r"index\.faiss was built with item_tower\.safetensors"):
        Bundle.open(BundleStore(tmp_path), bad)


def test_an_index_of_another_number_of_items_is_refused(tmp_path, ref):
    with pytest.raises(CompatibilityError, match=r"holds 3 items, items\.parquet another number, is 4"):
        write(tmp_path, num_items=4)

    def lie(manifest):
        manifest["files"]["index.faiss"]["index"]["num_items"] = 5
        manifest["files"]["items.parquet"]["num_rows"] = 5

    bundle = Bundle.open(BundleStore(tmp_path), rewrite(tmp_path, ref, lie))
    with pytest.raises(CompatibilityError, match=r"size of index\.faiss, is \(3, 2\), must be \(5, 2\)"):
        bundle.index()
    with pytest.raises(CompatibilityError, match=r"items\.parquet: rows, is 3, must be 5"):
        bundle.item_ids  # noqa: B018


@pytest.mark.parametrize(
    ("change", "kind", "match"),
    [
        (
            lambda m: m.update(schema_version=99),
            CompatibilityError,
            "is 99, must be one of .*: upgrade tastemaker",
        ),
        (lambda m: m.pop("schema_version"), IntegrityError, "is not a manifest"),
        (lambda m: m.pop("dataset"), IntegrityError, "dataset"),
        (lambda m: m["files"]["pipeline.json"].update(size=-1), IntegrityError, "size"),
        (lambda m: m["files"]["pipeline.json"].update(size=99), IntegrityError, "is '9 bytes', must be '?99"),
    ],
)
def test_a_manifest_of_another_shape_is_refused(tmp_path, ref, change, kind, match):
    with pytest.raises(kind, match=match):
        Bundle.open(BundleStore(tmp_path), rewrite(tmp_path, ref, change))


def test_content_that_cannot_be_parsed_is_refused_though_its_hash_is_right(tmp_path, ref):
    store = BundleStore(tmp_path)
    junk = b"\x80\x04junk"
    entry = {"sha256": store.put(junk), "size": len(junk)}
    assert entry["sha256"] == hashlib.sha256(junk).hexdigest()

    def spoil(manifest):
        for name in manifest["files"]:
            manifest["files"][name].update(entry)
        manifest["files"]["index.faiss"]["index"]["tower_sha256"] = entry["sha256"]

    bundle = Bundle.open(store, rewrite(tmp_path, ref, spoil))
    reads = {
        "pipeline.json": bundle.json,
        "items.parquet": bundle.table,
        "item_tower.safetensors": bundle.tensors,
        "index.faiss": bundle.index,
    }
    for name, read in reads.items():
        with pytest.raises(IntegrityError, match=r"cannot be parsed|not in FAISS's format"):
            read(name)


def test_a_store_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "blobs").write_text("in the way")
    with pytest.raises(BundleError, match="cannot be written"):
        BundleWriter(BundleStore(tmp_path), "default").add_json("x.json", 1)
