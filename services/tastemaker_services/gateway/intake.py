"""Where accepted events go: onto the log's disk, or onto our own while the log cannot take them. 202 means either."""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import NamedTuple

from redis.asyncio import Redis as AsyncRedis

from tastemaker import telemetry
from tastemaker.config import Settings
from tastemaker.errors import StateError, StreamFullError
from tastemaker.events.forwarding import Forwarder
from tastemaker.events.log import Record, append_records, append_records_async, record_of
from tastemaker.events.schema import Event
from tastemaker.events.spool import Spool
from tastemaker.home import Home
from tastemaker.state.connection import connect
from tastemaker.state.keys import Keys

log = logging.getLogger(__name__)


class Taken(NamedTuple):
    """What became of a batch. Of the accepted, those `spooled` are on our disk and not yet looked at for duplicates."""

    accepted: int
    duplicates: int
    spooled: int


class Intake:
    """One gateway's events. For one event loop, with two threads of its own.

    While anything waits in the spool all goes there, so that a user's events keep their order, and an unreachable
    server costs one request its time-out. A full stream is no reason to spool: the consumer is behind, and says so.

    Args:
        client: Of the role `state.url`.
        url: The same, for the thread that empties the spool.
        keys: Of the catalogue.
        settings: Mode, limits, deduplication.
        home: Its folder `spool` holds the spools.
    """

    def __init__(self, client: AsyncRedis, url: str, keys: Keys, settings: Settings, home: Home) -> None:
        self._client, self._keys, self._state = client, keys, settings.state
        self._sync_client = connect(url)
        self._spool = Spool(home / "spool" / keys.catalogue, settings.state.spool_bytes, keys.catalogue)
        self._forwarder = Forwarder(self._spool, self._deliver, keys.catalogue)
        self._spooled = telemetry.SPOOL_EVENTS.labels(keys.catalogue, "spooled")

    def start(self) -> None:
        """Takes the spool, with what an earlier process left in it.

        Raises:
            StateError: See `Spool.start`.
        """
        self._spool.start()
        self._forwarder.start()

    def stop(self) -> None:
        """Ends both threads; what is spooled stays for the next process."""
        self._forwarder.stop()
        self._spool.stop()
        self._sync_client.close()

    async def append(self, events: Sequence[Event]) -> Taken:
        """Returns once the events are on a disk.

        Raises:
            StreamFullError: The log has no room.
            StateError: Neither log nor spool takes them.
        """
        now_ms = time.time_ns() // 1_000_000
        records = [record_of(event, now_ms) for event in events]
        if not records:
            return Taken(0, 0, 0)
        if self._state.ingest == "waitaof" and self._spool.is_empty:
            try:
                return Taken(*await append_records_async(self._client, self._keys, records, self._state), 0)
            except StreamFullError:
                raise
            except StateError as error:
                log.warning("events go to the spool: %s", error)
        await asyncio.wrap_future(self._spool.put(records))
        self._spooled.inc(len(records))
        return Taken(len(records), 0, len(records))

    def _deliver(self, records: Sequence[Record]) -> None:
        append_records(self._sync_client, self._keys, records, self._state)
