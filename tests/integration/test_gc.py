"""`tastemaker gc` on a home of its own, a real Valkey and MLflow's own store: what goes, and that what is in use never does."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from experiment_log import START_MS, decision
from gc_shop import Shop

from tastemaker import context
from tastemaker.bundle.reader import Bundle
from tastemaker.cli import invoke
from tastemaker.config import Settings
from tastemaker.errors import StateError, UsageError
from tastemaker.events.archive import write_days
from tastemaker.experiments.decision_log import decision_table
from tastemaker.experiments.holdout import Holdout, HoldoutStore
from tastemaker.home import Home
from tastemaker.registry import forgetting
from tastemaker.registry.forgetting import EndedRuns
from tastemaker.retention import collecting
from tastemaker.retention.collecting import Collected
from tastemaker.retention.days import first_report_day
from tastemaker.retention.gone import DAY_SECONDS, Limits

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


@pytest.fixture(scope="module")
def gc_home(tmp_path_factory: pytest.TempPathFactory, make_home: Callable[[Path], Home]) -> Home:
    return make_home(tmp_path_factory.mktemp("gc") / "home")


@pytest.fixture
def shop(state: Any, gc_home: Home, tmp_path: Path) -> Shop:
    return Shop(state, gc_home, tmp_path / "store")


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty days have gone by for whoever asks what is old."""
    moment = time.time() + 40 * DAY_SECONDS
    monkeypatch.setattr(Limits, "of", classmethod(lambda cls, settings: cls(settings, moment)))


def names(done: Collected, kind: str) -> list[str]:
    return [one.name for one in done.of(kind)]


@pytest.mark.usefixtures("later")
def test_what_is_not_in_use_goes_and_what_is_stays_whole(shop: Shop) -> None:
    left_over = shop.store.put(b"of a publish that was cut off")
    versions = {version.number: version for version in shop.registry.versions(shop.keys.catalogue)}
    before = shop.files()
    told = shop.collect(dry_run=True, run_days=30)
    assert shop.files() == before
    assert shop.numbers() == [1, 2, 3, 4, 5, 6, 7]

    told_runs = set(names(told, "run"))
    logged = [path for path in shop.home.root.rglob("offline.json") if path.parts[-3] in told_runs]
    assert len(logged) == 2
    done = shop.collect(run_days=30)
    assert done.as_dict() | {"dry_run": True} == told.as_dict()
    assert names(done, "version") == ["5", "6"]
    assert sorted(names(done, "manifest")) == sorted(versions[number].uri for number in (5, 6))
    assert f"blobs/sha256/{left_over[:2]}/{left_over}" in names(done, "blob")
    assert len(names(done, "blob")) == 3  # and each tower that no other version has
    assert sorted(names(done, "run")) == sorted(str(versions[number].run_id) for number in (5, 6))
    assert {number: done.kept[number] for number in (1, 2, 3, 4, 7)} == {
        1: "a rollback of champion goes back to it",
        2: "alias champion names it",
        3: "alias shadow names it",
        4: "variant other of experiment try",
        7: "among the newest 1",
    }
    assert shop.numbers() == [1, 2, 3, 4, 7]
    shop.check()
    runs = {run.id for run in EndedRuns(shop.settings, shop.home).ended()}
    assert runs == {str(versions[number].run_id) for number in (1, 2, 3, 4, 7)}
    assert not any(path.exists() for path in logged)
    assert shop.registry.rollback(shop.keys.catalogue, "champion", "ann").number == 1

    (receipt,) = shop.receipts()
    assert receipt["removed"] == done.as_dict()["removed"]
    assert shop.collect(run_days=30).gone == []
    assert shop.publish(8) == 8  # a number is never given again


def test_nothing_goes_that_is_young(shop: Shop) -> None:
    shop.store.put(b"of a publish that is under way")
    assert shop.collect(run_days=30).gone == []
    assert shop.numbers() == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.usefixtures("later")
