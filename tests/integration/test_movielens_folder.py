"""The importer on a real MovieLens download, whole and as a zip; skipped where none is at hand."""

import os
import time
import zipfile
from pathlib import Path

import pytest

from tastemaker.data.importers import import_events, save_import
from tastemaker.data.schema import read_dataset
from tastemaker.home import Home

FOLDER = Path(os.environ.get("TEST_DATA_DIR", "no-such-folder")) / "ml-latest-small"
pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="TEST_DATA_DIR names no folder with ml-latest-small"
)


def test_the_latest_small_edition_is_imported_whole(tmp_path: Path) -> None:
    imported = import_events(FOLDER, None, int(time.time() * 1000))
    assert imported.rejects.num_rows == 0
    home = Home.make(tmp_path / "home")
    save_import(home, "default", imported)
    dataset = read_dataset(home, "default")
    # As its README says: 100,004 ratings of 671 users over 9,066 rated movies.
    assert (len(dataset.user_index), dataset.num_users) == (100_004, 671)
    assert len(set(dataset.item_index.tolist())) == 9_066


def test_a_zip_gives_the_same_events(tmp_path: Path) -> None:
    path = tmp_path / "ml-latest-small.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("ratings.csv", "movies.csv"):
            archive.write(FOLDER / name, f"ml-latest-small/{name}")
    now_ms = int(time.time() * 1000)
    assert import_events(path, None, now_ms).interactions.equals(
        import_events(FOLDER, None, now_ms).interactions
    )
