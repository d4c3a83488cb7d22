"""Lists answered lately: the same question of the same user, nothing having happened since, is answered from them.

A user's lists are one hash, so that an erasure deletes one key. A field is a question: variant, bundle, context class,
k and filters; a swap, another variant or another k is another question. Beside a list stands the version of the user
that it was made for: a digest of the history and record as read with each request, of the session and of `exclude`. The
user's next event changes the record and with it the version, the moment the stream consumer applies it; no writer has to
know of this cache, and none can forget it. A list of an older version answers nothing, but is still worth more than what
trends: it is the rung before that.
"""

import asyncio
import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, Self

import msgpack
import numpy as np
from redis.asyncio import Redis as AsyncRedis

from tastemaker import telemetry
from tastemaker.errors import StateError
from tastemaker.features.context import LOCAL_TIME
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.types import Candidates
from tastemaker_services.gateway.queries import Question
from tastemaker_services.web.schema import RecommendationRequest

SCHEMA: Final = 3
MOST_LISTS: Final = 16
"""Of one user; a further question starts anew."""
MOST_WRITES: Final = 200
"""Under way at once; what comes then is not kept."""
_HOUR: Final = len("2026-11-24T18")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kept:
    """A list as it was answered, by which request, when, and for which version of the user."""

    version: bytes
    request_id: str
    made_ms: int
    slate: Candidates

    def encode(self) -> bytes:
        """Bytes to keep; each source's own score is not among them."""
        slate = self.slate
        columns = (slate.item_index, slate.score, slate.source_mask, slate.because, slate.team)
        parts = [b"" if column is None else column.tobytes() for column in columns]
        packed: bytes = msgpack.packb((SCHEMA, self.version, self.request_id, self.made_ms, *parts))
        return packed

    @classmethod
    def decode(cls, kept: bytes | None, num_sources: int) -> Self | None:
        """What `encode` gave; None where nothing is kept, or by another release."""
        if kept is None:
            return None
        try:
            schema, version, request_id, made_ms, rows, scores, masks, named, teams = msgpack.unpackb(kept)
        except (ValueError, TypeError, msgpack.UnpackException):
            return None
        if schema != SCHEMA:
            return None
        item_index = np.frombuffer(rows, np.int32)
        unknown_KS = np.full((len(item_index), num_sources), np.nan, np.float32)
        score, mask = np.frombuffer(scores, np.float32), np.frombuffer(masks, np.uint32)
        because = np.frombuffer(named, np.int32) if named else None
        team = np.frombuffer(teams, np.int8) if teams else None
        slate = Candidates(item_index, score, mask, unknown_KS, because=because, team=team)
        return cls(version, request_id, made_ms, slate)


class Lists(Protocol):
    """Where lists are kept: `ResultCache` in practice."""

    async def get(self, user_id: str, question: bytes, num_sources: int, now_ms: int) -> Kept | None:
        """See `ResultCache.get`."""
        ...

    def keep(self, user_id: str, question: bytes, kept: Kept) -> None:
        """See `ResultCache.keep`."""
        ...


class ResultCache:
    """Lists of the last `seconds`. For one event loop.

    Args:
        client: Of the role `state.cache_url`, with bytes for replies.
        keys: Of the catalogue.
        seconds: How long a list may be answered again.
    """

    def __init__(self, client: AsyncRedis, keys: Keys, seconds: int) -> None:
        self._client, self._keys, self._seconds = client, keys, seconds
        self._writes: set[asyncio.Task[None]] = set()
        self._lost = telemetry.CACHE.labels(keys.catalogue, "not-kept")
        self._warned = False

    async def get(self, user_id: str, question: bytes, num_sources: int, now_ms: int) -> Kept | None:
        """The list that was kept for a question, for whatever version of the user.

        Raises:
            StateError: The cache cannot be reached.
        """
        with state_errors("read a kept list"):
            found = await self._client.hget(self._keys.cached_lists(user_id), question)  # type: ignore[misc, arg-type]
        kept = Kept.decode(found, num_sources)
        return kept if kept is not None and now_ms - kept.made_ms < 1000 * self._seconds else None

    def keep(self, user_id: str, question: bytes, kept: Kept) -> None:
        """Keeps a list, off the request's path; where that fails, nothing is kept and it is counted."""
        if len(self._writes) >= MOST_WRITES:
            self._lost.inc()
            return
        write = asyncio.get_running_loop().create_task(self._write(user_id, question, kept.encode()))
        self._writes.add(write)
        write.add_done_callback(self._writes.discard)

    async def settle(self) -> None:
        """Waits for what is being kept."""
        await asyncio.gather(*self._writes)

    async def _write(self, user_id: str, question: bytes, kept: bytes) -> None:
        key = self._keys.cached_lists(user_id)
        try:
            with state_errors("keep a list"):
                pipe: Any = self._client.pipeline(transaction=True)
                pipe.hset(key, question, kept)
                pipe.expire(key, self._seconds)
                pipe.hlen(key)
                *_, num_lists = await pipe.execute()
                if num_lists > MOST_LISTS:
                    await self._client.delete(key)
        except StateError as error:
            self._lost.inc()
            if not self._warned:
                log.warning("lists are not kept: %s (further ones are only counted)", error)
                self._warned = True


def question_of(request: RecommendationRequest, question: Question) -> bytes:
    """Names what a list depends on beside its user."""
    query, face, assigned = question.query, question.pin.face, question.assigned
    variants = [(one.experiment, one.variant) for one in assigned.in_effect]
    asked = request.filters
    filters = sorted(set(asked.categories)), sorted(set(asked.tags)), asked.max_maturity
    parts = (
        face.sha256,
        face.overlay.lineage,
        variants,
        query.policy,
        request.k,
        filters,
        sorted(context_class(query.context).items()),
        *((side.pin.face.sha256, side.query.policy) for side in question.sides),
    )
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).digest()


def version_of(user_version: bytes, request: RecommendationRequest) -> bytes:
    """Names what a list depends on of its user: all that was read of them, the session, and what they exclude."""
    asked = json.dumps((request.session, sorted(set(request.exclude)))).encode()
    return hashlib.blake2b(user_version + asked, digest_size=16).digest()


def context_class(context: Mapping[str, str]) -> dict[str, str]:
    """The context that lists are kept by: the keys that the bundle knows, the local time by the hour.

    >>> context_class({"device": "tv", "local_time": "2026-11-24T18:30:15+01:00"})
    {'device': 'tv', 'local_time': '2026-11-24T18'}
    """
    return {key: value[:_HOUR] if key == LOCAL_TIME else value for key, value in context.items()}