def test_what_is_unset_is_kept_for_ever(shop: Shop) -> None:
    shop.store.put_manifest(shop.keys.catalogue, b'{"files": {}}')  # no version names it
    before = shop.files()
    shop.store.put(b"nothing names it")
    done = shop.collect(bundles=None, checkpoint_days=None)
    assert {one.kind for one in done.gone} == {"blob"}
    assert before <= shop.files()


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize(
    "step",
    ["blob", *(pytest.param(step, marks=pytest.mark.slow) for step in ("version", "manifest", "run"))],
)
def test_cut_off_anywhere_the_next_run_ends_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    told = shop.collect(dry_run=True, run_days=30)
    removed: list[str] = []

    def killing(remove: Any, kind: str) -> Any:
        def wrapper(*args: Any) -> Any:
            result = remove(*args)
            removed.append(kind)
            if kind == step:
                raise KeyboardInterrupt
            return result

        return wrapper

    sweep = collecting.Sweeping.remove

    def swept(self: Any, name: str) -> bool:
        return bool(killing(sweep, name.partition("/")[0].rstrip("s"))(self, name))

    monkeypatch.setattr(collecting, "forget_version", killing(collecting.forget_version, "version"))
    monkeypatch.setattr(collecting.Sweeping, "remove", swept)
    monkeypatch.setattr(EndedRuns, "remove", killing(EndedRuns.remove, "run"))
    with pytest.raises(KeyboardInterrupt):
        shop.collect(run_days=30)
    monkeypatch.undo()
    shop.check()
    moment = time.time() + 40 * DAY_SECONDS
    monkeypatch.setattr(Limits, "of", classmethod(lambda cls, settings: cls(settings, moment)))
    shop.collect(run_days=30)
    shop.check()
    assert shop.numbers() == [1, 2, 3, 4, 7]
    assert shop.collect(run_days=30).gone == []
    lying = {path.name for path in shop.folder.glob("bundles/blobs/sha256/*/*")}
    assert lying == collecting.Sweeping(shop.store, moment).named()
    assert removed[-1] == step
    first, second = shop.receipts()
    assert first["failed"].startswith("KeyboardInterrupt")
    assert first["cut_off"]["kind"] == step
    assert second["cut_off"] is None
    went = [one["name"] for one in (*first["removed"], first["cut_off"], *second["removed"])]
    assert sorted(went) == sorted(one.name for one in told.gone)


KILLED = """
import os, signal, sys, time
from pathlib import Path
from tastemaker.config import Settings
from tastemaker.home import Home
from tastemaker.retention import collecting
from tastemaker.retention.gone import DAY_SECONDS, Limits
from tastemaker.state.connection import connect, open_keys

def killing(self, name):
    done = remove(self, name)
    if name.startswith("blobs/"):
        os.kill(os.getpid(), signal.SIGKILL)
    return done

remove, collecting.Sweeping.remove = collecting.Sweeping.remove, killing
moment = time.time() + 40 * DAY_SECONDS
Limits.of = classmethod(lambda cls, settings: cls(settings, moment))
settings = Settings.model_validate_json(sys.stdin.read())
with connect(settings.state.url) as client:
    collecting.collect(settings, Home.open(Path(settings.home)), client, open_keys(client, settings))
"""


@pytest.mark.slow
@pytest.mark.usefixtures("later")
def test_the_run_after_one_that_was_killed_tells_what_both_removed(shop: Shop) -> None:
    told = shop.collect(dry_run=True, run_days=30)
    retention = shop.settings.retention.model_copy(update={"run_days": 30})
    settings = shop.settings.model_copy(update={"retention": retention})
    child = subprocess.run(
        [sys.executable, "-c", KILLED], input=settings.model_dump_json(), text=True, check=False
    )
    assert child.returncode == -signal.SIGKILL
    assert shop.numbers() == [1, 2, 3, 4, 7]
    shop.check()
    seen = shop.collect(dry_run=True, run_days=30).killed
    done = shop.collect(run_days=30)
    assert done.killed == seen
    assert seen is not None
    assert [one["kind"] for one in seen["removed"]] == ["version", "version", "manifest", "manifest"]
    went = [*(one["name"] for one in (*seen["removed"], seen["cut_off"])), *(one.name for one in done.gone)]
    assert sorted(went) == sorted(one.name for one in told.gone)
    assert [line["failed"] for line in shop.receipts()] == ["killed", ""]
    assert shop.collect(run_days=30).killed is None


