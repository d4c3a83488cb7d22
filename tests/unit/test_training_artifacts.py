import errno
import json
import os

import numpy as np
import pytest

from tastemaker.errors import TrainingError
from tastemaker.home import Home
from tastemaker.models.als import Als, AlsConfig
from tastemaker_training.artifacts import Artifacts, artifact_name, load_model, save_model


@pytest.fixture
def artifacts(tmp_path):
    return Artifacts(Home.make(tmp_path / "home"))


def get(artifacts, key, make, kind="thing"):
    return artifacts.get(artifact_name(kind, key), key, make)


def writer(text, calls):
    def make(folder):
        calls.append(folder)
        (folder / "file.txt").write_text(text)

    return make


def test_the_same_key_is_made_once(artifacts):
    calls = []
    first = get(artifacts, {"a": 1, "b": [2]}, writer("x", calls))
    again = get(artifacts, {"b": [2], "a": 1}, writer("y", calls))
    assert first == again == calls[0]
    assert len(calls) == 1
    assert (first / "file.txt").read_text() == "x"


def test_another_key_or_kind_is_made_anew(artifacts):
    calls = []
    folders = {
        get(artifacts, {"a": 1}, writer("x", calls)),
        get(artifacts, {"a": 2}, writer("x", calls)),
        get(artifacts, {"a": 1}, writer("x", calls), kind="other"),
    }
    assert len(folders) == len(calls) == 3


def test_what_was_left_half_made_is_made_again(artifacts):
    def fails(folder):
        (folder / "rest.txt").write_text("rest")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        get(artifacts, {"a": 1}, fails)
    assert not artifacts.has(artifact_name("thing", {"a": 1}))
    folder = get(artifacts, {"a": 1}, writer("x", []))
    assert artifacts.has(folder.name)
    assert sorted(path.name for path in folder.iterdir()) == ["complete.json", "file.txt"]


@pytest.mark.parametrize("change", ["changed", "removed", "added"])
def test_a_folder_that_was_changed_since_is_refused(artifacts, change):
    folder = get(artifacts, {"a": 1}, writer("x", []))
    if change == "changed":
        (folder / "file.txt").write_text("z")
    elif change == "removed":
        (folder / "file.txt").unlink()
    else:
        (folder / "file2.txt").write_text("x")
    with pytest.raises(TrainingError, match=r"file2?\.txt was changed after it was made: delete its folder"):
        get(artifacts, {"a": 1}, writer("x", []))


def test_a_home_that_can_only_be_read_is_used_all_the_same(artifacts, monkeypatch):
    folder = get(artifacts, {"a": 1}, writer("x", []))

    def refuses(path):  # root, who runs the tests in containers, is refused nothing by modes
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(os, "utime", refuses)
    assert get(artifacts, {"a": 1}, writer("y", [])) == folder
    assert (folder / "file.txt").read_text() == "x"


def test_the_marker_tells_what_a_folder_was_made_from(artifacts):
    folder = get(artifacts, {"a": 1}, writer("x", []))
    assert json.loads((folder / "complete.json").read_text())["key"] == {"a": 1}


def test_a_model_comes_back_as_it_was_saved(tmp_path):
    model = Als(AlsConfig(dim=2), np.arange(6, dtype=np.float32).reshape(3, 2))
    save_model(tmp_path / "models", "als", model)
    back = load_model(tmp_path / "models", "als", Als)
    assert back.config == model.config
    np.testing.assert_array_equal(back.item_factors_ID, model.item_factors_ID)
