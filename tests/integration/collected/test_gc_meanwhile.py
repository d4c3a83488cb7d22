"""`tastemaker gc` that is cut off or killed, and what is promoted, put to use or published while it runs."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from gc_shop import Shop, forty_days_on, names

from tastemaker.bundle.reader import Bundle
from tastemaker.config import Settings
from tastemaker.errors import UsageError
from tastemaker.home import Home
from tastemaker.registry import forgetting
from tastemaker.registry.forgetting import EndedRuns
from tastemaker.retention import collecting
from tastemaker.retention.gone import DAY_SECONDS

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


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
    moment = forty_days_on(monkeypatch)
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


def test_two_at_once_are_refused(shop: Shop) -> None:
    with shop.home.lock("gc"), pytest.raises(UsageError, match="in use by another process"):
        shop.collect()
