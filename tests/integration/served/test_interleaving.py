"""An interleaving over the admin API on a served home: both bundles' picks in one list, clicks credited to teams, a report that says whose are preferred."""

from typing import Any

import httpx
import pyarrow.compute as pc
import pytest
from ray_noise import RAY_NOISE
from served_graph import Running
from waiting import until

from tastemaker.events.archive import read_days
from tastemaker.experiments.decision_log import DECISION_SCHEMA, Decision, decisions_in, logged_assignments

pytestmark = [pytest.mark.slow, *RAY_NOISE]
PATH = "/admin/v1/experiments"
DUEL: dict[str, Any] = {
    "name": "duel", "hypothesis": "the challenger's picks are clicked more", "salt": "s", "layer": "duel", "allocation": {"kind": "interleaving"},
    "variants": [{"name": "now", "alias": "champion"}, {"name": "then", "alias": "challenger", "policy": {"until": "rank"}}],
    "attribution_window_seconds": 5.0, "testers": {"qa": "then"},
}  # fmt: skip


def records(running: Running, request_ids: list[str]) -> list[tuple[int, Decision]]:
    """The records, each with when the log took it."""
    folder = running.home / "decisions" / running.settings.catalogue
    wanted = pc.field("request_id").isin(request_ids)
    table = read_days(folder, DECISION_SCHEMA, "decision_id", wanted)
    return list(zip(table["received_ms"].to_pylist(), decisions_in(table), strict=True))


def test_clicks_on_one_teams_picks_make_it_the_preferred_one(running: Running) -> None:
    with httpx.Client(base_url=running.serving.admin_url, trust_env=False, timeout=60) as admin:
        refused = admin.post(PATH, json={"definition": DUEL | {"metric": "latency_ms"}})
        assert (refused.status_code, "metric of an interleaving" in refused.text) == (422, True)
        assert admin.post(PATH, json={"definition": DUEL, "start": True}).status_code == 201
        until(lambda: running.recommend("first")["experiment"] == "duel", "the router's snapshot")
        answers = [running.recommend(f"user {n}", k=6) for n in range(60)]
        drawn = [one for one in answers if one["experiment"] == "duel"]
        assert len(drawn) > 40  # a machine that is busy lets some fall back, and counts those nowhere
        assert {one["variant"] for one in drawn} == {"interleaved"}
        assert all(one["degraded"][-1] == "not-interleaved" for one in answers if one not in drawn)
        tester = running.recommend("qa", k=6)
        assert (tester["variant"], tester["assignments"][0]["forced"]) == ("then", True)
        ids = [one["request_id"] for one in drawn]
        until(lambda: len(records(running, ids)) == len(ids), "all records")
        found = records(running, ids)
        for _, one in found:
            assert set(one.slot_team) <= {0, 1, -1}
            assert abs(list(one.slot_team).count(0) - list(one.slot_team).count(1)) <= 1
            assert len(one.slot_team) == len(one.item_ids) == 6
            assert [each["teams"] for each in logged_assignments(one)] == [["now", "then"]]
        clicks = [
            _click(one, item, received_ms)
            for received_ms, one in found
            for item, team in zip(one.item_ids, one.slot_team, strict=True)
            if team == 1
        ]
        running.client.post("/v1/events", json={"events": clicks}).raise_for_status()

        def report() -> Any:
            return admin.get(f"{PATH}/duel/report").json()

        until(
            lambda: report().get("requests", 0) >= len(ids) and report()["teams"][1]["earned"] >= len(clicks),
            "the report",
        )
        told = report()
        assert told["advice"]["verdict"] == "ship", told["advice"]
        assert told["teams"][0]["earned"] == 0
        assert told["teams"][1]["wins"] == sum(1 in one.slot_team for _, one in found)
        assert admin.post(f"{PATH}/duel/stop", json={"reason": "seen"}).status_code == 200
        until(lambda: running.recommend("first")["experiment"] is None, "the router's snapshot")


def test_a_kept_list_and_its_pages_keep_whose_picks_they_hold(running: Running) -> None:
    with httpx.Client(base_url=running.serving.admin_url, trust_env=False) as admin:
        assert (
            admin.post(PATH, json={"definition": DUEL | {"name": "pages"}, "start": True}).status_code == 201
        )
        until(lambda: running.recommend("first")["experiment"] == "pages", "the router's snapshot")
        try:
            until(
                lambda: running.recommend("reader", k=4, paged=True)["experiment"] == "pages", "a drawn list"
            )
            first = running.recommend("reader", k=4, paged=True)
            second = running.recommend("reader", k=4, cursor=first["next_cursor"])
            asked = [first["request_id"], second["request_id"]]
            until(lambda: len(records(running, asked)) == 2, "both records")
            for _, one in records(running, asked):
                assert len(one.slot_team) == len(one.item_ids) == 4
        finally:
            assert admin.post(f"{PATH}/pages/stop", json={"reason": "seen"}).status_code == 200
        until(lambda: running.recommend("first")["experiment"] is None, "the router's snapshot")


def _click(one: Decision, item_id: str, received_ms: int) -> dict[str, Any]:
    # Within the window by its client's clock, however long the test took to look at the records.
    moment = {"timestamp_ms": received_ms + 10, "request_id": one.request_id}
    return {
        "event_id": f"{one.request_id}-{item_id}",
        "user_id": one.user_id,
        "item_id": item_id,
        "kind": "click",
        **moment,
    }
