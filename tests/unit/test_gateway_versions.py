"""Which bundle versions a process holds, and when all of them are ready."""

from typing import Any

import pytest

from tastemaker import telemetry
from tastemaker.errors import BundleError, CompatibilityError, IntegrityError
from tastemaker.registry.live import LiveAliases, LiveVersion
from tastemaker.registry.reports import Report, gone, living, ready_everywhere
from tastemaker_services.versions import held as versions
from tastemaker_services.versions.held import Versions, refusal_of
from tastemaker_services.versions.rehearsal import EmptyAnswersError

NOW_MS = 1_000_000
BOTH = frozenset({"retriever", "ranker"})


def version(sha256: str) -> LiveVersion:
    return LiveVersion(version=1, uri="manifests/x", sha256=sha256)


def live(previous: str | None = None, **aliases: str) -> LiveAliases:
    named = {alias: version(sha256) for alias, sha256 in aliases.items()}
    return LiveAliases(generation=1, aliases=named, previous=version(previous) if previous else None)


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(versions.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def load_all(held: Versions[str], now_live: LiveAliases | None) -> list[str]:
    """Loads and retires as a process does; what it loaded, in order."""
    loaded = []
    while (missing := held.missing(now_live)) is not None:
        held.hold(missing, f"bundle {missing.sha256}")
        loaded.append(missing.sha256)
    held.retire(now_live)
    return loaded


def test_what_becomes_live_is_loaded_once_and_the_champion_first() -> None:
    held: Versions[str] = Versions("default")
    assert load_all(held, None) == []
    both = live(challenger="b", champion="c", shadow="b")
    assert load_all(held, both) == ["c", "b"]
    assert load_all(held, both) == []
    assert held.held == ["b", "c"]
    assert held.get("b") == "bundle b"
    assert held.get("d") is None


def test_what_is_live_no_longer_is_kept_until_drained(clock: Clock) -> None:
    held: Versions[str] = Versions("default")
    load_all(held, live(champion="a"))
    clock.now = 10.0
    load_all(held, live(champion="b"))
    assert held.held == ["a", "b"]
    clock.now = 69.0
    assert held.retire(live(champion="b")) is False
    assert held.held == ["a", "b"]
    clock.now = 70.0  # 60 s after it was first seen to be unused
    assert held.retire(live(champion="b")) is True
    assert held.held == ["b"]


def test_a_rollback_while_draining_keeps_the_version(clock: Clock) -> None:
    held: Versions[str] = Versions("default")
    load_all(held, live(champion="a"))
    load_all(held, live(champion="b"))
    clock.now = 59.0
    load_all(held, live(champion="a"))
    clock.now = 100.0
    assert load_all(held, live(champion="a")) == []
    assert "a" in held.held


def test_the_champion_before_is_held_for_a_rollback_and_loaded_last_where_it_is_not(clock: Clock) -> None:
    held: Versions[str] = Versions("default", keep_seconds=1000.0)
    load_all(held, live(champion="a"))
    load_all(held, live("a", champion="b"))
    clock.now = 999.0
    load_all(held, live("a", champion="b"))
    assert held.held == ["a", "b"]
    restarted: Versions[str] = Versions("default", keep_seconds=1000.0)
    assert load_all(restarted, live("a", champion="b", shadow="c")) == ["b", "c", "a"]
    clock.now = 1000.0
    load_all(held, live("a", champion="b"))
    clock.now = 1060.0
    load_all(held, live("a", champion="b"))
    assert held.held == ["b"]


def test_a_refused_bundle_says_why_and_is_tried_again_later(clock: Clock) -> None:
    held: Versions[str] = Versions("default")
    named = live(champion="a", challenger="b")
    load_all(held, live(champion="a"))
    before = telemetry.BUNDLE_REFUSED.labels("default", "corrupt")._value.get()
    held.refuse(version("b"), IntegrityError("items.parquet was changed since it was published"))
    assert telemetry.BUNDLE_REFUSED.labels("default", "corrupt")._value.get() == before + 1
    assert held.missing(named) is None
    assert held.held == ["a"]
    assert "IntegrityError: items.parquet was changed" in held.refused["b"]
    clock.now = 30.0
    assert load_all(held, named) == ["b"]
    assert held.refused == {}


def test_a_bundle_that_was_refused_and_rolled_back_from_is_not_tried_again_for_a_rollback(
    clock: Clock,
) -> None:
    held: Versions[str] = Versions("default", keep_seconds=1000.0)
    load_all(held, live(champion="a"))
    held.refuse(version("b"), IntegrityError("b was changed"))
    clock.now = 100.0
    assert held.missing(live("b", champion="a")) is None
    assert held.missing(live("a", champion="b")) == version("b")


def test_a_refused_bundle_that_is_live_no_longer_is_forgotten(clock: Clock) -> None:
    held: Versions[str] = Versions("default")
    held.refuse(version("b"), BundleError("b cannot be read"))
    held.retire(live(champion="a"))
    assert held.refused == {}
    assert clock.now == 0


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (IntegrityError("changed"), "corrupt"),
        (CompatibilityError("of another training"), "incompatible"),
        (BundleError("cannot be read"), "unreadable"),
        (EmptyAnswersError("nothing"), "empty"),
        (KeyError("x"), "other"),
    ],
)
def test_refusals_are_of_few_kinds(error: Exception, reason: str) -> None:
    assert refusal_of(error) == reason
    assert reason in telemetry.REFUSALS | {"other"}


def report(*held: str, at_ms: int = NOW_MS) -> str:
    return Report(3, held, at_ms).encode()


def test_a_report_comes_back_as_it_went() -> None:
    whole = Report(3, ("a", "b"), NOW_MS, {"c": "IntegrityError: changed"}, {"champion": 7})
    assert Report.decode(whole.encode()) == whole
    assert Report.decode(f'[3, ["a", "b"], {NOW_MS}]') == Report(
        3, ("a", "b"), NOW_MS
    )  # of the release before


@pytest.mark.parametrize(
    ("reports", "ready"),
    [
        ({"retriever/1": report("a"), "ranker/1": report("a", "b")}, True),
        ({"retriever/1": report("a")}, False),  # nobody ranks
        ({"retriever/1": report("a"), "ranker/1": report("b")}, False),
        ({"retriever/1": report("a"), "ranker/1": report("a"), "ranker/2": report("b")}, False),
        ({"retriever/1": report("a"), "ranker/1": report("a"), "gateway/1": report("b")}, False),
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
