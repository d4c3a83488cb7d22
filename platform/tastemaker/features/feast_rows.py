"""The online rows of a catalogue's Feast project, read and written without Feast, many entities at once.

Feast drops a row whose time is not later than that of the row it has. So each row that is written here is of a later time
than the last: of its newest event, or a microsecond after the row before where that is as late, as it is after an event
that came late.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import redis

from tastemaker.features import feast_format
from tastemaker.features.views import Entity, View, ViewRows
from tastemaker.state.connection import scan_keys, state_errors

_BATCH: Final = 500
_SCAN: Final = 2000
_MS_NS, _LATER_NS = 1_000_000, 1_000


class FeastRows:
    """Rows of one project.

    Args:
        client: Of the role `state.url`.
        catalogue: Whose project it is.
    """

    def __init__(self, client: redis.Redis, catalogue: str) -> None:
        self._client, self._project = client, feast_format.project_of(catalogue)

    def write(self, ids: Sequence[str], rows: Sequence[ViewRows]) -> None:
        """Writes rows of some views of one entity, in place of those that are there.

        Args:
            ids: Of the entities, each once.
            rows: Of each view, one for each id.

        Raises:
            StateError: Redis/Valkey cannot be reached. What was written stays; writing again is right.
        """
        for begin in range(0, len(ids), _BATCH):
            part = slice(begin, begin + _BATCH)
            cut = [_cut(one, part) for one in rows]
            with state_errors("write Feast's rows"):
                self._write(self._keys(rows[0].view.entity, ids[part]), cut)

    def read(self, view: View, ids: Sequence[str]) -> list[dict[str, object] | None]:
        """Each entity's row by feature, as it was written; None where there is none."""
        asked = [feast_format.time_field(view), *feast_format.fields(view)]
        with state_errors("read Feast's rows"):
            replies = self._each("HMGET", self._keys(view.entity, ids), asked)
        names = [feature.name for feature in view.features]
        return [
            None if time is None
            else {name: feast_format.value_of(cell or b"") for name, cell in zip(names, found, strict=True)}
            for time, *found in replies
        ]  # fmt: skip

    def times_ns(self, entity: Entity, views: Sequence[View], ids: Sequence[str]) -> list[list[int | None]]:
        """The time of each entity's row in each view, ns since 1970; None where there is none."""
        with state_errors("read the times of Feast's rows"):
            replies = self._each(
                "HMGET", self._keys(entity, ids), [feast_format.time_field(view) for view in views]
            )
        return [
            [None if time is None else feast_format.decode_time(time) for time in found] for found in replies
        ]

    def delete(self, ids: Sequence[str], views: Sequence[View]) -> None:
        """Removes entities' rows from some views of one entity."""
        words = [
            name for view in views for name in (feast_format.time_field(view), *feast_format.fields(view))
        ]
        with state_errors("remove Feast's rows"):
            self._each("HDEL", self._keys(views[0].entity, ids), words)

    def ids(self, entity: Entity) -> Iterator[list[str]]:
        """Ids of all entities that have rows, some at a time, each once, by a scan of the whole server."""
        pattern = feast_format.key_prefix(entity) + b"*" + self._project.encode()
        for keys in scan_keys(self._client, pattern, _SCAN):
            found = [feast_format.id_of(entity, key, self._project) for key in keys]
            yield [
                entity_id for entity_id in found if entity_id is not None
            ]  # the pattern matches longer names too

    def _keys(self, entity: Entity, ids: Sequence[str]) -> list[bytes]:
        return [feast_format.row_key(entity, entity_id, self._project) for entity_id in ids]

    def _each(self, command: str, keys: Sequence[bytes], words: Sequence[bytes]) -> list[Any]:
        """The replies to one command for each key."""
        pipe: Any = self._client.pipeline(transaction=False)
        for key in keys:
            pipe.execute_command(command, key, *words, NEVER_DECODE=True)
        found: list[Any] = pipe.execute()
        return found

    def _write(self, keys: Sequence[bytes], rows: Sequence[ViewRows]) -> None:
        names = [
            name
            for one in rows
            for name in (feast_format.time_field(one.view), *feast_format.fields(one.view))
        ]
        before = self._each("HMGET", keys, [feast_format.time_field(one.view) for one in rows])
        values = [feast_format.cells(one) for one in rows]
        pipe: Any = self._client.pipeline(transaction=False)
        for n, key in enumerate(keys):
            words: list[Any] = [None] * (2 * len(names))
            words[::2] = names
            words[1::2] = [
                cell
                for view, one in enumerate(rows)
                for cell in (_time(one.value_NF[n, 0], before[n][view]), *values[view][n])
            ]
            pipe.execute_command("HSET", key, *words)
        pipe.execute()


def _time(last_ms: float, before: bytes | None) -> bytes:
    """The time of a row, later than that of the row before."""
    earlier_ns = 0 if before is None else feast_format.decode_time(before)
    return feast_format.encode_time(max(int(last_ms) * _MS_NS, earlier_ns + _LATER_NS))


def _cut(rows: ViewRows, part: slice) -> ViewRows:
    texts: Mapping[str, Sequence[str]] = {name: texts[part] for name, texts in rows.texts.items()}
    return ViewRows(rows.view, rows.value_NF[part], texts)
