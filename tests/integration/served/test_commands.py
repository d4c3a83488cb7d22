"""The command line, the Python client and the metrics of a running graph."""

import json
import time
from typing import Any

import httpx
import pytest
from ray_noise import RAY_NOISE
from served_graph import Running, ids, logged, now_ms
from waiting import until

from tastemaker import cli, context
from tastemaker.client import Client, Event, NotFoundError, Retries

pytestmark = RAY_NOISE


def test_metrics_are_the_sum_over_processes_and_the_api_is_documented(running: Running) -> None:
    admin = running.serving.admin_url
    running.recommend("known")

    def metrics() -> dict[str, float]:
        text = httpx.get(f"{admin}/metrics", trust_env=False).text
        rows = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in rows}

    requests = 'tastemaker_gateway_requests_total{catalogue="default",outcome="ok",route="recommendations"}'
    assert metrics()[requests] >= 1
    assert all(name.startswith("tastemaker_") for name in metrics())
    logged = 'tastemaker_gateway_decisions_total{catalogue="default",outcome="logged"}'
    until(lambda: metrics().get(logged, 0) >= 1, "a logged decision")
    assert "/openapi.json" in httpx.get(f"{admin}/docs", trust_env=False).text
    assert "/v1/events" in httpx.get(f"{admin}/openapi.json", trust_env=False).json()["paths"]
    assert running.client.get("/docs").status_code == 404
    assert running.client.get("/metrics").status_code == 404


def test_the_command_line_asks_the_running_gateway(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    before = context.settings()
    context.use(running.settings)
    try:
        returned = cli.invoke(["recommend", "known", "--k", "3", "--session", "é/11", "--json"])
    finally:
        context.use(before)
    answer = json.loads(capsys.readouterr().out)
    assert answer == returned
    assert ids(answer) == running.offline(answer["bundle"], [5, 7, 9, 11], k=3, visit=[11])


def test_the_python_client_reads_every_answer(running: Running) -> None:
    with Client(running.serving.url, retries=Retries(timeout_seconds=30, attempt_seconds=20)) as client:
        answer = client.recommend("caller", k=3, context={"device": "tv"}, explain=True)
        assert [item.rank for item in answer.items] == [1, 2, 3]
        assert answer.items[0].ranks
        assert client.explain("caller", answer.items[0].item_id, k=3).item_id == answer.items[0].item_id
        assert len(client.similar("é/3", k=4).items) == 4
        assert client.search("Title 7", k=2).items
        event = Event("caller", "é/3", "like", request_id=answer.request_id, position=0)
        assert client.send_events([event]).accepted == 1
        assert client.send_events([event]).duplicate == 1
        assert client.put_users([{"user_id": "caller", "demographics": {"age": 30}}]).accepted == 1
        kept = until(lambda: (found := client.user("caller")).history and found, "the like")  # type: ignore[attr-defined]
        assert (kept.history, kept.profile["demographics"]["age"]) == (["é/3"], 30)
        assert client.merge_users("guest", "caller").into_user_id == "caller"
        assert client.delete_item("of nobody").deleted == 0
        assert client.put_items([{"item_id": "of a client"}]).accepted == 1
        assert client.delete_item("of a client").deleted == 1

        def is_followed() -> bool:
            try:
                return "deleted" in client.explain("caller", "of a client").rules
            except NotFoundError:
                return False

        until(is_followed, "the gateway to know of the deletion")
        receipt = client.erase_user("caller").receipt
        until(lambda: client.erasure(receipt).state == "done", "the erasure")
        with pytest.raises(NotFoundError, match="caller"):
            client.user("caller")


def test_a_logged_answer_is_replayed_by_the_command(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    events = [
        {"event_id": f"re{n}", "user_id": "replayed", "item_id": f"é/{n}", "kind": "click", "timestamp_ms": now_ms()}
        for n in (3, 9, 30)
    ]  # fmt: skip
    running.client.post("/v1/events", json={"events": events})
    until(lambda: len(running.recommend("replayed", k=50, origin="simulator")["items"]) == 50, "the clicks")
    asked: dict[str, Any] = {"k": 8, "session": ["é/12"], "filters": {"categories": ["Drama", "Noir"]}}

    def replayed() -> dict[str, Any] | None:
        answer = running.recommend("replayed", **asked)
        before = context.settings()
        context.use(running.settings)
        try:
            until(lambda: logged(running, answer["request_id"]), "the archive")
            returned: dict[str, Any] = cli.invoke(["replay", answer["request_id"], "--json"])
        finally:
            context.use(before)
        assert [slot["replayed"] for slot in returned["slots"]] == ids(answer)
        return returned

    report = replayed()
    assert report is not None
    assert json.loads(capsys.readouterr().out)["request_id"] == report["request_id"]
    assert (report["same"], report["notes"]) == (True, [])


def test_the_command_line_holds_all_answers_to_a_rung_and_shows_the_ladder(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    before = context.settings()
    context.use(running.settings)
    try:
        cli.invoke(["ladder", "force", "popular", "--for", "10m"])
        asked = time.monotonic()
        answer = until(
            lambda: (answer := running.recommend("known"))["forced"] == "popular" and answer, "the rung"
        )
        assert time.monotonic() - asked < 5  # the promise is a second; the machine may be busy
        assert (answer["degraded"], answer["cached"]) == (["popular"], False)
        shown = cli.invoke(["ladder", "show", "--json"])
        assert shown["forced"]["rung"] == "popular"
        assert set(shown["gateways"]["breakers"].values()) == {"closed"}
        assert shown["gateways"]["rungs_used"]["popular"] >= 1
        cli.invoke(["ladder", "release"])
        until(lambda: running.recommend("known")["degraded"] == [], "the whole graph again")
    finally:
        context.use(before)
    capsys.readouterr()
    by_hand = httpx.get(f"{running.serving.admin_url}/admin/v1/ladder", trust_env=False).json()
    assert by_hand["forced"] is None
