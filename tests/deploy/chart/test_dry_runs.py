"""Each CronJob's command runs, with `--dry-run`, in a home of its own: the CLI for real, the scripts by a real shell."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from chart.objects import embedded
from chart.reality import commands, places
from chart.rendering import CHART, ci_cases, objects_of
from promotable import write_bundle
from small import NUM_ITEMS, movielens_folder

from tastemaker.bundle.store import BundleStore
from tastemaker.config import Settings
from tastemaker.home import Home
from tastemaker.registry.client import Registry

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
FILES = CHART / "files" / "backup"
FAKE = '#!/bin/sh\necho "$(basename "$0") $*" >> {log}\necho PONG\n'
"""Stands for programs of other images, which are not here: says what it was asked."""


NAMES = ("batch", "gc", "refresh-users", "retrain", "tune")
"""Of the commands of all CronJobs: told here, since nothing can be rendered before `make tools`."""


def scheduled() -> list[tuple[str, ...]]:
    """The commands of all CronJobs: those of RayJobs that they start, and what runs `tastemaker` itself."""
    found: set[tuple[str, ...]] = set()
    for case in ci_cases():
        objects = objects_of(case)
        crons = [item for item in objects if item["kind"] == "CronJob"]
        jobs = [item for item in embedded(objects) if item["kind"] == "RayJob"]
        assert len(jobs) == 4, case.name
        found |= {tuple(arguments) for _, arguments in commands([*crons, *jobs])}
    return sorted(one for one in found if one[:2] != ("cluster", "start-job"))


def test_these_are_all() -> None:
    assert {one[0] for one in scheduled()} == set(NAMES)
    others = {
        tuple(place.container["command"][:1])
        for case in ci_cases()
        for place in places(item for item in objects_of(case) if item["kind"] == "CronJob")
        if not place.arguments
    }
    assert others == {("sh",), ("mlflow",)}  # backup and restore; MLflow's own command has no dry run


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with data and a champion."""
    folder = tmp_path_factory.mktemp("dry")
    run(folder / "home", "data", "import", str(movielens_folder(folder / "ml")))
    settings, made = Settings(home=folder / "home"), Home.open(folder / "home")
    ids = [str(item + 1) for item in range(NUM_ITEMS)]
    ref = write_bundle(BundleStore.of(settings, made), ids=ids[:50], ndcg=np.ones(3))
    registry = Registry(settings, made)
    registry.set_alias("default", "champion", registry.publish("default", ref, {}).number, "test", "")
    return folder / "home"


def run(home: Path, *arguments: str, fit: bool = True) -> str:
    """What a command prints, which must succeed, or fail with 1."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("TASTEMAKER_", "RAY_"))}
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tastemaker.cli", *arguments], capture_output=True, text=True, check=False,
        env=clean | {"TASTEMAKER_HOME": str(home), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert told.returncode == (0 if fit else 1), " ".join((told.stderr + told.stdout).split())
    return told.stdout


def left(home: Path) -> set[str]:
    """Files that a dry run must leave as they are; not locks, pids and logs."""
    folders = ("events", "bundles", "checkpoints", "decisions", "mlflow/artifacts")
    return {str(path) for name in folders for path in (home / name).rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", NAMES)
def test_commands_run(home: Path, name: str) -> None:
    before = left(home)
    for arguments in (one for one in scheduled() if one[0] == name):
        told = json.loads(run(home, *arguments, "--dry-run", "--json"))
        assert told["dry_run"] is True
        assert left(home) == before
        if name == "gc":
            assert told["removed"] == []
            continue
        assert told["fit"]
        assert {one["outcome"] for one in told["findings"]} <= {"ok", "warning"}
        assert told["would"]


def test_commands_say_why_they_cannot_begin(tmp_path: Path) -> None:
    """In an empty home each says what is missing, and ends with 1."""
    told = json.loads(run(tmp_path / "home", "refresh-users", "--dry-run", "--json", fit=False))
    failed = {one["check"]: one for one in told["findings"] if one["outcome"] == "failed"}
    assert set(failed) == {"users"}
    assert "has no version or alias champion" in failed["users"]["detail"]
    assert told["would"] == []
    text = run(tmp_path / "home", "retrain", "movielens", "--workers", "999", "--dry-run", fit=False)
    assert "failed  order: --workers, is 999, must be at most" in text
    assert "failed  log: " in text


class Rooms:
    """What the pods of backup and restore mount."""

    def __init__(self, root: Path) -> None:
        self.root, self.log = root, root / "asked.log"
        for name in ("home", "bundles", "mlflow", "valkey", "backups", "work", "bin"):
            (root / name).mkdir()
        (root / "home" / "home.json").write_text("{}")
        (root / "password").write_text("secret")
        for name in ("valkey-cli", "pg_dump", "pg_restore"):
            program = root / "bin" / name
            program.write_text(FAKE.format(log=self.log))
            program.chmod(program.stat().st_mode | stat.S_IXUSR)

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A step, by the shell; the one path that no variable names is another here."""
        copy = self.root / script
        text = (FILES / script).read_text()
        copy.write_text(text.replace("/run/secrets/valkey/backup", str(self.root / "password")))
        names = {
            "HOME_FILES": "home",
            "BUNDLE_FILES": "bundles",
            "MLFLOW_FILES": "mlflow",
            "VALKEY_FILES": "valkey",
        }
        environment = {name: str(self.root / folder) for name, folder in names.items()} | {
            "PATH": f"{self.root / 'bin'}:{Path(sys.executable).parent}:/usr/bin:/bin",
            "SCRIPTS": str(FILES), "BACKUPS": str(self.root / "backups"), "WORK": str(self.root / "work"),
            "KEEP": "1", "RESTORE": "", "VALKEY_HOST": "state",
            "MLFLOW_BACKEND_STORE_URI": "postgresql+psycopg2://mlflow@db/mlflow",
        }  # fmt: skip
        return subprocess.run(
            ["sh", copy, *arguments], env=environment, capture_output=True, text=True, check=False
        )


