"""The log of an experiment in parts that fit into memory: the answers of some users, and the events that matter to them.

An answer and the events of its user are in one part, and so is an event that names an answer of another user's. Days are read once,
file by file, and put aside by a hash of the user (`spill`); what is held of all parts together is 16 bytes an answer and a user.
"""

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tastemaker.data.schema import INTERACTIONS_SCHEMA, Column, imported_folder
from tastemaker.errors import NothingYetError
from tastemaker.events.archive import read_batches, reread, without_repeats
from tastemaker.experiments.reporting.days import ANSWERS, EVENTS, Wanted, read_answers, read_events
from tastemaker.experiments.reporting.spill import Spill
from tastemaker.experiments.reporting.words import moment
from tastemaker.home import Home
from tastemaker.types import Bool, Int64

BUCKET_BYTES = 8 * 2**20
"""Of the days' files, compressed, that a part is made of; about 50,000 answers."""
_MOST_BUCKETS: Final = 256
"""Of each a file is open; a process may commonly have 1024."""
_IMPORTED: Final = pa.schema(
    [
        INTERACTIONS_SCHEMA.field(name)
        for name in (Column.USER_ID, Column.ITEM_ID, Column.KIND, Column.VALUE, Column.TIMESTAMP_MS)
    ]
)
_ROUTED: Final = pa.schema([*EVENTS, ("is_elsewhere", pa.bool_())])


@dataclass(frozen=True, slots=True)
class Part:
    """Answers by time and then by id, each once, their windows closed; and events, each once, in no order.

    `events` may be of other users too, where they name one of these answers. One with `is_elsewhere` names an answer of another part.
    `imported` are interactions from before the log.
    """

    answers: pa.Table
    events: pa.Table
    imported: pa.Table
    num_open: int

    def events_to_join(self, first_ms: int) -> pa.Table:
        """The events that may belong to an answer of the part: those that name one, and from the first answer of all on also others."""
        named: Any = pc.is_in(
            self.events["request_id"], value_set=self.answers["request_id"].combine_chunks()
        )
        late_E = self.events["received_ms"].to_numpy() >= first_ms
        here_E = ~self.events["is_elsewhere"].to_numpy() & (late_E | named.to_numpy())
        return self.events.filter(pa.array(here_E))


@dataclass(frozen=True, slots=True)
class _Known:
    """Hashes of users, and of requests with the buckets of their answers, each ascending."""

    user_U: Int64
    request_R: Int64
    bucket_R: npt.NDArray[np.uint8]
    first_ms: int

    def has_user(self, hash_E: Int64) -> Bool:
        return _found(self.user_U, hash_E) >= 0

    def bucket_of(self, hash_E: Int64) -> Int64:
        """The bucket of each request's answer; -1 where there is none."""
        place_E = _found(self.request_R, hash_E)
        return np.where(place_E >= 0, self.bucket_R[np.maximum(place_E, 0)].astype(np.int64), -1)


