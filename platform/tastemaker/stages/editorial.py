"""The source `editorial`: items that people have put together in lists, for a time and for some requests.

Lists belong to a catalogue and not to a bundle: they are kept in Redis/Valkey and hold for whichever version serves. Ids that
a bundle lacks are passed over. Offline evaluation knows no lists.

Shape letters: B requests, N items.
"""

import logging
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, Self

import numpy as np
import redis
from pydantic import AwareDatetime, Field, ValidationError, model_validator

from tastemaker.errors import CompatibilityError, UsageError
from tastemaker.ids import Id
from tastemaker.stages.matching import When, holds
from tastemaker.stages.signals import RowOf
from tastemaker.stages.source import Asked, AskedLists, Source
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.strict import Strict
from tastemaker.types import Float32, Int32, Query

EDITORIAL: Final = "editorial"
MOST_LISTS: Final = 100
log = logging.getLogger(__name__)
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


class EditorialList(Strict):
    """Items, the first the most wanted, and when they are proposed."""

    items: tuple[Id, ...] = Field(min_length=1, max_length=1000, description="the customer's ids, best first")
    weight: float = Field(
        1.0, gt=0, le=1000, description="score of the first item; it falls evenly down the list"
    )
    starts: AwareDatetime | None = Field(
        None, description="not before; with an offset, like 2026-12-01T00:00Z"
    )
    ends: AwareDatetime | None = Field(None, description="not from then on")
    when: When | None = Field(None, description="for such requests only; empty: for all")

    @model_validator(mode="after")
    def _lasts(self) -> Self:
        if self.starts and self.ends and self.ends <= self.starts:
            raise ValueError("ends after starts")
        if len(set(self.items)) < len(self.items):
            raise ValueError("items that are named once each")
        return self

    def is_for(self, query: Query) -> bool:
        """Whether a request is among those that it is for."""
        starts = self.starts is None or query.now_ms >= self.starts.timestamp() * 1000
        ends = self.ends is not None and query.now_ms >= self.ends.timestamp() * 1000
        return starts and not ends and holds(self.when, query)


class EditorialLists:
    """Keeps a catalogue's lists as last read. One thread refreshes; any may read.

    Args:
        client: Of the role `state.url`.
        keys: Of the catalogue.
    """

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._texts: dict[str, str] = {}
        self._lists: tuple[EditorialList, ...] = ()

    def current(self) -> tuple[EditorialList, ...]:
        """As of the last refresh; the same object while nothing changed."""
        return self._lists

    def refresh(self) -> None:
        """Reads them again, in one exchange. Of one that a newer release wrote it warns; the others count.

        Raises:
            StateError: Redis/Valkey cannot be reached; what is known stays.
        """
        texts = _read(self._client, self._keys)
        if texts == self._texts:
            return
        lists = []
        for name, text in sorted(texts.items()):
            try:
                lists.append(decode(name, text))
            except CompatibilityError as error:
                log.warning("%s", error)
        self._lists, self._texts = tuple(lists), texts


def read_lists(client: redis.Redis, keys: Keys) -> dict[str, EditorialList]:
    """All lists of a catalogue, by name.

    Raises:
        StateError: Redis/Valkey cannot be reached.
        CompatibilityError: A newer release wrote one.
    """
    return {name: decode(name, text) for name, text in sorted(_read(client, keys).items())}


def write_list(client: redis.Redis, keys: Keys, name: str, content: EditorialList) -> None:
    """Puts a list in place of the one of that name; it is proposed within seconds.

    Raises:
        UsageError: The name cannot be one, or there are too many lists.
        StateError: Redis/Valkey cannot be reached.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            "name of an editorial list", value=name[:60], limit="1 to 40 of a-z, 0-9 and '-'",
            mend="choose another name",
        )  # fmt: skip
    others = _read(client, keys).keys() - {name}
    if len(others) >= MOST_LISTS:
        raise UsageError(
            "editorial lists", value=len(others) + 1, limit=MOST_LISTS, mend="remove one that has ended"
        )
    with state_errors("write an editorial list"):
        client.hset(keys.editorial, name, content.model_dump_json(exclude_none=True))


def remove_list(client: redis.Redis, keys: Keys, name: str) -> bool:
    """Takes a list away; whether there was one.

    Raises:
        StateError: Redis/Valkey cannot be reached.
    """
    with state_errors("remove an editorial list"):
        return bool(client.hdel(keys.editorial, name))


def _read(client: redis.Redis, keys: Keys) -> dict[str, str]:
    with state_errors("read the editorial lists"):
        found: Any = client.hgetall(keys.editorial)
    return dict(found)


def decode(name: str, text: str) -> EditorialList:
    """The list of a JSON text as it is kept.

    Raises:
        CompatibilityError: It is of another release.
    """
    try:
        return EditorialList.model_validate_json(text)
    except ValidationError as error:
        raise CompatibilityError(
            f"editorial list {name} cannot be read", mend="write it again with this release"
        ) from error


class EditorialSource(Source):
    """The items of the lists that are for a request; of one in several lists the best place counts, others score 0.

    Args:
        name: Of the source.
        row_of: Of item ids.
        current: The lists as of now, the same object while nothing changed; unset, there are none.
    """

    needs_history = False
    is_light = True

    def __init__(
        self, name: str, row_of: RowOf, current: Callable[[], tuple[EditorialList, ...]] = tuple
    ) -> None:
        self.name, self._row_of, self._current = name, row_of, current
        self._kept: tuple[tuple[EditorialList, ...], list[tuple[Int32, Float32]]] = ((), [])

    def ask(self, queries: Sequence[Query]) -> Asked:
        """See `Source.ask`."""
        lists = self._current()
        if self._kept[0] is not lists:
            self._kept = lists, [self._rows(content) for content in lists]
        kept, rows = self._kept
        return AskedLists(queries, [_joined(query, kept, rows) for query in queries])

    def _rows(self, content: EditorialList) -> tuple[Int32, Float32]:
        rows = [self._row_of(item_id) for item_id in content.items]
        score_N = content.weight * np.linspace(1, 0, len(rows), endpoint=False, dtype=np.float32)
        known_N = np.array([row is not None for row in rows], bool)
        return np.array([row for row in rows if row is not None], np.int32), score_N[known_N]


def _joined(
    query: Query, lists: tuple[EditorialList, ...], rows: list[tuple[Int32, Float32]]
) -> tuple[Int32, Float32]:
    """The rows of all lists that are for a request, each once with the largest of its scores, best first."""
    own = [pair for content, pair in zip(lists, rows, strict=True) if content.is_for(query)]
    if not own:
        return np.empty(0, np.int32), np.empty(0, np.float32)
    row_N = np.concatenate([pair[0] for pair in own])
    score_N = np.concatenate([pair[1] for pair in own])
    best_first = np.argsort(-score_N, kind="stable")
    row_N, score_N = row_N[best_first], score_N[best_first]
    _, first = np.unique(row_N, return_index=True)
    kept = np.sort(first)
    return row_N[kept], score_N[kept]