def steps(component: str) -> Iterator[tuple[str, list[str]]]:
    """Script and further arguments of a CronJob's containers, in order, where everything is switched on."""
    (ha,) = (case for case in ci_cases() if case.name == "ha")
    wanted = [
        item
        for item in objects_of(ha)
        if item["kind"] == "CronJob" and item["metadata"]["name"].endswith(component)
    ]
    for place in places(wanted):
        words: list[str] = place.container["command"]
        assert words[0] == "sh"
        yield Path(words[1]).name, words[2:]


@pytest.fixture
def rooms(tmp_path: Path) -> Rooms:
    return Rooms(tmp_path)


def files_of(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


def in_order(component: str) -> list[tuple[str, list[str]]]:
    """A pod's init containers run before its containers."""
    found = list(steps(component))
    assert found
    last = [one for one in found if one[0] in ("finish.sh", "restore_files.sh")]
    return [*(one for one in found if one not in last), *last]


def test_the_backup_runs_dry(rooms: Rooms) -> None:
    (rooms.root / "backups" / "20260101T000000Z").mkdir()
    before = files_of(rooms.root / "backups")
    said: list[str] = []
    for script, arguments in in_order("backup"):
        told = rooms.run(script, *arguments, "--dry-run")
        assert told.returncode == 0, f"{script}: {told.stderr}"
        said += told.stdout.splitlines()
    assert [" ".join(line.split()[:2]) for line in said if line != "PONG"] == [
        "would write", "would fetch", "would dump", "would pack", "would pack", "would pack", "would remove",
    ]  # fmt: skip
    assert files_of(rooms.root / "backups") == before
    asked = rooms.log.read_text().splitlines()
    assert "valkey-cli -h state -p 6379 --user backup --tls --cacert /run/tls/valkey/ca.crt ping" in asked
    assert "pg_dump --schema-only --file /dev/null --dbname postgresql://mlflow@db/mlflow" in asked


def test_the_restore_runs_dry(rooms: Rooms) -> None:
    backup = rooms.root / "backups" / "20260101T000000Z"
    backup.mkdir()
    subprocess.run(["tar", "-C", rooms.root / "home", "-cf", backup / "home.tar", "."], check=True)
    (backup / "state.rdb").write_bytes(b"REDIS")
    before = files_of(rooms.root / "home") + files_of(rooms.root / "valkey")
    said: list[str] = []
    for script, arguments in in_order("restore"):
        told = rooms.run(script, *arguments, "--dry-run")
        assert told.returncode == 0, f"{script}: {told.stderr}"
        said += told.stdout.splitlines()
    assert said[0] == "bringing back 20260101T000000Z"
    assert f"would unpack 2 files of {backup}/home.tar" in said
    assert f"would put back {backup}/state.rdb" in said
    assert files_of(rooms.root / "home") + files_of(rooms.root / "valkey") == before


def test_a_backup_that_cannot_be_read_fails_dry(rooms: Rooms) -> None:
    backup = rooms.root / "backups" / "20260101T000000Z"
    backup.mkdir()
    (rooms.root / "work" / "stamp").write_text(backup.name)
    (backup / "home.tar").write_bytes(b"junk" * 1000)
    told = rooms.run("restore_files.sh", "--dry-run")
    assert told.returncode != 0
    assert "tar" in told.stderr
    assert "would unpack" not in told.stdout
    (rooms.root / "bin" / "pg_restore").write_text("#!/bin/sh\necho not an archive >&2\nexit 1\n")
    told = rooms.run("restore_database.sh", "--dry-run")
    assert (told.returncode, told.stdout, told.stderr) == (1, "", "not an archive\n")


def test_a_dry_backup_says_what_it_cannot_do(rooms: Rooms) -> None:
    (rooms.root / "backups").rmdir()
    told = rooms.run("begin.sh", "--dry-run")
    assert (told.returncode, told.stderr) == (1, f"{rooms.root}/backups cannot be written\n")
    (rooms.root / "bin" / "valkey-cli").write_text("#!/bin/sh\necho NOAUTH\n")
    told = rooms.run("state.sh", "--dry-run")
    assert (told.returncode, told.stderr) == (1, "Valkey says: NOAUTH\n")
