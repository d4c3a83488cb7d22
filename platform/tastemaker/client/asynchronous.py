"""The client for asyncio. `synchronous` is the same for threads: a method of one is a method of the other."""

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, Unpack

import httpx

import tastemaker.client.answers as said
import tastemaker.client.questions as calls
from tastemaker.client.connection import Connection, body_headers, checked, network_error
from tastemaker.client.errors import ClientError, LateError
from tastemaker.client.questions import AnswerT, Call, Event
from tastemaker.client.retries import Attempts, Retries


class AsyncClient:
    """Asks one gateway, for one event loop; close it, or use it as a context.

    Every method raises a `ClientError` where there is no answer, tries again within `timeout_seconds` as `Retries` says, and
    sends nothing twice that would count twice.

    Args:
        url: Of the gateway, such as http://127.0.0.1:8700.
        api_key: None takes the environment's TASTEMAKER_API_KEY; a gateway on loopback may need none.
        retries: Times, and how often to try.
        max_connections: Held at once; further calls wait for one.
        max_batch: Most rows in one request; more are sent one batch after the other.
        transport: Stands in for the network.

    Raises:
        ConfigError: The address or the key cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        retries: Retries | None = None,
        max_connections: int = 20,
        max_batch: int = calls.MAX_BATCH,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._connection = Connection(url, api_key, max_connections)
        self._retries, self._max_batch = retries or Retries(), max_batch
        self._http = httpx.AsyncClient(
            headers=self._connection.headers, limits=self._connection.limits, transport=transport
        )

    def __repr__(self) -> str:
        return f"AsyncClient({self._connection.url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Gives the connections back."""
        await self._http.aclose()

    async def recommend(
        self,
        user_id: str,
        k: int | None = None,
        *,
        timeout_seconds: float | None = None,
        **options: Unpack[calls.RecommendOptions],
    ) -> said.Recommendations:
        """The best items for a user; `k` of them, else the gateway's default."""
        return await self._ask(calls.recommend(user_id, k, options), timeout_seconds)

    async def similar(
        self,
        item_id: str,
        k: int | None = None,
        *,
        timeout_seconds: float | None = None,
        **options: Unpack[calls.RuleOptions],
    ) -> said.Recommendations:
        """The items most like one."""
        return await self._ask(calls.similar(item_id, k, options), timeout_seconds)

    async def search(
        self,
        text: str,
        k: int | None = None,
        *,
        timeout_seconds: float | None = None,
        **options: Unpack[calls.SearchOptions],
    ) -> said.Recommendations:
        """The items that fit a text best."""
        return await self._ask(calls.search(text, k, options), timeout_seconds)

    async def explain(
        self,
        user_id: str,
        item_id: str,
        k: int | None = None,
        *,
        timeout_seconds: float | None = None,
        **options: Unpack[calls.RecommendOptions],
    ) -> said.Explanation:
        """Why an item is in a user's list, or why it is not."""
        return await self._ask(calls.explain(user_id, item_id, k, options), timeout_seconds)

    async def send_events(
        self, events: Sequence[Event], *, timeout_seconds: float | None = None
    ) -> said.EventsTaken:
        """Sends events, in batches of which each has the whole time. After an error send all of them again."""
        parts = list(calls.batches(events, self._max_batch))
        taken = [await self._ask(calls.send_events(part), timeout_seconds) for part in parts]
        return calls.together(taken, [len(part) for part in parts], calls.NO_EVENTS)

    async def put_items(
        self, items: Sequence[Mapping[str, Any]], *, timeout_seconds: float | None = None
    ) -> said.ItemsTaken:
        """Puts items into the catalogue, new ones and anew, in batches of which each has the whole time."""
        parts = list(calls.batches(items, self._max_batch))
        taken = [await self._ask(calls.put_items(part), timeout_seconds) for part in parts]
        return calls.together(taken, [len(part) for part in parts], calls.NO_ITEMS)

    async def delete_item(self, item_id: str, *, timeout_seconds: float | None = None) -> said.ItemDeleted:
        """Takes an item out of all said."""
        return await self._ask(calls.delete_item(item_id), timeout_seconds)

    async def put_users(
        self, users: Sequence[Mapping[str, Any]], *, timeout_seconds: float | None = None
    ) -> said.UsersTaken:
        """Keeps what rows say of users, in batches of which each has the whole time."""
        parts = list(calls.batches(users, self._max_batch))
        taken = [await self._ask(calls.put_users(part), timeout_seconds) for part in parts]
        return calls.together(taken, [len(part) for part in parts], calls.NO_USERS)

    async def user(self, user_id: str, *, timeout_seconds: float | None = None) -> said.UserKept:
        """What is kept of a user; NotFoundError where nothing is."""
        return await self._ask(calls.user(user_id), timeout_seconds)

    async def merge_users(
        self, from_user_id: str, into_user_id: str, *, timeout_seconds: float | None = None
    ) -> said.UsersMerged:
        """Makes two users one, such as a visitor and who logged in."""
        return await self._ask(calls.merge_users(from_user_id, into_user_id), timeout_seconds)

    async def erase_user(self, user_id: str, *, timeout_seconds: float | None = None) -> said.ErasureNoted:
        """Has a user erased; look at the receipt later."""
        return await self._ask(calls.erase_user(user_id), timeout_seconds)

    async def erasure(self, receipt: str, *, timeout_seconds: float | None = None) -> said.Erasure:
        """How far an erasure is."""
        return await self._ask(calls.erasure(receipt), timeout_seconds)

    async def _ask(self, call: Call[AnswerT], timeout_seconds: float | None) -> AnswerT:
        content = call.content()
        attempts = Attempts(self._retries, timeout_seconds)
        while True:
            seconds = attempts.begin()
            try:
                return call.read(await self._try(call, content, seconds))
            except ClientError as error:
                wait_seconds = attempts.wait_seconds(error)
            await asyncio.sleep(wait_seconds)

    async def _try(self, call: Call[AnswerT], content: bytes | None, seconds: float) -> bytes:
        try:
            async with asyncio.timeout(seconds):
                response = await self._http.request(
                    call.method, self._connection.url + call.path, params=call.query or None, content=content,
                    headers=body_headers(content), timeout=seconds,
                )  # fmt: skip
        except TimeoutError as error:
            raise LateError("the answer was not whole in time", mend="give it more time") from error
        except httpx.HTTPError as error:
            raise network_error(error, self._connection.url) from error
        return checked(response, response.content)
