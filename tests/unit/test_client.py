"""The Python client against a gateway's real routes: what it asks, what it tries again and what it never does."""

import asyncio
import hashlib
import inspect
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, get_args

import httpx
import pytest
from gateway_process import Backend, listening
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.client import (
    AsyncClient,
    Client,
    Event,
    Explanation,
    InvalidRequestError,
    ListExplanation,
    NotFoundError,
    Retries,
    ScoreContributions,
    UnauthorizedError,
    UnreachableError,
    UnreadableAnswerError,
)
from tastemaker.client.errors import answer_error
from tastemaker.client.questions import batches
from tastemaker.config_serving import ApiKey, GatewaySettings
from tastemaker.errors import ConfigError
from tastemaker.events.schema import Event as GatewayEvent

KEY = "k" * 40
KEYS = (ApiKey(sha256=hashlib.sha256(KEY.encode()).hexdigest(), scopes=("read", "ingest")),)
QUICK = Retries(timeout_seconds=10, attempt_seconds=5, first_wait_seconds=0.001, longest_wait_seconds=0.001)


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture
def url(backend: Backend) -> Iterator[str]:
    with listening(backend) as address:
        yield address


def test_a_list_and_the_events_that_answer_it(backend: Backend, url: str) -> None:
    with Client(url) as client:
        answer = client.recommend(
            "ü/1", 3, session=("a", "b"), context={"device": "tv"}, filters={"tags": ["x"]}
        )
        assert (answer.request_id, answer.items[0].item_id, answer.degraded) == ("r1", "i1", [])
        request = backend.asked[0]
        assert (request.user_id, request.k, request.session) == ("ü/1", 3, ("a", "b"))
        assert (request.context, request.filters.tags) == ({"device": "tv"}, ("x",))
        sent = client.send_events([Event("ü/1", "i1", "click", request_id=answer.request_id, position=0)])
        assert (sent.accepted, sent.duplicate, sent.rejected) == (1, 0, 0)
    (event,) = backend.events.values()
    assert (event.user_id, event.kind, event.position, event.origin) == ("ü/1", "click", 0, "live")
    assert abs(event.timestamp_ms - time.time() * 1000) < 60_000


def test_both_clients_have_the_same_methods_and_give_the_same_answers(backend: Backend, url: str) -> None:
    def face(kind: type) -> dict[str, inspect.Signature]:
        return {
            name: inspect.signature(method)
            for name, method in vars(kind).items()
            if inspect.isfunction(method) and not name.startswith("_")
        }

    assert face(Client) == face(AsyncClient)

    async def ask() -> list[Any]:
        async with AsyncClient(url) as client:
            return [
                await client.recommend("old"),
                await client.send_events([Event("u", "i", "view", event_id="once")]),
                await client.send_events([Event("u", "i", "view", event_id="once")]),
                await client.user("old"),
                await client.erasure("receipt-1"),
            ]

    listed, first, second, user, erasure = asyncio.run(ask())
    assert (listed.request_id, first.accepted, second.duplicate) == ("r1", 1, 1)
    assert (user.history, erasure.state) == (["i1"], "under way")  # type: ignore[attr-defined]


def test_a_refusal_names_the_field_and_every_fault(url: str) -> None:
    with Client(url) as client, pytest.raises(InvalidRequestError, match="user_id is") as caught:
        client.recommend("", 0, deadline_ms=-1.0)
    assert caught.value.field == "user_id"
    assert set(caught.value.faults) == {"user_id", "k", "deadline_ms"}
    with Client(url) as client, pytest.raises(NotFoundError, match="nothing is kept"):
        client.user("stranger")


def test_nobody_there_is_said_so() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with (
            Client(address, retries=QUICK) as client,
            pytest.raises(UnreachableError, match=r"127\.0\.0\.1") as caught,
        ):
            client.recommend("u")
    assert caught.value.num_attempts == QUICK.max_attempts


def test_somebody_else_there_is_said_so() -> None:
    page = httpx.MockTransport(lambda request: httpx.Response(200, text="<html>hello</html>"))
    with (
        Client("http://there", transport=page) as client,
        pytest.raises(UnreadableAnswerError, match="<html>"),
    ):
        client.recommend("u")