@pytest.mark.usefixtures("later")
def test_a_version_that_is_promoted_meanwhile_stays(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between what was read of what is in use and the removal."""
    forget = forgetting.forget_version

    def promoted_first(settings: Settings, home: Home, number: int, is_free: Callable[[], bool]) -> bool:
        if number == 5:
            shop.registry.set_alias(shop.keys.catalogue, "challenger", 5, "bob", "")
        return forget(settings, home, number, is_free)

    monkeypatch.setattr(collecting, "forget_version", promoted_first)
    assert names(shop.collect(), "version") == ["6"]
    assert shop.registry.version(shop.keys.catalogue, "challenger").number == 5
    shop.check()


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize("use", ["experiment", "promotion", "replica"])
def test_a_version_that_comes_into_use_meanwhile_stays(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    """After the versions before it went, and right before its turn."""
    forget = forgetting.forget_version

    def used_first(settings: Settings, home: Home, number: int, is_free: Callable[[], bool]) -> bool:
        if number == 6:
            shop.use(use, number)
        return forget(settings, home, number, is_free)

    monkeypatch.setattr(collecting, "forget_version", used_first)
    done = shop.collect()
    assert names(done, "version") == ["5"]
    assert (
        done.kept[6]
        == {
            "experiment": "variant other of experiment late",
            "promotion": "its promotion to champion is waiting",
            "replica": "ranker/3f holds it",
        }[use]
    )
    shop.check()


@pytest.mark.usefixtures("later")
def test_days_that_the_report_of_the_holdout_reads_stay(shop: Shop) -> None:
    holdouts, folder = HoldoutStore(shop.client, shop.keys), shop.home / "decisions" / shop.keys.catalogue
    now_ms = time.time_ns() // 1_000_000
    for days_ago in (3, 2, 0):
        at_ms = now_ms - days_ago * DAY_SECONDS * 1000
        write_days(folder, decision_table([decision("r", "u", "a", at_ms - START_MS)]))
    holdouts.put(Holdout(share=0.1))
    first = first_report_day(shop.client, shop.keys)
    assert first == datetime.fromtimestamp(holdouts.since_ms() / 1000 - DAY_SECONDS, UTC).date()
    assert len(shop.collect(decision_days=7).of("decision day")) == 2
    holdouts.put(Holdout(share=0.0))
    assert first_report_day(shop.client, shop.keys) is None
    assert len(shop.collect(decision_days=7).of("decision day")) == 1


def test_bundles_that_are_published_meanwhile_are_whole(shop: Shop) -> None:
    """They share old files, among them one that nothing names any more."""
    first = shop.registry.version(shop.keys.catalogue, 1).ref
    for version in shop.registry.versions(shop.keys.catalogue):
        if version.number > 4:
            forgetting.forget_version(shop.settings, shop.home, version.number, lambda: True)
    two_days_ago = time.time() - 2 * DAY_SECONDS
    for path in shop.folder.rglob("*"):
        os.utime(path, (two_days_ago,) * 2)
    stop = threading.Event()

    def collecting_all_the_time() -> None:
        while not stop.is_set():
            shop.collect()

    worker = threading.Thread(target=collecting_all_the_time)
    worker.start()
    try:
        published = [shop.publish(number) for number in (5, 6, 7, 1, 2)]
    finally:
        stop.set()
        worker.join()
    assert set(published) <= set(shop.numbers())
    shop.check()
    Bundle.open(shop.store, first)


@pytest.mark.usefixtures("later")
def test_what_a_training_may_begin_from_stays(shop: Shop) -> None:
    checkpoints = shop.home / "checkpoints"
    for name in ("t1", "ranker-old"):  # t1 is the champion's training
        (checkpoints / name).mkdir()
        (checkpoints / name / "file").write_text("x")
    with shop.home.lock("training"):
        done = shop.collect()
        assert done.skipped == ["checkpoints: a training is under way"]
        assert names(done, "checkpoint") == []
    assert names(shop.collect(), "checkpoint") == ["checkpoints/ranker-old"]
    assert [path.name for path in checkpoints.iterdir()] == ["t1"]


def test_two_at_once_are_refused(shop: Shop) -> None:
    with shop.home.lock("gc"), pytest.raises(UsageError, match="in use by another process"):
        shop.collect()


@pytest.mark.usefixtures("later")
def test_nothing_goes_where_nobody_can_tell_what_is_in_use(shop: Shop) -> None:
    shop.client.set(shop.keys.live, "no aliases")
    before = shop.files()
    with pytest.raises(StateError, match="does not hold live aliases"):
        shop.collect()
    assert shop.files() == before


@pytest.fixture
def cli(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setattr(context, "_settings", shop.settings)
    yield shop
    context.lifetime.close()


@pytest.mark.usefixtures("later")
def test_the_command_says_what_goes_and_why(cli: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    cli.store.put(b"nothing names it")
    told = invoke(["gc", "--dry-run"])
    text = capsys.readouterr().out
    assert "version 5: not in use, and not among the newest 1" in text
    assert "version 2 stays: alias champion names it" in text
    done = invoke(["gc", "--json"])
    assert json.loads(capsys.readouterr().out) == done
    assert done["removed"] == told["removed"]
    assert invoke(["gc"])["removed"] == []
    assert "Gone: catalogue" in capsys.readouterr().out
