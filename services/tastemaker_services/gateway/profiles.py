"""What the gateway does with users beside answering them: keeps profiles, shows what is kept, notes merges."""

import time
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis as AsyncRedis

from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.users.merges import request_merge_async, roots_async
from tastemaker.users.profile import ProfileRow
from tastemaker.users.profiles import put_profiles
from tastemaker_services.gateway.users import read_user
from tastemaker_services.web.problems import Problem


class Profiles:
    """One gateway's users. For one event loop.

    Args:
        client: Of the role `state.url`, with text for replies.
        bytes_client: The same with bytes.
        cache: Of the role `state.cache_url`.
        keys: Of the catalogue.
    """

    def __init__(self, client: AsyncRedis, bytes_client: AsyncRedis, cache: AsyncRedis, keys: Keys) -> None:
        self._client, self._bytes_client, self._cache, self._keys = client, bytes_client, cache, keys

    async def put(self, rows: Sequence[ProfileRow]) -> None:
        """Keeps profiles, each of the user that its id is by now; lists of users who opt out are gone on return.

        Raises:
            StateError: Not all is on disk, or lists could not be deleted; the same again does no harm.
        """
        roots = await roots_async(self._client, self._keys, [row.user_id for row in rows])
        now_ms = time.time_ns() // 1_000_000
        ours = [row.model_copy(update={"user_id": user}) for row, user in zip(rows, roots, strict=True)]
        await put_profiles(self._client, self._keys, ours, now_ms)
        out = [pair for pair in zip(rows, roots, strict=True) if pair[0].personalise is False]
        await self._drop_lists({user_id for row, user in out for user_id in (row.user_id, user)})

    async def get(self, user_id: str) -> dict[str, Any] | None:
        """What is kept of a user, JSON-able; None where nothing is.

        Raises:
            StateError: It cannot be read.
        """
        (root,) = await roots_async(self._client, self._keys, [user_id])
        user = await read_user(self._bytes_client, self._keys, root)
        profile = user.profile.as_dict()
        if user.is_new and not user.record and not profile["updated_ms"]:
            return None
        found: dict[str, Any] = {"user_id": user_id, "profile": profile, "history": user.history}
        if root != user_id:
            found["merged_into"] = root
        if user.state is not None:
            found |= {"refused": user.state.refused(), "last_event_ms": user.state.last_ms}
        return found

    async def merge(self, from_user: str, into_user: str) -> dict[str, str]:
        """Notes that two users are one; says who they are then.

        Raises:
            Problem: 409 where the first was merged into another user already.
            StateError: It could not be noted.
        """
        mine, others = await roots_async(self._client, self._keys, [from_user, into_user])
        if mine == others:
            return {"into_user_id": others, "state": "one already"}
        if mine != from_user:
            raise Problem(
                409, "merged-already",
                f"from_user_id {from_user[:60]!r} was merged into another user: merge that one",
                field="from_user_id",
            )  # fmt: skip
        await request_merge_async(self._client, self._keys, from_user, others)
        return {"into_user_id": others, "state": "noted"}

    async def _drop_lists(self, user_ids: set[str]) -> None:
        with state_errors("delete lists"):
            pipe: Any = self._cache.pipeline(transaction=False)
            for user_id in user_ids:
                pipe.delete(
                    self._keys.cached_lists(user_id),
                    self._keys.paged_lists(user_id),
                    self._keys.stored_list(user_id),
                )
            await pipe.execute()
