"""Long lists that are shown page by page: made once, kept under a name that nobody can guess, and read on from there.

A user's lists are one hash, so that an erasure deletes one key; a cursor is a list's name and how far it was read. So it
leads nobody to another user's or catalogue's list, and a list does not change while it is read, whatever is released or
happens meanwhile. What the hard rules forbid today is left out when a page is made.
"""

import base64
import binascii
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol, Self

import msgpack
import numpy as np
from redis.asyncio import Redis as AsyncRedis

from tastemaker.experiments.assigned import Assigned
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.types import Candidates, Query
from tastemaker_services.gateway.answers import unsourced
from tastemaker_services.gateway.face import BundleFace
from tastemaker_services.web.schema import RecommendationRequest

SCHEMA: Final = 3
MOST_LISTS: Final = 8
"""Of one user; a further one takes the place of all others."""
_NAME_BYTES: Final = 16
_OFFSET_BYTES: Final = 2
NOBODY: Final = "-"
"""Stands for the user in what is kept of a request."""
_KEPT_FIELDS: Final = ("context", "session", "exclude", "filters", "personalise")


class Place(NamedTuple):
    """How far a list was read."""

    name: bytes
    offset: int

    def cursor(self) -> str:
        """The text that a client sends back.

        >>> Place(bytes(16), 10).cursor()
        'AAAAAAAAAAAAAAAAAAAAAAAK'
        """
        return base64.urlsafe_b64encode(self.name + self.offset.to_bytes(_OFFSET_BYTES)).decode()

    @classmethod
    def of(cls, cursor: str) -> Self | None:
        """The place that a cursor says; None where it is no cursor."""
        try:
            told = base64.b64decode(cursor.encode(), altchars=b"-_", validate=True)
        except (binascii.Error, UnicodeEncodeError):
            return None
        if len(told) != _NAME_BYTES + _OFFSET_BYTES:
            return None
        return cls(told[:_NAME_BYTES], int.from_bytes(told[_NAME_BYTES:]))


class Page(NamedTuple):
    """Some items of a list: as candidates, as items of a body, and where the next begin, None at the end."""

    slate: Candidates
    items: list[dict[str, Any]]
    next_offset: int | None


@dataclass(frozen=True, slots=True)
class PagedList:
    """A list as it was made.

    Args:
        request_id: Of the request that it was made for.
        made_ms: When.
        bundle: Id of the bundle that made it, and its version in the registry.
        request: What was asked, as JSON: its hard rules stand for all pages.
        is_personal: Whether the user's past was read.
        items: All of them, as the body of an answer has them.
        masks: Their sources.
        assigned: The variants that made it.
        teams: Of a list of two variants' picks, whose each is; else empty.
    """

    request_id: str
    made_ms: int
    bundle: tuple[str, int]
    request: str
    is_personal: bool
    items: Sequence[Mapping[str, Any]]
    masks: Sequence[int]
    assigned: Assigned = field(default_factory=Assigned)
    teams: Sequence[int] = ()

    def asked(self, user_id: str, k: int) -> RecommendationRequest:
        """The request for a page."""
        rules = RecommendationRequest.model_validate_json(self.request)
        return rules.model_copy(update={"user_id": user_id, "k": k})

    def page(self, face: BundleFace, query: Query, offset: int) -> Page:
        """The next `query.k` items from `offset` on that the rules of `query` leave; of those that `face` knows."""
        rest = range(offset, len(self.items))
        place_of = {row: n for n in rest if (row := face.row_of(self.items[n]["item_id"])) is not None}
        rows_K = np.fromiter(place_of, np.int32, len(place_of))
        score_K = np.array([self.items[n]["score"] for n in place_of.values()], np.float32)
        found = face.finish(query, unsourced((rows_K, score_K), len(face.source_names)))
        places = [place_of[row] for row in found.item_index.tolist()]
        masks = np.array([self.masks[n] for n in places], np.uint32)
        team = np.array([self.teams[n] for n in places], np.int8) if self.teams else None
        slate = Candidates(found.item_index, found.score, masks, found.source_score_KS, team=team)
        ends = places[-1] + 1 if len(places) == query.k else len(self.items)
        more = ends if ends < len(self.items) else None
        return Page(slate, [dict(self.items[n]) for n in places], more)

    def encode(self) -> bytes:
        """Bytes to keep."""
        parts = (self.request_id, self.made_ms, self.bundle, self.request, self.is_personal)
        packed: bytes = msgpack.packb(
            (SCHEMA, *parts, list(self.items), list(self.masks), self.assigned.kept(), list(self.teams))
        )
        return packed

    @classmethod
    def decode(cls, kept: bytes | None) -> Self | None:
        """What `encode` gave; None where nothing is kept, or by another release."""
        if kept is None:
            return None
        schema, *parts = msgpack.unpackb(kept)
        if schema != SCHEMA:
            return None
        request_id, made_ms, bundle, request, is_personal, items, masks, drawn, teams = parts
        assigned = Assigned.of_kept(drawn)
        return cls(
            request_id, made_ms, tuple(bundle), request, is_personal, items, masks, assigned, tuple(teams)
        )


def rules_of(request: RecommendationRequest) -> str:
    """What of a request stands for all pages of its list, as JSON of a request of nobody."""
    kept = request.model_dump(mode="json", include={*_KEPT_FIELDS}, exclude_defaults=True)
    return json.dumps({"user_id": NOBODY, **kept}, ensure_ascii=False, separators=(",", ":"))


class Pages(Protocol):
    """Where lists are kept: `PageStore` in practice."""

    async def keep(self, user_id: str, paged: PagedList) -> bytes:
        """See `PageStore.keep`."""
        ...

    async def get(self, user_id: str, name: bytes, now_ms: int) -> PagedList | None:
        """See `PageStore.get`."""
        ...


class PageStore:
    """Lists of the last `seconds`. For one event loop.

    Args:
        client: Of the role `state.cache_url`, with bytes for replies.
        keys: Of the catalogue.
        seconds: How long a list can be read on.
    """

    def __init__(self, client: AsyncRedis, keys: Keys, seconds: int) -> None:
        self._client, self._keys, self._seconds = client, keys, seconds

    async def keep(self, user_id: str, paged: PagedList) -> bytes:
        """Keeps a list; gives its name.

        Raises:
            StateError: It could not be kept.
        """
        key, name = self._keys.paged_lists(user_id), secrets.token_bytes(_NAME_BYTES)
        with state_errors("keep a list for its pages"):
            pipe: Any = self._client.pipeline(transaction=True)
            pipe.hset(key, name, paged.encode())
            pipe.expire(key, self._seconds)
            pipe.hkeys(key)
            *_, names = await pipe.execute()
            if len(names) > MOST_LISTS:
                await self._client.hdel(key, *(other for other in names if other != name))  # type: ignore[misc]
        return name

    async def get(self, user_id: str, name: bytes, now_ms: int) -> PagedList | None:
        """A list of a user by its name; None where there is none, or none any more.

        Raises:
            StateError: It cannot be read.
        """
        with state_errors("read a list for its pages"):
            found = await self._client.hget(self._keys.paged_lists(user_id), name)  # type: ignore[misc, arg-type]
        paged = PagedList.decode(found)
        return paged if paged is not None and now_ms - paged.made_ms < 1000 * self._seconds else None
