"""Versions kept in step with what is live and put, through a real Valkey: loads beside the polls, and in turn."""

import gc
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from tastemaker import pacing
from tastemaker.errors import IntegrityError
from tastemaker.registry.live import LiveAliases, LiveVersion
from tastemaker.state.items import ItemChanges, PutItems, write_items
from tastemaker_services.versions import held as versions
from tastemaker_services.versions.giving_way import BetweenRequests
from tastemaker_services.versions.keeping import Keeper, Turn

WAIT_SECONDS = 20.0


class Version:
    """Knows what was put into the catalogue."""

    def __init__(self, sha256: str) -> None:
        self.sha256, self.known = sha256, set[str]()

    def take(self, changes: ItemChanges) -> None:
        if changes.restarted:
            self.known = set()
        self.known |= set(changes.order)


class Loader:
    """Loads when the test lets it."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.broken: set[str] = set()
        self.started: list[str] = []

    def __call__(self, version: LiveVersion, everything: ItemChanges) -> Version:
        self.started.append(version.sha256)
        assert self.go.wait(WAIT_SECONDS)
        if version.sha256 in self.broken:
            raise IntegrityError("items.parquet was changed since it was published")
        loaded = Version(version.sha256)
        loaded.take(everything)
        return loaded


def live(**aliases: str) -> LiveAliases:
    named = {alias: LiveVersion(version=1, uri="manifests/x", sha256=sha) for alias, sha in aliases.items()}
    return LiveAliases(generation=1, aliases=named)


def keeper_of(
    state: Any, loader: Loader, may_begin: Callable[[str], bool] = lambda _: True
) -> Keeper[Version]:
    items = PutItems(state.client, state.keys)
    return Keeper(loader, items, Turn(state.client, state.keys), state.keys.catalogue, 0.0, may_begin)


def poll_until(keeper: Keeper[Version], named: LiveAliases, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        keeper.poll(named)
        time.sleep(0.01)


def put(state: Any, *item_ids: str) -> None:
    write_items(state.client, state.keys, dict.fromkeys(item_ids, "{}"), durable=False)


def test_what_is_held_answers_and_follows_while_another_is_loaded_and_that_one_misses_nothing(
    state: Any,
) -> None:
    loader = Loader()
    keeper = keeper_of(state, loader)
    put(state, "before")
    keeper.settle(live(champion="a"))
    held = keeper.versions.get("a")
    assert held is not None
    loader.go.clear()
    both = live(champion="b", challenger="a")
    poll_until(keeper, both, lambda: loader.started == ["a", "b"])
    put(state, "meanwhile")
    poll_until(keeper, both, lambda: "meanwhile" in held.known)
    assert keeper.versions.held == ["a"]
    loader.go.set()
    poll_until(keeper, both, lambda: keeper.versions.held == ["a", "b"])
    new = keeper.versions.get("b")
    assert new is not None
    assert new.known == held.known == {"before", "meanwhile"}


def test_a_version_that_cannot_be_loaded_is_refused_and_the_others_stay(state: Any) -> None:
    loader = Loader()
    loader.broken = {"b"}
    keeper = keeper_of(state, loader)
    keeper.settle(live(champion="a", challenger="b"))
    assert keeper.versions.held == ["a"]
    assert keeper.versions.refused["b"].startswith("IntegrityError: items.parquet was changed")


def test_one_process_of_a_machine_loads_at_a_time_but_the_first_version_never_waits(state: Any) -> None:
    loaders = [Loader(), Loader(), Loader()]
    first, second, starting = (keeper_of(state, loader) for loader in loaders)
    for keeper in (first, second):
        keeper.settle(live(champion="a"))
    loaders[0].go.clear()
    new = live(champion="b")
    first.poll(new)
    for _ in range(3):
        second.poll(new)
    assert [loader.started for loader in loaders[:2]] == [["a", "b"], ["a"]]
    starting.settle(new)
    assert starting.versions.held == ["b"]
    loaders[0].go.set()
    poll_until(first, new, lambda: "b" in first.versions.held)
    poll_until(second, new, lambda: "b" in second.versions.held)


def test_a_version_is_begun_when_it_may_be(state: Any) -> None:
    settled, loader = set[str](), Loader()
    keeper = keeper_of(state, loader, lambda sha256: sha256 in settled)
    keeper.settle(live(champion="a"))
    assert (loader.started, keeper.versions.held, keeper.versions.refused) == ([], [], {})
    settled.add("a")
    keeper.settle(live(champion="a"))
    assert keeper.versions.held == ["a"]


def test_a_load_goes_on_between_the_requests_of_its_process(state: Any) -> None:
    paces = list[object]()

    class Stepping(Loader):
        def __call__(self, version: LiveVersion, everything: ItemChanges) -> Version:
            paces.append(pacing.current())
            return super().__call__(version, everything)

    keeper_of(state, Stepping()).settle(live(champion="a"))
    assert [type(pace) for pace in paces] == [BetweenRequests]


def test_a_version_that_is_dropped_is_gone_from_memory(state: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = keeper_of(state, Loader())
    keeper.settle(live(champion="a"))
    held = keeper.versions.get("a")
    assert held is not None
    held.itself = held  # type: ignore[attr-defined]  # as faces do, which cache bound methods
    gone = weakref.ref(held)
    del held
    keeper.settle(live(champion="b"))
    monkeypatch.setattr(versions, "DRAIN_SECONDS", 0.0)
    gc.disable()  # nobody but the keeper collects
    try:
        keeper.poll(live(champion="b"))
        assert gone() is None
    finally:
        gc.enable()
