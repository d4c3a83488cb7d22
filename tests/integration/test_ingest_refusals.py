"""What a client is told where events have no room, on a real Valkey."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from intakes import events, logged, use
from valkey_process import ValkeyProcess
from waiting import eventually

from tastemaker.config_serving import GatewaySettings
from tastemaker.errors import StateError
from tastemaker.home import Home
from tastemaker_services.gateway.intake import Intake
from tastemaker_services.routes.api import create_api


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.make(tmp_path / "home")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyProcess]:
    with ValkeyProcess(tmp_path / "valkey") as running:
        yield running


class Backend:
    """Only events."""

    def __init__(self, intake: Intake) -> None:
        self.append = intake.append


def test_a_full_spool_is_503_with_retry_after_and_nothing_is_half_accepted(
    tmp_path: Path, home: Home
) -> None:
    server = ValkeyProcess(tmp_path / "valkey")

    async def post_until_full(intake: Intake) -> tuple[list[str], httpx.Response]:
        api: Any = create_api(Backend(intake), GatewaySettings(), "shop")  # type: ignore[arg-type]
        accepted: list[str] = []
        async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://gateway") as client:
            for start in range(0, 10_000, 100):
                rows = [event.model_dump(exclude_none=True) for event in events(start, 100)]
                response = await client.post("/v1/events", json={"events": rows})
                if response.status_code != 202:
                    return accepted, response
                body = response.json()
                assert (body["accepted"], body["spooled"], body["duplicate"]) == (100, 100, 0)
                accepted += [row["event_id"] for row in rows]
        raise AssertionError("it never filled")

    accepted, refused = use(server.url, home, post_until_full, spool_bytes=2**16)
    assert 100 <= len(accepted) <= 1000  # of about 120 bytes on 64 KiB
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["content-type"] == "application/problem+json"
    assert "the spool is full" in refused.json()["detail"]

    async def empty(intake: Intake) -> None:
        await eventually(lambda: intake._spool.is_empty, "the spool to be emptied")

    with server:
        use(server.url, home, empty, spool_bytes=2**16)
        assert sorted(logged(server.url)) == sorted(accepted)


def test_neither_log_nor_disk_means_no_202(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async def append(intake: Intake) -> None:
        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(StateError, match="cannot write to the spool: No space left on device"):
            await intake.append(events(0, 1))

    use("redis://127.0.0.1:1", home, append)
