"""The scripts of the chart's CronJobs, run by a real shell on real files: backup, restore."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

FILES = Path(__file__).parents[3] / "helm" / "tastemaker" / "files"
pytestmark = pytest.mark.chart


class Rooms:
    """The folders that the pods mount, below one folder."""

    def __init__(self, root: Path) -> None:
        self.home, self.bundles, self.mlflow, self.valkey, self.backups, self.work = (
            root / name for name in ("home", "bundles", "mlflow", "valkey", "backups", "work")
        )
        for folder in vars(self).values():
            folder.mkdir(parents=True)

    def run(self, script: str, *, keep: int = 7, restore: str = "") -> str:
        """What a step says."""
        environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "SCRIPTS": str(FILES / "backup"),
            "BACKUPS": str(self.backups),
            "WORK": str(self.work),
            "KEEP": str(keep),
            "RESTORE": restore,
            "HOME_FILES": str(self.home),
            "BUNDLE_FILES": str(self.bundles),
            "MLFLOW_FILES": str(self.mlflow),
            "VALKEY_FILES": str(self.valkey),
        }
        words = ["sh", FILES / "backup" / script]
        return subprocess.run(words, env=environment, check=True, capture_output=True, text=True).stdout

    def back_up(self, keep: int = 7) -> Path:
        """A whole backup, with what Valkey's step would write."""
        self.run("begin.sh")
        stamp = (self.work / "stamp").read_text().strip()
        (self.backups / f"{stamp}.partial" / "state.rdb").write_bytes(b"REDIS0011")
        self.run("files.sh")
        self.run("finish.sh", keep=keep)
        return self.backups / stamp


@pytest.fixture
def rooms(tmp_path: Path) -> Rooms:
    """An installation with an event day, a bundle, MLflow's tables and an artifact."""
    rooms = Rooms(tmp_path)
    for path, text in (
        (rooms.home / "events" / "shop" / "day=2026-01-01" / "part-1.parquet", "events"),
        (rooms.home / "checkpoints" / "big", "not kept"),
        (rooms.bundles / "bundles" / "blobs" / "ab", "bundle"),
        (rooms.mlflow / "artifacts" / "a", "artifact"),
    ):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    with closing(sqlite3.connect(rooms.mlflow / "mlflow.db")) as store, store:
        store.execute("PRAGMA journal_mode=WAL")
        store.execute("CREATE TABLE runs (id TEXT)")
        store.execute("INSERT INTO runs VALUES ('first')")
    return rooms


def test_a_backup_brings_back_what_was_lost(rooms: Rooms) -> None:
    backup = rooms.back_up()
    assert sorted(path.name for path in backup.iterdir()) == [
        "bundles.tar", "home.tar", "mlflow.db", "mlflow.tar", "state.rdb",
    ]  # fmt: skip

    event = rooms.home / "events" / "shop" / "day=2026-01-01" / "part-1.parquet"
    for lost in (event, rooms.bundles / "bundles" / "blobs" / "ab", rooms.mlflow / "artifacts" / "a"):
        lost.unlink()
    with closing(sqlite3.connect(rooms.mlflow / "mlflow.db")) as store, store:
        store.execute("DELETE FROM runs")

    assert f"bringing back {backup.name}" in rooms.run("choose.sh")
    rooms.run("restore_files.sh")
    assert event.read_text() == "events"
    assert (rooms.bundles / "bundles" / "blobs" / "ab").read_text() == "bundle"
    assert (rooms.mlflow / "artifacts" / "a").read_text() == "artifact"
    assert (rooms.valkey / "restore.rdb").read_bytes() == b"REDIS0011"
    with closing(sqlite3.connect(rooms.mlflow / "mlflow.db")) as store:
        assert store.execute("SELECT id FROM runs").fetchall() == [("first",)]


def test_a_backup_that_cannot_be_read_fails(rooms: Rooms) -> None:
    backup = rooms.back_up()
    (backup / "bundles.tar").write_bytes(b"junk" * 1000)
    rooms.run("choose.sh")
    with pytest.raises(subprocess.CalledProcessError, match="returned non-zero exit status"):
        rooms.run("restore_files.sh")


def test_the_newest_backups_are_kept_and_half_ones_are_not(rooms: Rooms) -> None:
    for name in ("20260101T000000Z", "20260102T000000Z", "20260103T000000Z", "20260104T000000Z.partial"):
        (rooms.backups / name).mkdir()
    newest = rooms.back_up(keep=2)
    assert sorted(path.name for path in rooms.backups.iterdir()) == ["20260103T000000Z", newest.name]


def test_the_named_backup_is_brought_back_and_a_missing_one_refused(rooms: Rooms) -> None:
    (rooms.backups / "20260101T000000Z").mkdir()
    (rooms.backups / "20260102T000000Z").mkdir()
    assert "bringing back 20260101T000000Z" in rooms.run("choose.sh", restore="20260101T000000Z")
    with pytest.raises(subprocess.CalledProcessError, match="returned non-zero exit status 1"):
        rooms.run("choose.sh", restore="20250101T000000Z")