def test_the_key_goes_with_each_call_and_shows_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(Backend(), GatewaySettings(keys=KEYS)) as url:
        with Client(url) as client, pytest.raises(UnauthorizedError, match="API key"):
            client.recommend("u")
        monkeypatch.setenv("TASTEMAKER_API_KEY", KEY)
        with Client(url) as client:
            assert client.recommend("u").request_id == "r1"
            with pytest.raises(UnauthorizedError, match="scope catalogue") as caught:
                client.delete_item("i")
            assert KEY not in repr(client) + repr(vars(client)) + repr(caught.value) + str(caught.value)
    with pytest.raises(ConfigError, match="printable ASCII") as refused:
        Client("http://there", api_key="secret\nx")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["", "there", "ftp://there", "http://", "http://me:word@there", "http://there/?a=b"]
)
def test_an_address_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match="address") as caught:
        Client(url)
    assert "word" not in str(caught.value)


def test_what_json_cannot_hold_is_refused_before_it_is_sent(backend: Backend, url: str) -> None:
    with Client(url) as client:
        with pytest.raises(InvalidRequestError, match="cannot be sent"):
            client.recommend("\ud800")
        with pytest.raises(InvalidRequestError, match="cannot be sent"):
            client.put_items([{"item_id": "a", "price": float("nan")}])
    assert backend.asked == []


def test_many_rows_go_in_batches_and_come_back_as_one_answer(backend: Backend, url: str) -> None:
    rows = [{"item_id": f"i{n}"} for n in range(4)] + [{"item_id": "x", "price": -1}]
    with Client(url, max_batch=2) as client:
        taken = client.put_items(rows)
        assert (taken.accepted, taken.rejected) == (4, 1)
        assert [(row.position, row.item_id) for row in taken.rejections] == [(4, "x")]
        assert client.put_items([]).accepted == 0
        assert client.put_users([{"user_id": "u", "personalise": False}]).accepted == 1
        assert client.delete_item("i0").deleted == 1
        assert client.merge_users("a", "b").into_user_id == "b"
        assert client.erase_user("u").receipt == "receipt-1"
    assert len(backend.items) == 4


@given(st.lists(st.integers(0, 300)), st.integers(1, 7), st.integers(100, 2000))
def test_batches_keep_all_rows_in_order_within_their_bounds(
    sizes: list[int], most: int, most_bytes: int
) -> None:
    rows = [{"item_id": "x" * size} for size in sizes]
    parts = list(batches(rows, most, most_bytes))
    assert [row for part in parts for row in part] == rows
    for part in parts:
        assert 1 <= len(part) <= most
        body = sum(len(str(row["item_id"])) for row in part)
        assert len(part) == 1 or body <= most_bytes


def test_an_error_survives_another_process() -> None:
    error = answer_error(
        422, b'{"detail": "k is 0", "field": "k", "errors": [{"field": "k", "detail": "k is 0"}]}', "7"
    )
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


@given(st.integers(100, 599), st.binary(max_size=60))
def test_any_refusal_is_an_error_of_the_tree(status: int, body: bytes) -> None:
    error = answer_error(status, body)
    assert (error.status, str(error)[:4]) == (status, f"{status}:")


def test_an_event_has_the_gateways_fields() -> None:
    assert set(Event.model_fields) == set(GatewayEvent.model_fields)
    event = Event("u", "i", "watch", value=3.5, position=2, request_id="r", context={"device": "tv"})
    row = event.model_dump(exclude_none=True)
    assert GatewayEvent.model_validate(row).model_dump(exclude={"origin"}) == event.model_dump(
        exclude={"origin"}
    )


def test_the_client_needs_httpx_and_pydantic_alone() -> None:
    heavy = {"numpy", "scipy", "pandas", "pyarrow", "torch", "yaml", "redis", "ray", "fastapi"}
    code = f"import sys, tastemaker.client; print(sorted({heavy!r} & set(sys.modules)))"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "[]"


def test_what_an_explanation_holds_can_be_named() -> None:
    fields = Explanation.model_fields
    assert get_args(fields["lists"].annotation) == (ListExplanation,)
    assert ScoreContributions in get_args(fields["contributions"].annotation)
