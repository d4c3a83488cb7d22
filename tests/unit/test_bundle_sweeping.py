"""What a sweep takes out of a bundle store, and that it never takes what a bundle has, whoever publishes meanwhile."""

import hashlib
import os
import threading
import time
from pathlib import Path

import pytest

from tastemaker.bundle.manifest import BundleInfo, BundleRef, DatasetInfo
from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.bundle.sweeping import Sweeping
from tastemaker.bundle.writer import BundleWriter
from tastemaker.errors import IntegrityError

HOUR = 3600.0


def publish(store: BundleStore, *values: int, catalogue: str = "shop") -> BundleRef:
    """A bundle of files `0.json`, …, each of which holds one number."""
    writer = BundleWriter(store, catalogue)
    for n, value in enumerate(values):
        writer.add_json(f"file-{n}.json", value)
    return writer.commit(
        BundleInfo(dataset=DatasetInfo(fingerprint="f" * 64), recipe="r", training_id=f"t{values}")
    )


def hash_of(value: int) -> str:
    return hashlib.sha256(str(value).encode()).hexdigest()


def blob(folder: Path, value: int) -> Path:
    return folder / "blobs" / "sha256" / hash_of(value)[:2] / hash_of(value)


def age(folder: Path, hours: float) -> None:
    """Lets all files of a store be as old."""
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (time.time() - hours * HOUR,) * 2)


def sweep(folder: Path, *, without: frozenset[str] = frozenset()) -> list[str]:
    """Removes what nothing names and is older than an hour; the names of it."""
    sweeping = Sweeping(BundleStore(folder), time.time() - HOUR)
    sweeping.put_back()
    doomed = [*sweeping.unnamed(sweeping.named(without)), *sweeping.rests()]
    return [one.name for one in doomed if sweeping.remove(one.name)]


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BundleStore:
    return BundleStore(tmp_path / "bundles" if request.param == "folder" else f"memory://{tmp_path.name}")


def test_only_blobs_that_no_manifest_of_any_catalogue_names_go(store: BundleStore) -> None:
    first, other = publish(store, 1, 2), publish(store, 2, 3, catalogue="other")
    store.put(b"9")
    sweeping = Sweeping(store, time.time() + 60)  # everything is old
    assert sweeping.manifests() == sorted([first.uri, other.uri])
    (found,) = sweeping.unnamed(sweeping.named())
    assert (found.name.rpartition("/")[2], found.num_bytes) == (hash_of(9), 1)
    without_first = {one.name.rpartition("/")[2] for one in sweeping.unnamed(sweeping.named({first.uri}))}
    assert without_first == {hash_of(1), hash_of(9)}
    assert sweeping.remove(found.name)
    assert not sweeping.remove(found.name)
    assert list(sweeping.unnamed(sweeping.named())) == []
    Bundle.open(store, first)
    Bundle.open(store, other)


def test_what_is_young_stays(store: BundleStore) -> None:
    ref = publish(store, 1)
    store.put(b"9")
    sweeping = Sweeping(store, time.time() - HOUR)
    assert list(sweeping.unnamed(sweeping.named({ref.uri}))) == []
    assert sweeping.manifest(ref.uri) is None


def test_a_manifest_that_does_not_say_what_it_names_lets_no_blob_go(store: BundleStore) -> None:
    publish(store, 1)
    broken = store.put_manifest("shop", b'{"files": "a newer release spells it otherwise"}')
    with pytest.raises(IntegrityError, match="does not say what it names"):
        Sweeping(store, time.time() + 60).named()
    assert Sweeping(store, time.time() + 60).named({broken.uri}) == {hash_of(1)}


def test_a_blob_that_is_published_again_is_young_again(tmp_path: Path) -> None:
    store = BundleStore(tmp_path)
    old = publish(store, 1, 2)
    age(tmp_path, 30)
    new = BundleWriter(store, "shop")
    new.add_json("file-0.json", 1)  # no manifest names it yet
    assert sweep(tmp_path, without=frozenset({old.uri})) == [str(blob(tmp_path, 2).relative_to(tmp_path))]
    assert blob(tmp_path, 1).exists()


def test_an_object_store_writes_an_old_blob_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    store = BundleStore("memory://anew")
    publish(store, 1)
    path = f"{store.root}/blobs/sha256/{hash_of(1)[:2]}/{hash_of(1)}"
    before = store.fs.modified(path)
    store.put(b"1")
    assert store.fs.modified(path) == before
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + HOUR)
    store.put(b"1")
    assert store.fs.modified(path) > before


def test_a_blob_that_became_young_before_it_was_taken_aside_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A publisher finds it between the sweep's looks: after the first, before it is gone from its place."""
    store = BundleStore(tmp_path)
    store.put(b"1")
    age(tmp_path, 30)
    sweeping = Sweeping(store, time.time() - HOUR)
    (doomed,) = sweeping.unnamed(set())
    replace = Path.replace

    def published_meanwhile(path: Path, to: str) -> Path:
        if "condemned" in str(to):
            publish(store, 1)
        return replace(path, to)

    monkeypatch.setattr(Path, "replace", published_meanwhile)
    assert not sweeping.remove(doomed.name)
    monkeypatch.undo()
    (uri,) = store.bundles("shop")
    Bundle.open(store, uri)


def test_a_sweep_that_was_killed_is_ended_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BundleStore(tmp_path)
    for value in range(4):
        store.put(str(value).encode())
    age(tmp_path, 30)

    def killed(path: Path, missing_ok: bool = False) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        sweep(tmp_path)
    monkeypatch.undo()
    (aside,) = (tmp_path / "tmp").iterdir()
    ref = publish(store, next(value for value in range(4) if hash_of(value) in aside.name))
    assert len(sweep(tmp_path)) == 3
    Bundle.open(store, ref)
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("order", [1, -1])
def test_bundles_are_whole_while_a_sweep_runs_beside_publishers(tmp_path: Path, order: int) -> None:
    """They share hundreds of old blobs that nothing names when they begin, and that the sweep is about to take."""
    store, refs = BundleStore(tmp_path), []
    values = range(400)
    for value in values:
        store.put(str(value).encode())
    age(tmp_path, 30)
    ready = threading.Barrier(3)

    def publishing(mine: range) -> None:
        ready.wait()
        refs.extend(publish(store, *mine[n : n + 4]) for n in range(0, len(mine), 4))

    threads = [threading.Thread(target=publishing, args=(values[n::2][::order],)) for n in (0, 1)]
    for thread in threads:
        thread.start()
    ready.wait()
    while any(thread.is_alive() for thread in threads):
        sweep(tmp_path)
    assert len(refs) == 100
    for ref in refs:
        Bundle.open(store, ref)
    assert sweep(tmp_path) == []
