"""Keeps the versions of one process in step with what is live and with what is put into the catalogue.

Versions are loaded in a thread of their own, one at a time, while what is held goes on answering and following: a new
version takes what was put meanwhile before it counts as held. On one machine one process loads at a time, so that the
others answer at their speed; one that holds nothing yet does not wait for its turn.
"""

import logging
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final, Generic, Protocol, TypeVar

import redis

from tastemaker import telemetry
from tastemaker.errors import StateError
from tastemaker.pacing import paced
from tastemaker.registry.live import LiveAliases, LiveVersion
from tastemaker.state.items import ItemChanges, PutItems
from tastemaker.state.keys import Keys
from tastemaker.state.lease import Lease
from tastemaker_services.versions.giving_way import BetweenRequests
from tastemaker_services.versions.held import Versions
from tastemaker_services.versions.quiet import free_memory, without_collector

TURN_SECONDS: Final = 60.0
"""A load that takes longer shares the machine with the next."""
log = logging.getLogger(__name__)


class Following(Protocol):
    """A version that takes what is put into the catalogue."""

    def take(self, changes: ItemChanges) -> None:
        """Brings it up to the changes."""
        ...


F = TypeVar("F", bound=Following)


class Keeper(Generic[F]):
    """The versions of one process. One thread polls.

    Args:
        load: Opens a version, slow, and has it take all that was put until then; runs in a thread.
        items: What is put into the catalogue; this alone polls it.
        turn: Of this process among those of its machine.
        catalogue: For the metrics.
        keep_seconds: See `Versions`.
        may_begin: Whether a version may be loaded already, by its manifest's hash.
    """

    def __init__(
        self,
        load: Callable[[LiveVersion, ItemChanges], F],
        items: PutItems,
        turn: "Turn",
        catalogue: str,
        keep_seconds: float,
        may_begin: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._may_begin = may_begin
        self._load, self._items, self._turn, self._catalogue = load, items, turn, catalogue
        self.versions: Versions[F] = Versions(catalogue, keep_seconds)
        self._under_way: _Load[F] | None = None

    def poll(self, live: LiveAliases | None) -> None:
        """Takes what changed, begins to load what became live, and drops what has long not been.

        Raises:
            StateError: Redis/Valkey cannot be reached.
        """
        changes = self._items.poll()
        if changes:
            self._follow(changes)
        self._adopt()
        self._begin(live)
        if self.versions.retire(live):
            free_memory()

    def settle(self, live: LiveAliases | None) -> None:
        """Polls until all that is live is loaded or refused.

        Raises:
            StateError: See `poll`.
        """
        self.poll(live)
        while self._under_way is not None:
            self._under_way.thread.join()
            self.poll(live)

    def _follow(self, changes: ItemChanges) -> None:
        if self._under_way is not None:
            self._under_way.missed.append(changes)
        for sha256 in self.versions.held:
            version = self.versions.get(sha256)
            assert version is not None, "this thread alone drops versions"
            try:
                version.take(changes)
            except Exception:  # whatever an encoder raises: the version says so when it is loaded anew
                log.exception("bundle %s cannot follow the catalogue", sha256[:12])
                self.versions.drop(sha256)

    def _begin(self, live: LiveAliases | None) -> None:
        version = self.versions.missing(live)
        if version is None or self._under_way is not None or not self._may_begin(version.sha256):
            return
        if self.versions.held and not self._turn.take():
            return
        self._under_way = _Load(self._load, version, self._items.everything())

    def _adopt(self) -> None:
        load = self._under_way
        if load is None or load.thread.is_alive():
            return
        self._under_way = None
        with suppress(StateError):  # then it runs out
            self._turn.end()
        try:
            self.versions.hold(load.version, load.result())
            telemetry.BUNDLE_LOAD_SECONDS.labels(self._catalogue).observe(load.seconds)
        except Exception as error:  # noqa: BLE001 (whatever a file's parser raises: the bundle is at fault)
            self.versions.refuse(load.version, error)


class _Load(Generic[F]):
    """A version on its way."""

    def __init__(
        self, load: Callable[[LiveVersion, ItemChanges], F], version: LiveVersion, everything: ItemChanges
    ) -> None:
        self.version, self.missed = version, list[ItemChanges]()
        self.seconds = 0.0
        self._run = partial(load, version, everything)
        self._loaded: F | None = None
        self._error: Exception | None = None
        self.thread = threading.Thread(target=self._work, daemon=True, name="version-loader")
        self.thread.start()

    def result(self) -> F:
        """What was loaded, up to all changes."""
        if self._error is not None:
            raise self._error
        loaded = self._loaded
        assert loaded is not None, "the thread has ended"
        for changes in self.missed:
            loaded.take(changes)
        return loaded

    def _work(self) -> None:
        started = time.monotonic()
        try:
            with without_collector(), paced(BetweenRequests()):
                self._loaded = self._run()
        except Exception as error:  # noqa: BLE001 (told where the thread is waited for)
            self._error = error
        self.seconds = time.monotonic() - started


class Turn:
    """Whose turn it is to load, among the processes of one machine. One thread at a time.

    Args:
        client: Of the role `state.url`.
        keys: Of the catalogue.
    """

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        host = socket.gethostname()
        self._lease = Lease(client, keys.loading(host), keys.loading_fence(host), TURN_SECONDS)

    def take(self) -> bool:
        """Whether it is this process's turn; it stays so until `end`, or for `TURN_SECONDS`.

        Raises:
            StateError: Redis/Valkey cannot be reached.
        """
        return self._lease.hold()

    def end(self) -> None:
        """Lets another process load.

        Raises:
            StateError: Redis/Valkey cannot be reached.
        """
        self._lease.release()
