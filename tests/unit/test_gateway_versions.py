"""Which bundle versions a replica holds, and when all of them are ready."""

from typing import Any

import pytest

from tastemaker.errors import IntegrityError
from tastemaker.registry.live import LiveAliases, LiveVersion
from tastemaker_services import versions
from tastemaker_services.versions import Report, Versions, gone, living, ready_everywhere

NOW_MS = 1_000_000
BOTH = frozenset({"retriever", "ranker"})


def live(**aliases: str) -> LiveAliases:
    named = {alias: LiveVersion(version=1, uri="manifests/x", sha256=sha) for alias, sha in aliases.items()}
    return LiveAliases(generation=1, aliases=named)


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(versions.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Loader:
    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.broken: set[str] = set()

    def __call__(self, version: LiveVersion) -> str:
        self.loaded.append(version.sha256)
        if version.sha256 in self.broken:
            raise IntegrityError("items.parquet was changed since it was published")
        return f"bundle {version.sha256}"


def test_what_becomes_live_is_loaded_once() -> None:
    loader = Loader()
    held: Versions[str] = Versions(loader, "default")
    held.refresh(None)
    assert held.held == []
    for _ in range(2):
        held.refresh(live(champion="a", challenger="b", shadow="a"))
    assert held.held == ["a", "b"]
    assert loader.loaded == ["a", "b"]
    assert held.get("a") == "bundle a"
    assert held.get("c") is None


def test_what_is_live_no_longer_is_kept_until_drained(clock: Clock) -> None:
    held: Versions[str] = Versions(Loader(), "default")
    held.refresh(live(champion="a"))
    clock.now = 10.0
    held.refresh(live(champion="b"))
    assert held.held == ["a", "b"]
    clock.now = 69.0
    held.refresh(live(champion="b"))
    assert held.held == ["a", "b"]
    clock.now = 70.0  # 60 s after it was first seen to be unused
    held.refresh(live(champion="b"))
    assert held.held == ["b"]


def test_a_rollback_while_draining_keeps_the_version(clock: Clock) -> None:
    loader = Loader()
    held: Versions[str] = Versions(loader, "default")
    held.refresh(live(champion="a"))
    held.refresh(live(champion="b"))
    clock.now = 59.0
    held.refresh(live(champion="a"))
    clock.now = 100.0
    held.refresh(live(champion="a"))
    assert "a" in held.held
    assert loader.loaded == ["a", "b"]


def test_a_refused_bundle_says_why_and_is_tried_again_later(clock: Clock) -> None:
    loader = Loader()
    loader.broken = {"b"}
    held: Versions[str] = Versions(loader, "default")
    held.refresh(live(champion="a", challenger="b"))
    held.refresh(live(champion="a", challenger="b"))
    assert held.held == ["a"]
    assert loader.loaded == ["a", "b"]
    assert "IntegrityError: items.parquet was changed" in held.refused["b"]
    loader.broken.clear()
    clock.now = 30.0
    held.refresh(live(champion="a", challenger="b"))
    assert held.held == ["a", "b"]
    assert held.refused == {}


def report(*held: str, at_ms: int = NOW_MS) -> str:
    return Report(3, held, at_ms).encode()


def test_a_report_comes_back_as_it_went() -> None:
    assert Report.decode(report("a", "b")) == Report(3, ("a", "b"), NOW_MS)


@pytest.mark.parametrize(
    ("reports", "ready"),
    [
        ({"retriever/1": report("a"), "ranker/1": report("a", "b")}, True),
        ({"retriever/1": report("a")}, False),  # nobody ranks
        ({"retriever/1": report("a"), "ranker/1": report("b")}, False),
        ({"retriever/1": report("a"), "ranker/1": report("a"), "ranker/2": report("b")}, False),
        (
            {
                "retriever/1": report("a"),
                "ranker/1": report("a"),
                "ranker/2": report("b", at_ms=NOW_MS - 10_001),
            },
            True,
        ),
        ({"retriever/1": report("a"), "ranker/1": report("a", at_ms=NOW_MS - 10_001)}, False),
        ({}, False),
    ],
)
def test_a_version_is_ready_when_every_living_replica_has_it(reports: dict[str, Any], ready: bool) -> None:
    assert ready_everywhere("a", reports, BOTH, NOW_MS) is ready


def test_living_replicas_are_counted_by_stage() -> None:
    reports = {"ranker/1": report(), "ranker/2": report(), "ranker/3": report(at_ms=NOW_MS - 10_001)}
    assert living(reports | {"retriever/1": report("a")}, NOW_MS) == {"ranker": 2, "retriever": 1}


def test_replicas_that_were_silent_for_a_minute_are_forgotten() -> None:
    reports = {"ranker/1": report(at_ms=NOW_MS - 60_000), "ranker/2": report(at_ms=NOW_MS - 60_001)}
    assert gone(reports, NOW_MS) == ["ranker/2"]
