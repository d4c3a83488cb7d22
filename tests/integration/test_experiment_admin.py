"""`/admin/v1/experiments` and `/admin/v1/holdout`, on a real Valkey."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import httpx
import pytest

from tastemaker.config_serving import ApiKey, GatewaySettings
from tastemaker.state.connection import connect
from tastemaker.state.keys import Keys
from tastemaker_services.admin.experiments import HOLDOUT_PATH, PATH, ExperimentAdmin
from tastemaker_services.admin.listener import create_admin
from tastemaker_services.web.access import Access

KEY = "k" * 40
DIGEST = hashlib.sha256(KEY.encode()).hexdigest()
DEFINITION = {
    "name": "front", "hypothesis": "h", "salt": "s", "traffic": 0.2,
    "variants": [{"name": "a", "alias": "champion"}, {"name": "b", "alias": "challenger"}],
    "allocation": {"kind": "fixed", "weights": [0.5, 0.5]},
}  # fmt: skip


def call(
    state: Any, tmp_path: Path, *calls: tuple[str, str, Any], key: str = KEY, url: str | None = None
) -> list[httpx.Response]:
    """The answers to (method, path, JSON body or None) in turn."""
    keys = (
        ApiKey(sha256=DIGEST, scopes=("admin",)),
        ApiKey(sha256=hashlib.sha256(b"reader").hexdigest(), scopes=("read",)),
    )
    settings = GatewaySettings(keys=keys)
    app = create_admin(settings, tmp_path)
    client = connect(url or state.url)
    ExperimentAdmin(client, state.keys, Access(settings.keys)).add_to(app)

    async def run() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        headers = {"authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://admin", headers=headers) as http:
            return [
                await http.request(method, path, **({} if body is None else {"json": body}))
                for method, path, body in calls
            ]

    try:
        return asyncio.run(run())
    finally:
        client.close()


def test_an_experiment_lives_through_the_routes_and_all_of_it_is_recorded(state: Any, tmp_path: Path) -> None:
    one = f"{PATH}/front"
    created, started, ramped, edited, listed, stopped, history, shown = call(
        state, tmp_path,
        ("POST", PATH, {"definition": DEFINITION, "actor": "anna", "reason": "new ranker"}),
        ("POST", f"{one}/start", {"reason": "go"}),
        ("POST", f"{one}/ramp", {"traffic": 0.5}),
        ("PUT", one, {"definition": DEFINITION | {"traffic": 0.5, "hypothesis": "better"}}),
        ("GET", PATH, None),
        ("POST", f"{one}/stop", {"reason": "done"}),
        ("GET", f"{one}/history", None),
        ("GET", one, None),
    )  # fmt: skip
    assert [r.status_code for r in (created, started, ramped, edited, stopped)] == [201, 200, 200, 200, 200]
    assert created.json()["experiment"]["state"] == "draft"
    assert (created.json()["open"], created.json()["traffic_now"]) == (False, 0.0)
    assert (ramped.json()["open"], ramped.json()["traffic_now"]) == (True, 0.5)
    assert [e["hypothesis"] for e in listed.json()["experiments"]] == ["better"]
    changes = history.json()["changes"]
    key = f"key {DIGEST[:8]}"
    assert [(c["action"], c["actor"], c["reason"]) for c in changes] == [
        ("create", f"anna ({key})", "new ranker"), ("start", key, "go"), ("ramp", key, ""), ("edit", key, ""),
        ("stop", key, "done"),
    ]  # fmt: skip
    assert (shown.json()["experiment"]["state"], shown.json()["experiment"]["version"]) == ("stopped", 5)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field", "words"),
    [
        ("POST", "", {"definition": DEFINITION | {"allocation": {"kind": "fixed", "weights": [0.5, 0.6]}}}, 422, "definition", "add up to 1.1"),
        ("POST", "", {"definition": DEFINITION | {"colour": 1}}, 422, "definition", "unknown key colour"),
        ("POST", "", {"definition": DEFINITION, "starts": True}, 422, "starts", "starts is unknown"),
        ("POST", "", {"definition": DEFINITION | {"name": "two", "metric": "joy"}}, 422, "definition", "metric, is 'joy'"),
        ("POST", "", {"definition": DEFINITION | {"name": "two", "traffic": 0.9}, "start": True}, 409, None, "at most 0.8"),
        ("POST", "", {"definition": DEFINITION}, 409, None, "experiment front exists"),
        ("PUT", "/front", {"definition": DEFINITION | {"salt": "t"}}, 409, None, "salt decides who takes part"),
        ("PUT", "/front", {"definition": DEFINITION | {"name": "other"}}, 422, "definition.name", "must be 'front'"),
        ("POST", "/front/ramp", {}, 422, "traffic", "traffic and weights are missing"),
        ("POST", "/front/ramp", {"traffic": 1.5}, 422, "definition", "traffic"),
        ("POST", "/front/ramp", {"weights": [0.5, 0.6]}, 422, "definition", "add up to 1.1"),
        ("PUT", "/front", {"definition": DEFINITION | {"guardrails": [{"metric": "coverage"}]}}, 422, "definition", "a metric that each unit has a value of"),
        ("PUT", "/front", {"definition": DEFINITION, "version": 7}, 422, "version", "version is unknown"),
        ("PUT", "/front", {"definition": DEFINITION | {"version": 7}}, 409, None, "it was changed meanwhile"),
        ("POST", "/front/ramp", {"traffic": 0.1}, 409, None, "traffic falls from 0.2 to 0.1"),
        ("POST", "/front/start", {}, 409, None, "runs already"),
        ("POST", "/nobody/stop", {}, 404, "name", "no experiment nobody, must be one of: front"),
        ("GET", "/nobody/history", None, 404, "name", "no experiment nobody"),
        ("DELETE", "/front", None, 409, None, "experiment front has assigned units"),
        ("POST", "/front/stop", None, 415, "content-type", "must be application/json"),
    ],
)  # fmt: skip
def test_what_is_refused_says_why_and_changes_nothing(
    state: Any, tmp_path: Path, method: str, path: str, body: Any, status: int, field: str | None, words: str
) -> None:
    first = ("POST", PATH, {"definition": DEFINITION, "start": True})
    began, refused, after = call(state, tmp_path, first, (method, PATH + path, body), ("GET", PATH, None))
    problem = refused.json()
    assert (refused.status_code, problem.get("field")) == (status, field), problem
    assert refused.headers["content-type"] == "application/problem+json"
    assert words in problem["detail"]
    assert after.json()["experiments"] == [began.json()["experiment"]]


def test_the_listener_tells_programs_of_its_own_routes_too(state: Any, tmp_path: Path) -> None:
    """Whatever the refusals above answered stands in the document, and so does each body."""
    (answer,) = call(state, tmp_path, ("GET", "/openapi.json", None))
    paths, one = answer.json()["paths"], PATH + "/{name}"
    assert "/v1/recommendations" in paths
    assert {*paths[PATH]["post"]["responses"]} == {
        "201", "400", "401", "403", "408", "409", "413", "415", "422", "503",
    }  # fmt: skip
    for path, method in (
        (one, "put"),
        (one + "/start", "post"),
        (one + "/stop", "post"),
        (one + "/ramp", "post"),
    ):
        assert {"404", "409", "415", "422"} <= {*paths[path][method]["responses"]}, path
    assert {"404", "409"} <= {*paths[one]["delete"]["responses"]}
    assert {*paths[one + "/history"]["get"]["responses"]} >= {"200", "404"}
    body = paths[one + "/ramp"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert {*body["properties"]} == {"actor", "reason", "traffic", "weights", "reassign"}
    refused = paths[PATH]["post"]["responses"]["422"]["content"]["application/problem+json"]["schema"]["$ref"]
    assert "detail" in answer.json()["components"]["schemas"][refused.rsplit("/")[-1]]["properties"]


def test_an_edit_that_is_asked_for_goes_through(state: Any, tmp_path: Path) -> None:
    uneven = DEFINITION | {"allocation": {"kind": "fixed", "weights": [0.9, 0.1]}}
    _, edited, ramped = call(
        state, tmp_path, ("POST", PATH, {"definition": DEFINITION, "start": True}),
        ("PUT", f"{PATH}/front", {"definition": uneven, "reassign": True}),
        ("POST", f"{PATH}/front/ramp", {"weights": [0.5, 0.5], "reassign": True}),
    )  # fmt: skip
    assert edited.json()["experiment"]["course"]["generation"] == 1
    assert ramped.json()["experiment"]["course"]["generation"] == 2


def test_only_an_admins_key_may(state: Any, tmp_path: Path) -> None:
    routes = [
        ("GET", PATH, None), ("POST", PATH, {}), ("PUT", f"{PATH}/x", {}), ("DELETE", f"{PATH}/x", None), ("GET", f"{PATH}/x", None),
        ("POST", f"{PATH}/x/start", {}), ("POST", f"{PATH}/x/stop", {}), ("POST", f"{PATH}/x/ramp", {}),
        ("GET", f"{PATH}/x/history", None), ("GET", HOLDOUT_PATH, None), ("PUT", HOLDOUT_PATH, {}),
    ]  # fmt: skip
    assert {r.status_code for r in call(state, tmp_path, *routes, key="reader")} == {403}
    assert {r.status_code for r in call(state, tmp_path, *routes, key="nobody")} == {401}


def test_the_holdout_is_shown_and_set(state: Any, tmp_path: Path) -> None:
    none, put, wrong = call(
        state, tmp_path, ("GET", HOLDOUT_PATH, None),
        ("PUT", HOLDOUT_PATH, {"share": 0.05, "reason": "a year's worth"}), ("PUT", HOLDOUT_PATH, {"share": 0.9}),
    )  # fmt: skip
    assert none.json() == {"holdout": {"share": 0.0, "salt": "holdout"}, "changes": []}
    assert put.json()["holdout"]["share"] == 0.05
    assert put.json()["changes"][0]["reason"] == "a year's worth"
    assert (wrong.status_code, "less than or equal to 0.5" in wrong.json()["detail"]) == (422, True)


def test_a_state_that_is_away_is_told(state: Any, tmp_path: Path) -> None:
    class Elsewhere:
        url, keys = "redis://127.0.0.1:1", Keys("c", 4)

    (answer,) = call(Elsewhere, tmp_path, ("GET", PATH, None))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
