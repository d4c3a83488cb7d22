"""Erasing a user: online, from the log's files and from all that was computed from it, with a receipt.

What aggregates many users stays: items' counters, models. The receipt lists the bundles that were trained with the user,
for whoever decides whether to retrain. Not for what a user may ask of one part alone.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import redis

from tastemaker.bundle.manifest import BundleRef
from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.config import Settings
from tastemaker.data.schema import Column, imported_folder
from tastemaker.errors import CompatibilityError, DataError, IntegrityError
from tastemaker.events.archive import erase_user
from tastemaker.events.erasure import erase_online, pending_erasures, user_hash
from tastemaker.events.receipts import Receipt, write_receipt
from tastemaker.features.feast_repo import repo_folder
from tastemaker.features.projection import erase_projected
from tastemaker.home import Home, write_bytes
from tastemaker.registry.client import Registry
from tastemaker.registry.versions import Version
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.users.archive import profile_files
from tastemaker.users.merged import forget_merges, read_merges
from tastemaker.users.merges import withdraw_requests

log = logging.getLogger(__name__)
_COMPUTED = ("user_vectors/*.parquet", "recommendations/*.parquet")
"""Files beside the log that have a row for each user."""
_PROFILES_SECONDS = 10.0


class Eraser:
    """Erases users of one catalogue. What was cut off is done again from the start: no step minds.

    Args:
        settings: Catalogue, bundles.
        home: Of the log and all that was computed from it.
        client: Of the role `state.url`.
        cache: Of the role `state.cache_url`.
        keys: Of the catalogue.
    """

    def __init__(
        self, settings: Settings, home: Home, client: redis.Redis, cache: redis.Redis, keys: Keys
    ) -> None:
        self._settings, self._home, self._keys = settings, home, keys
        self._client, self._cache = client, cache

    def erase_pending(self) -> list[Receipt]:
        """Erases all for whom it was requested.

        Raises:
            StateError: Redis/Valkey cannot be reached.
            DataError: A file cannot be read or written; the request stays.
            UsageError: Another process erases in this home.
        """
        with self._home.lock("erase"):
            return [
                self._erase(name, user_id)
                for name, user_id in pending_erasures(self._client, self._keys).items()
            ]

    def _erase(self, name: str, user_id: str) -> Receipt:
        """All ids that are one user are erased, whichever was named."""
        catalogue = self._keys.catalogue
        family = read_merges(self._home, catalogue).family(user_id)
        ids = frozenset(family)
        removed: Counter[str] = Counter(
            {"merges": withdraw_requests(self._client, self._keys, ids), "merged users": len(family) - 1}
        )
        first_ms: list[int] = []
        for one in family:  # whom all are merged into comes last: what still moves goes there
            found, times = self._erase_one(one)
            removed.update(found)
            first_ms += times
        removed["merges"] += forget_merges(self._home, catalogue, ids)
        receipt = Receipt(
            name, catalogue, user_hash(user_id), datetime.now(UTC).isoformat(timespec="seconds"),
            dict(removed), self._trained_with(min(first_ms)) if first_ms else [],
        )  # fmt: skip
        write_receipt(self._home, receipt)
        with state_errors("end an erasure"):
            self._client.hdel(self._keys.erasures, name)
        return receipt

    def _erase_one(self, user_id: str) -> tuple[dict[str, int], list[int]]:
        """Gives what went under one id, and times of the earliest of it."""
        catalogue = self._keys.catalogue
        removed = erase_online(self._client, self._cache, self._keys, user_id, time.time_ns() // 1_000_000)
        removed["feature rows"] = erase_projected(self._client, catalogue, user_id)
        first_ms: list[int] = []
        for kind, folder, id_column in (
            ("archived events", self._home / "events" / catalogue, "event_id"),
            ("archived decisions", self._home / "decisions" / catalogue, "decision_id"),
        ):
            erased = erase_user(folder, user_id, id_column)
            removed[kind] = erased.rows
            first_ms += [erased.first_ms] if erased.rows else []
        with self._home.lock("profiles", _PROFILES_SECONDS):
            files = profile_files(self._home, catalogue)
            removed["archived profiles"] = sum(drop_rows(file, user_id)[0] for file in files)
        for kind, files in self._files().items():
            dropped = [drop_rows(file, user_id) for file in files]
            removed[kind] = sum(rows for rows, _ in dropped)
            first_ms += [moment for rows, moment in dropped if rows and moment is not None]
        return removed, first_ms

    def _files(self) -> dict[str, list[Path]]:
        """Parquet files with a column `user_id`, beside the archive, by what they hold."""
        log, imported = (
            self._home / "events" / self._keys.catalogue,
            imported_folder(self._home, self._keys.catalogue),
        )
        return {
            "imported rows": [imported / "interactions.parquet"],
            "rejected rows": [imported / "rejects.parquet"],
            "computed rows": [file for pattern in _COMPUTED for file in sorted(log.glob(pattern))],
            "offline features": sorted(
                repo_folder(self._home, self._keys.catalogue).glob("offline/*.parquet")
            ),
        }

    def _trained_with(self, first_ms: int) -> list[int]:
        versions = Registry(self._settings, self._home).versions(self._keys.catalogue)
        return trained_after(BundleStore.of(self._settings, self._home), versions, first_ms)


def trained_after(store: BundleStore, versions: Iterable[Version], moment_ms: int) -> list[int]:
    """Numbers of the versions whose models may have been fitted on an event of that moment or later, sorted.

    The manifest says up to when, and the registry holds its hash: no other file of a bundle is read. A version whose manifest does not
    say it, or is lost, counts.

    Raises:
        BundleError: The storage refuses.
    """
    ends_ms = {version.number: _last_ms(store, version.ref) for version in versions}
    return sorted(number for number, end_ms in ends_ms.items() if end_ms is None or end_ms >= moment_ms)


def _last_ms(store: BundleStore, ref: BundleRef) -> int | None:
    try:
        dataset = Bundle.open(store, ref, whole=False).manifest.dataset
    except (IntegrityError, CompatibilityError) as error:
        log.warning("counted as trained with an erased user: %s", error)
        return None
    return max(
        (span.end_ms for span in (dataset.retrievers, dataset.ranker) if span is not None), default=None
    )


def drop_rows(file: Path, user_id: str) -> tuple[int, int | None]:
    """Removes a user's rows from a Parquet file, which may be absent: it is replaced whole.

    Gives the number of rows, and the time of the earliest where rows have one.

    Raises:
        DataError: The file cannot be read or written.
    """
    if not file.exists():
        return 0, None
    try:
        reader = pq.ParquetFile(file)
        if Column.USER_ID not in reader.schema_arrow.names:
            return 0, None
        dropped = [reader.schema_arrow.empty_table()]
        buffer = pa.BufferOutputStream()
        with pq.ParquetWriter(buffer, reader.schema_arrow) as writer:
            for group in range(reader.num_row_groups):
                table, is_theirs = reader.read_row_group(group), pc.field(Column.USER_ID) == user_id
                dropped.append(table.filter(is_theirs))
                writer.write_table(table.filter(~is_theirs | pc.field(Column.USER_ID).is_null()))
        theirs = pa.concat_tables(dropped)
        if len(theirs):
            write_bytes(file, buffer.getvalue().to_pybytes())
        timed = Column.TIMESTAMP_MS in theirs.column_names
        return len(theirs), pc.min(theirs[Column.TIMESTAMP_MS]).as_py() if timed else None
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"cannot take rows from {file}: {error}", mend="make room, or mend the file"
        ) from error