class LogParts:
    """The parts of what is wanted of a catalogue's log.

    Args:
        home: Holds the days.
        catalogue: Whose.
        wanted: Which decisions.
        window_ms: How long after its answer an event counts: answers whose window is open at `now_ms` are left out and counted.
        now_ms: As of when, by the log's clock.
        with_past: Whether events from before the first answer are wanted, and imported interactions of live traffic.
    """

    def __init__(
        self, home: Home, catalogue: str, wanted: Wanted, window_ms: int, now_ms: int, *, with_past: bool
    ) -> None:
        self._home, self._catalogue, self._wanted = home, catalogue, wanted
        self._window_ms, self._now_ms, self._with_past = window_ms, now_ms, with_past

    def read(self, use: Callable[[int, Iterator[Part]], Any]) -> Any:
        """What `use` makes of the time of the first answer, by the log's clock, and of the parts. One part is held at a time.

        Raises:
            NothingYetError: There is no decision whose window has closed.
            DataError: A day cannot be read.
        """
        decisions, events = (self._home / kind / self._catalogue for kind in ("decisions", "events"))

        def with_decisions(answer_paths: list[Path]) -> Any:
            return reread(events, lambda event_paths: self._read(answer_paths, event_paths, use))

        return reread(decisions, with_decisions)

    def _read(
        self, answer_paths: list[Path], event_paths: list[Path], use: Callable[[int, Iterator[Part]], Any]
    ) -> Any:
        with Spill(_num_buckets([*answer_paths, *event_paths])) as spill:
            known = self._put_answers(answer_paths, spill)
            spill.finish("answers")
            self._put_events(event_paths, spill, known)
            spill.finish("events")
            if self._with_past and self._wanted.origin == "live":
                self._put_imported(spill, known)
            spill.finish("imported")
            parts = (
                part
                for bucket in range(spill.num_buckets)
                if len((part := self._part(spill, bucket)).answers) or part.num_open
            )
            return use(known.first_ms, parts)

    def _put_answers(self, paths: list[Path], spill: Spill) -> _Known:
        users: list[Int64] = []
        requests: list[Int64] = []
        buckets: list[npt.NDArray[np.uint8]] = []
        first_ms, open_ms = None, None
        for rows in read_answers(paths, self._wanted):
            if not len(rows):
                continue
            bucket_R = _of_each(rows["user_id"], lambda text: zlib.crc32(text.encode()) % spill.num_buckets)
            spill.put("answers", rows, bucket_R)
            closed_R = self._is_closed(rows)
            if not closed_R.all():
                earliest = int(rows["received_ms"].to_numpy()[~closed_R].min())
                open_ms = earliest if open_ms is None else min(open_ms, earliest)
            if closed_R.any():
                closed = rows.filter(pa.array(closed_R))
                users.append(np.unique(_of_each(closed["user_id"], hash)))
                requests.append(_of_each(closed["request_id"], hash))
                buckets.append(bucket_R[closed_R].astype(np.uint8))
                earliest = int(pc.min(closed["received_ms"]).as_py())
                first_ms = earliest if first_ms is None else min(first_ms, earliest)
        if first_ms is None:
            raise self._nothing_yet(open_ms)
        request_R, bucket_R8 = np.concatenate(requests), np.concatenate(buckets)
        order = np.argsort(request_R, kind="stable")
        return _Known(np.unique(np.concatenate(users)), request_R[order], bucket_R8[order], first_ms)

    def _nothing_yet(self, open_ms: int | None) -> NothingYetError:
        """What is told where no window has closed; `open_ms` is when the first answer was given whose window is open."""
        what = f"{self._wanted.name} has no decision whose window has closed"
        if open_ms is None:
            return NothingYetError(what, mend="wait for traffic, and for the stream consumer")
        return NothingYetError(
            what, mend=f"the first one closes at {moment(open_ms + self._window_ms)} UTC, wait for it"
        )

    def _put_events(self, paths: list[Path], spill: Spill, known: _Known) -> None:
        since_ms = 0 if self._with_past else known.first_ms
        for rows in read_events(paths, self._wanted.origin, since_ms, self._now_ms):
            own_E = known.has_user(_of_each(rows["user_id"], hash))
            named_E = pc.is_valid(rows["request_id"]).to_numpy()
            request_E = np.where(named_E, known.bucket_of(_of_each(rows["request_id"], hash)), -1)
            user_E = _of_each(rows["user_id"], lambda text: zlib.crc32(text.encode()) % spill.num_buckets)
            elsewhere_E = (request_E >= 0) & (request_E != user_E)
            _put(spill, rows, own_E | ((request_E >= 0) & ~elsewhere_E), user_E, elsewhere_E)
            _put(spill, rows, elsewhere_E, request_E, np.zeros(len(rows), np.bool_))

    def _put_imported(self, spill: Spill, known: _Known) -> None:
        path = imported_folder(self._home, self._catalogue) / "interactions.parquet"
        if not path.exists():
            return
        for rows in read_batches(path, _IMPORTED, pc.field(Column.TIMESTAMP_MS) < known.first_ms):
            mine = rows.filter(pa.array(known.has_user(_of_each(rows[Column.USER_ID], hash))))
            bucket_E = _of_each(
                mine[Column.USER_ID], lambda text: zlib.crc32(text.encode()) % spill.num_buckets
            )
            spill.put("imported", mine.cast(_IMPORTED), bucket_E)

    def _part(self, spill: Spill, bucket: int) -> Part:
        answers = without_repeats(spill.take("answers", bucket, ANSWERS), "decision_id")
        closed_R = self._is_closed(answers)
        events = _each_once(spill.take("events", bucket, _ROUTED))
        imported = spill.take("imported", bucket, _IMPORTED)
        return Part(answers.filter(pa.array(closed_R)), events, imported, int((~closed_R).sum()))

    def _is_closed(self, answers: pa.Table) -> Bool:
        closed: Bool = answers["received_ms"].to_numpy() + self._window_ms < self._now_ms
        return closed


def _num_buckets(paths: Sequence[Path]) -> int:
    size = 0
    for path in paths:
        try:
            size += path.stat().st_size
        except OSError:
            continue  # whoever reads it says so
    return max(1, min(_MOST_BUCKETS, math.ceil(size / BUCKET_BYTES)))


def _of_each(column: Any, number: Callable[[str], int]) -> Int64:
    """A number of each text in a column, asked once for each different one of a batch; of null that of nothing."""
    encoded: Any = pc.dictionary_encode(column.combine_chunks(), null_encoding="encode")
    known = np.array([number(text or "") for text in encoded.dictionary.to_pylist()], np.int64)
    found: Int64 = known[encoded.indices.to_numpy()] if len(known) else np.zeros(0, np.int64)
    return found


def _found(sorted_N: Int64, asked_E: Int64) -> Int64:
    """The place of each number among ascending ones; -1 where it is not among them."""
    if len(sorted_N) == 0:
        return np.full(len(asked_E), -1, np.int64)
    place_E = np.minimum(np.searchsorted(sorted_N, asked_E), len(sorted_N) - 1)
    return np.where(sorted_N[place_E] == asked_E, place_E, -1)


def _put(spill: Spill, rows: pa.Table, keep_E: Bool, bucket_E: Int64, elsewhere_E: Bool) -> None:
    if keep_E.any():
        kept = rows.append_column("is_elsewhere", pa.array(elsewhere_E)).filter(pa.array(keep_E))
        spill.put("events", kept.cast(_ROUTED), bucket_E[keep_E])


def _each_once(events: pa.Table) -> pa.Table:
    """Events without repeats, in no order, and without what is not needed any more; nothing is copied where there are none."""
    slim = events.select(["event_id", "timestamp_ms", "received_ms"])
    slim = slim.append_column("row", pa.array(np.arange(len(events))))
    events = events.drop_columns(["event_id"])
    kept = without_repeats(slim, "event_id")["row"]
    return events.take(kept) if len(kept) < len(events) else events
