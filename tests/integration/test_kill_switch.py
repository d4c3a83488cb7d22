"""The kill switch on a real Valkey: set by the command line or the admin listener, followed by gateways, ended by itself."""

import asyncio
import hashlib
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge
from redis.asyncio import Redis as AsyncRedis
from waiting import eventually

from tastemaker import cli, telemetry
from tastemaker.config_serving import ApiKey, GatewaySettings
from tastemaker.errors import StateError, UsageError
from tastemaker.state.connection import connect, connect_async
from tastemaker.state.forced import RUNGS, Forced, force, read_forced, release
from tastemaker_services.admin.ladder import LadderAdmin, standing
from tastemaker_services.admin.listener import create_admin
from tastemaker_services.gateway.forcing import KillSwitch
from tastemaker_services.web.access import Access

ADMIN_KEY = "the key of those who run it"
NOBODY = "redis://127.0.0.1:1"


def following(url: str, state: Any, action: Callable[[KillSwitch], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        client: AsyncRedis = connect_async(url)
        try:
            return await action(KillSwitch(client, state.keys))
        finally:
            await client.aclose()

    return asyncio.run(run())


def test_every_rung_of_the_metrics_that_can_be_forced_is_bounded() -> None:
    assert set(RUNGS) <= telemetry.RUNGS


def test_a_forced_rung_is_kept_as_it_was_given_until_released(state: Any) -> None:
    assert read_forced(state.client, state.keys) is None
    forced = Forced.of("trending")
    force(state.client, state.keys, forced)
    assert read_forced(state.client, state.keys) == forced
    assert forced.holds(forced.since_ms + 10**12)
    assert release(state.client, state.keys)
    assert not release(state.client, state.keys)
    assert read_forced(state.client, state.keys) is None


def test_a_rung_that_is_forced_for_a_time_ends_by_itself_in_the_store_and_in_the_gateway(state: Any) -> None:
    forced = Forced.of("cached", seconds=90)
    assert forced.until_ms - forced.since_ms == 90_000
    assert forced.holds(forced.until_ms - 1)
    assert not forced.holds(forced.until_ms)
    force(state.client, state.keys, forced)
    assert 80_000 < state.client.pttl(state.keys.forced_rung) <= 90_000


def test_gateways_follow_and_let_a_timed_rung_end_while_valkey_is_away(state: Any) -> None:
    async def action(switch: KillSwitch) -> None:
        await switch.start()
        try:
            force(state.client, state.keys, Forced.of("popular"))
            await eventually(lambda: switch.rung() == "popular", "the forced rung")
            assert telemetry.FORCED.labels(state.keys.catalogue, "popular")._value.get() == 1
            force(state.client, state.keys, Forced.of("no-rerank", seconds=1))
            await eventually(lambda: switch.rung() == "no-rerank", "the timed rung")
            await eventually(lambda: switch.rung() is None, "the timed rung to end")
        finally:
            await switch.stop()

    following(state.url, state, action)


def test_what_was_last_read_holds_without_valkey(state: Any) -> None:
    now_ms = time.time_ns() // 1_000_000

    async def action(switch: KillSwitch) -> None:
        switch._forced = Forced("trending", now_ms)  # read before Valkey went away
        with pytest.raises(StateError, match="cannot read the forced rung"):
            await switch.read()
        assert switch.rung() == "trending"
        switch._forced = Forced("trending", now_ms - 2000, now_ms - 1)
        assert switch.rung() is None

    following(NOBODY, state, action)


@pytest.mark.parametrize("text", ["no JSON", "[]", '{"rung": "sideways", "since_ms": 1}', '{"colour": 1}'])
def test_something_else_under_the_key_is_said_and_forces_nothing(state: Any, text: str) -> None:
    state.client.set(state.keys.forced_rung, text)
    with pytest.raises(StateError, match="does not hold a forced rung"):
        read_forced(state.client, state.keys)


def test_a_rung_or_time_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match=r"rung, is 'sideways', must be one of no-rerank, .*popular"):
        Forced.of("sideways")
    with pytest.raises(UsageError, match="time of a forced rung, is 0, must be 1 to"):
        Forced.of("popular", 0)


@pytest.mark.usefixtures("command_line")
def test_the_command_line_forces_shows_and_releases(state: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.invoke(["ladder", "show", "--json"])["forced"] is None
    told = cli.invoke(["ladder", "force", "trending", "--for", "10m", "--json"])
    assert told["forced"]["rung"] == "trending"
    assert told["forced"]["until_ms"] - told["forced"]["since_ms"] == 600_000
    assert read_forced(state.client, state.keys) == Forced(**told["forced"])
    capsys.readouterr()
    cli.invoke(["ladder", "show"])
    assert f"catalogue {state.keys.catalogue}: trending since " in capsys.readouterr().out
    cli.invoke(["ladder", "release"])
    assert "no rung is forced" in capsys.readouterr().out
    assert read_forced(state.client, state.keys) is None
    with pytest.raises(UsageError, match="--for, is 'soon', must be a number with s, m, h or d"):
        cli.invoke(["ladder", "force", "trending", "--for", "soon"])


def admin(
    state: Any, tmp_path: Path, *calls: tuple[str, Any], url: str | None = None
) -> list[httpx.Response]:
    """The admin listener's answers to (method, body), asked with the right key."""
    key = ApiKey(sha256=hashlib.sha256(ADMIN_KEY.encode()).hexdigest(), scopes=("admin",))
    settings = GatewaySettings(keys=(key,))
    app = create_admin(settings, tmp_path)
    registry = CollectorRegistry()
    labels = {"catalogue": state.keys.catalogue}
    for name, extra, value in (("breaker_state", {"part": "rank"}, 2), ("in_flight", {"kind": "all"}, 3)):
        gauge = Gauge(f"tastemaker_gateway_{name}", "-", [*labels, *extra], registry=registry)
        gauge.labels(**labels, **extra).set(value)
    shed = Counter("tastemaker_gateway_shed", "-", ["catalogue", "priority", "rung"], registry=registry)
    shed.labels(**labels, priority="batch", rung="refused").inc(5)
    shed.labels(catalogue="another", priority="batch", rung="cached").inc()
    client = connect(url or state.url)
    LadderAdmin(client, state.keys, Access(settings.keys), registry.collect).add_to(app)

    async def run() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        headers = {"authorization": f"Bearer {ADMIN_KEY}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://admin", headers=headers) as http:
            return [await http.request(method, "/admin/v1/ladder", **body) for method, body in calls]

    try:
        return asyncio.run(run())
    finally:
        client.close()


def test_the_admin_listener_shows_and_sets_all_of_it(state: Any, tmp_path: Path) -> None:
    shown, put, wrong, long, released, stranger = admin(
        state, tmp_path,
        ("GET", {}),
        ("PUT", {"json": {"rung": "retrieval-order", "seconds": 60}}),
        ("PUT", {"json": {"rung": "sideways"}}),
        ("PUT", {"json": {"rung": "popular", "seconds": 1e9}}),
        ("DELETE", {}),
        ("GET", {"headers": {"authorization": "Bearer nobody's"}}),
    )  # fmt: skip
    assert shown.json() == {
        "forced": None, "breakers": {"rank": "open"}, "opened": {}, "in_flight": {"all": 3}, "limit": 0.0,
        "rungs_used": {}, "shed": {"batch": {"refused": 5}},
    }  # fmt: skip
    assert put.json()["forced"]["rung"] == "retrieval-order"
    assert (wrong.status_code, wrong.json()["field"]) == (422, "rung")
    assert (long.status_code, long.json()["field"]) == (422, "seconds")
    assert (released.status_code, released.json()["forced"]) == (200, None)
    assert stranger.status_code == 401
    assert read_forced(state.client, state.keys) is None


def test_the_breakers_are_shown_while_valkey_is_away_and_setting_says_that_it_cannot(
    state: Any, tmp_path: Path
) -> None:
    shown, put = admin(state, tmp_path, ("GET", {}), ("PUT", {"json": {"rung": "popular"}}), url=NOBODY)
    assert shown.status_code == 200
    assert shown.json()["breakers"] == {"rank": "open"}
    assert "cannot read the forced rung" in shown.json()["forced_unknown"]
    assert (put.status_code, put.headers["retry-after"]) == (503, "1")


def test_the_standing_reads_the_gateways_own_metrics() -> None:
    metrics = (telemetry.BREAKER_STATE, telemetry.RUNGS_USED, telemetry.SHED, telemetry.LOAD_LIMIT)
    telemetry.BREAKER_STATE.labels("standing", "history").set(1)
    telemetry.RUNGS_USED.labels("standing", "cached").inc(2)
    telemetry.SHED.labels("standing", "interactive", "no-rerank").inc()
    telemetry.LOAD_LIMIT.labels("standing").set(17.25)
    found = standing([metric for one in metrics for metric in one.collect()], "standing")
    assert json.loads(json.dumps(found)) == {
        "breakers": {"history": "half-open"}, "opened": {}, "in_flight": {}, "limit": 17.2,
        "rungs_used": {"cached": 2}, "shed": {"interactive": {"no-rerank": 1}},
    }  # fmt: skip
