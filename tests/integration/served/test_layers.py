"""Experiments of two layers, made over the admin API: what visitors get, what a tester gets, and what the log keeps."""

from typing import Any

import httpx
import pyarrow.compute as pc
import pytest
from ray_noise import RAY_NOISE
from served_graph import Running, logged
from waiting import until

from tastemaker.events.archive import read_days
from tastemaker.experiments.decision_log import DECISION_SCHEMA, decisions_in, logged_assignments
from tastemaker.experiments.hashing import bucket
from tastemaker.experiments.layers import slot_of

pytestmark = [pytest.mark.slow, *RAY_NOISE]
EVEN = {"kind": "fixed", "weights": [0.5, 0.5]}
BUNDLES: dict[str, Any] = {
    "name": "bundles", "hypothesis": "h", "salt": "s", "allocation": EVEN, "unit": "visitor", "traffic": 0.8,
    "variants": [{"name": "a", "alias": "champion"}, {"name": "b", "alias": "version:N"}],
}  # fmt: skip
SHORT: dict[str, Any] = {
    "name": "short", "hypothesis": "h", "salt": "s", "allocation": EVEN, "layer": "order",
    "variants": [{"name": "a", "alias": "champion"}, {"name": "b", "alias": "champion", "policy": {"until": "retrieve"}}],
}  # fmt: skip


def test_two_layers_and_a_tester(running: Running) -> None:
    with httpx.Client(base_url=running.serving.admin_url, trust_env=False) as admin:

        def post(path: str, **body: Any) -> httpx.Response:
            return admin.post(f"/admin/v1/experiments{path}", json=body)

        live = running.registry.aliases(running.settings.catalogue)
        numbers = {"a": live["champion"].number, "b": live["challenger"].number}
        by_number = [BUNDLES["variants"][0], {"name": "b", "alias": f"version:{numbers['b']}"}]
        for definition in (BUNDLES | {"variants": by_number}, SHORT):
            assert post("", definition=definition, start=True).status_code == 201
        missing = SHORT | {
            "name": "x",
            "layer": "l",
            "variants": [SHORT["variants"][0], {"name": "b", "alias": "none"}],
        }
        refused = post("", definition=missing, start=True)
        assert (refused.status_code, "must be one of: challenger, champion" in refused.text) == (409, True)
        until(
            lambda: len(running.recommend("u", visitor_id="v1")["assignments"]) > 0, "the router's snapshot"
        )
        answers = {n: running.recommend(f"user {n}", visitor_id=f"v{n}", session=["é/3"]) for n in range(30)}
        for n, answer in answers.items():
            expected = {"short": "a" if bucket("s", "short", f"user {n}") < 0.5 else "b"}
            if slot_of("default", f"v{n}") < 8000:
                expected["bundles"] = "a" if bucket("s", "bundles", f"v{n}") < 0.5 else "b"
            assert {one["experiment"]: one["variant"] for one in answer["assignments"]} == expected
            assert answer["variant"] == (expected.get("bundles") or expected["short"])
            assert answer["bundle_version"] == numbers[expected.get("bundles", "a")]
            assert ("rank" in answer["timings_ms"]) == (expected["short"] == "a")
        asked = {"user_id": "user 0", "visitor_id": "v0"}
        forced = running.client.post(
            "/v1/recommendations", json=asked, headers={"x-tastemaker-variant": "bundles=b"}
        ).json()
        assert (forced["experiment"], forced["bundle_version"]) == ("bundles", numbers["b"])
        assert [one["forced"] for one in forced["assignments"]] == [True]
        wrong = running.client.post(
            "/v1/recommendations", json=asked, headers={"x-tastemaker-variant": "bundles=z"}
        )
        assert (wrong.status_code, wrong.json()["field"]) == (422, "x-tastemaker-variant")
        until(lambda: logged(running, forced["request_id"]), "the log")
        of_these = pc.field("request_id").isin(
            [forced["request_id"], *(a["request_id"] for a in answers.values())]
        )
        folder = running.home / "decisions" / running.settings.catalogue
        until(
            lambda: read_days(folder, DECISION_SCHEMA, "decision_id", of_these).num_rows == 31, "all records"
        )
        for record in decisions_in(read_days(folder, DECISION_SCHEMA, "decision_id", of_these)):
            if record.request_id == forced["request_id"]:
                assert (record.experiment, list(record.forced_variants)) == (None, ["bundles=b"])
                assert logged_assignments(record) == []
                continue
            told = answers[int(record.user_id.removeprefix("user "))]["assignments"]
            kept = logged_assignments(record)
            assert [(one["layer"], one["variant"]) for one in kept] == [
                (one["layer"], one["variant"]) for one in told
            ]
            units = {"default": f"v{record.user_id.removeprefix('user ')}", "order": record.user_id}
            assert [one["unit"] for one in kept] == [units[one["layer"]] for one in told]
        for name in ("bundles", "short"):
            assert post(f"/{name}/stop", reason="seen").json()["experiment"]["state"] == "stopped"
        until(lambda: running.recommend("u", visitor_id="v1")["assignments"] == [], "the end")
