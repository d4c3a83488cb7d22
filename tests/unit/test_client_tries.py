"""What the Python client tries again, and for how long, against a gateway's real routes."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from gateway_process import Backend, listening
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.client import (
    AsyncClient,
    Client,
    ConflictError,
    Event,
    InvalidRequestError,
    LateError,
    OverloadedError,
    Retries,
    ServerError,
)
from tastemaker.client.errors import AnswerError, answer_error
from tastemaker.client.retries import Attempts
from tastemaker.errors import TastemakerError
from tastemaker_services.web.problems import Problem

QUICK = Retries(timeout_seconds=10, attempt_seconds=5, first_wait_seconds=0.001, longest_wait_seconds=0.001)


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture
def url(backend: Backend) -> Iterator[str]:
    with listening(backend) as address:
        yield address


def not_ready(retry_after: str | None = None) -> Problem:
    headers = None if retry_after is None else {"retry-after": retry_after}
    return Problem(503, "not-ready", "no bundle is ready yet", headers=headers)


def test_what_is_down_for_a_moment_is_asked_again(backend: Backend, url: str) -> None:
    backend.refusals = [not_ready(), Problem(429, "too-many", "too much is under way")]
    with Client(url, retries=QUICK) as client:
        assert client.recommend("u").request_id == "r1"
    assert len(backend.asked) == 3


def test_events_whose_answer_was_lost_count_once(backend: Backend, url: str) -> None:
    backend.refusals = [not_ready()]  # the backend has kept the events by then
    with Client(url, retries=QUICK) as client:
        sent = client.send_events([Event("u", "i1", "click"), Event("u", "i2", "click")])
    assert (sent.accepted, sent.duplicate) == (0, 2)
    assert len(backend.events) == 2


@pytest.mark.parametrize(
    ("problem", "error"),
    [
        (Problem(422, "invalid-request", "k is 0", field="k"), InvalidRequestError),
        (Problem(410, "cursor-over", "the cursor is over"), ConflictError),
        (Problem(500, "fault", "a fault of ours"), ServerError),
    ],
)
def test_what_another_try_does_not_mend_is_asked_once(
    backend: Backend, url: str, problem: Problem, error: type[AnswerError]
) -> None:
    backend.refusals = [problem]
    with Client(url, retries=QUICK) as client, pytest.raises(error, match=problem.detail) as caught:
        client.recommend("u")
    assert (caught.value.status, caught.value.kind, caught.value.num_attempts) == (
        problem.status,
        problem.kind,
        1,
    )
    assert len(backend.asked) == 1


def test_a_wait_that_the_time_does_not_hold_is_not_begun(backend: Backend, url: str) -> None:
    backend.refusals = [Problem(429, "too-many", "too much", headers={"retry-after": "3600"})]
    began = time.monotonic()
    with Client(url) as client, pytest.raises(OverloadedError, match="429") as caught:
        client.recommend("u", timeout_seconds=30)
    assert caught.value.retry_after_seconds == 3600
    assert time.monotonic() - began < 20


def test_a_call_that_takes_too_long_ends(backend: Backend, url: str) -> None:
    backend.delay_seconds = 3
    with Client(url) as client, pytest.raises(LateError, match="in time"):
        client.recommend("u", timeout_seconds=0.3)

    async def ask() -> None:
        async with AsyncClient(url) as client:
            await client.recommend("u", timeout_seconds=0.3)

    with pytest.raises(LateError, match="in time"):
        asyncio.run(ask())


def test_an_answer_that_trickles_is_late_too() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def trickle() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
                try:
                    for _ in range(600):
                        connection.sendall(b"x")
                        time.sleep(0.05)
                except OSError:
                    return

        threading.Thread(target=trickle, daemon=True).start()
        retries = Retries(timeout_seconds=0.5, max_attempts=1)
        with (
            Client(f"http://127.0.0.1:{server.getsockname()[1]}", retries=retries) as client,
            pytest.raises(LateError, match="in time"),
        ):
            client.recommend("u")


@given(
    st.lists(st.sampled_from([429, 502, 503, 504]), min_size=1, max_size=12),
    st.floats(0.1, 10),
    st.floats(0, 1),
    st.one_of(st.none(), st.floats(0, 20)),
)
def test_tries_and_waits_stay_within_the_time(
    statuses: list[int], timeout: float, luck: float, retry_after: float | None
) -> None:
    now, tries = 0.0, 0
    retries = Retries(timeout_seconds=timeout, max_attempts=5)
    attempts = Attempts(retries, clock=lambda: now, luck=lambda low, high: low + luck * (high - low))

    def call() -> None:
        nonlocal now, tries
        for status in [*statuses, 500]:
            seconds = attempts.begin()
            tries += 1
            assert 0 < seconds <= min(timeout - now, retries.attempt_seconds)
            now += seconds * luck
            error = answer_error(status, b"", None if retry_after is None else str(int(retry_after)))
            wait = attempts.wait_seconds(error)
            assert wait >= int(retry_after or 0)
            now += wait
            assert now < timeout

    with pytest.raises(TastemakerError, match=r"reason|time"):
        call()
    assert tries <= 5
