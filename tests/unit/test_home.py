import json
import stat
from pathlib import Path

import pytest

from tastemaker.errors import (
    BundleError,
    ConfigError,
    DataError,
    IntegrityError,
    TastemakerError,
    UsageError,
)
from tastemaker.home import Home, write_bytes


def test_a_home_is_private_and_made_once(tmp_path: Path) -> None:
    home = Home.make(tmp_path / "home")
    created = (home / "home.json").read_text()
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700
    assert Home.make(home.root) == home
    assert (home / "home.json").read_text() == created


def test_a_folder_with_other_files_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("keep me")
    with pytest.raises(UsageError, match="holds other files"):
        Home.make(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["letter.txt"]


def test_a_home_that_another_process_is_making_is_no_strange_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(UsageError, match="holds other files"):  # a folder that merely has such a name
        Home.make(tmp_path)
    for name in (".lock", ".home.json.7.tmp"):  # as far as the other has come
        (tmp_path / name).touch()
    assert Home.make(tmp_path) == Home.open(tmp_path)


def test_only_make_creates_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="tastemaker init"):
        Home.open(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_newer_home_is_refused(tmp_path: Path) -> None:
    home = Home.make(tmp_path / "home")
    (home / "home.json").write_text(json.dumps({"schema": 99}))
    with pytest.raises(DataError, match="99, must be at most 1"):
        Home.make(home.root)


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    home = Home.make(tmp_path / "home")
    with home.lock("demo"), pytest.raises(UsageError, match="in use by another process"), home.lock("demo"):
        pass
    with home.lock("demo"):
        pass


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")
    with pytest.raises(TypeError, match="bytes-like"):
        write_bytes(path, "no bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_an_error_says_what_value_limit_and_mend() -> None:
    error = IntegrityError("size of ranker.json", value=3, limit=5, mend="publish again")
    assert str(error) == "size of ranker.json, is 3, must be 5: publish again"
    assert isinstance(error, BundleError)
    assert (TastemakerError("x").exit_code, ConfigError("x").exit_code) == (1, 2)


def test_an_error_survives_the_way_between_processes() -> None:
    import copy

    error = ConfigError("key", value="a", limit="b", mend="c")
    assert (str(copy.copy(error)), type(copy.copy(error))) == (str(error), ConfigError)


def test_the_root_of_a_new_volume_becomes_a_home(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    assert Home.make(tmp_path).root == tmp_path
