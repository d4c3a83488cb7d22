"""`GET /admin/v1/experiments/{name}/report`, on a real Valkey."""

import asyncio
import hashlib
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from experiment_log import START_MS, decision, event, experiment

from tastemaker.config_serving import ApiKey, GatewaySettings
from tastemaker.events.archive import event_table, write_days
from tastemaker.experiments.decision_log import decision_table
from tastemaker.experiments.definition import Guardrail, Interleaving
from tastemaker.experiments.holdout import Holdout, HoldoutStore
from tastemaker.experiments.reporting.interleaved import InterleavingReport
from tastemaker.experiments.reporting.report import ExperimentReport
from tastemaker.experiments.store import ExperimentStore
from tastemaker_services.admin.experiment_report import ReportAdmin
from tastemaker_services.admin.listener import create_admin
from tastemaker_services.web.access import Access

KEY = "k" * 40
AGO_MS = time.time_ns() // 1_000_000 - START_MS - 60_000  # a minute ago
PATH = "/admin/v1/experiments/exp/report"


def get(state: Any, folder: Path, path: str, key: str = KEY) -> httpx.Response:
    keys = (
        ApiKey(sha256=hashlib.sha256(KEY.encode()).hexdigest(), scopes=("admin",)),
        ApiKey(sha256=hashlib.sha256(b"reader").hexdigest(), scopes=("read",)),
    )
    settings = GatewaySettings(keys=keys)
    app = create_admin(settings, folder)
    ReportAdmin(state.client, state.keys, state.home, Access(settings.keys)).add_to(app)

    async def run() -> httpx.Response:
        transport, headers = httpx.ASGITransport(app), {"authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://admin", headers=headers) as http:
            return await http.get(path)

    return asyncio.run(run())


@pytest.fixture
def traffic(state: Any) -> None:
    ExperimentStore(state.client, state.keys).create(experiment())
    decisions = [decision(f"r{n}", f"u{n}", "ab"[n % 2], AGO_MS + n) for n in range(200)]
    write_days(state.home / "decisions" / state.settings.catalogue, decision_table(decisions))
    events = [event(f"r{n}", "x", AGO_MS + n + 5) for n in range(0, 200, 3)]
    write_days(state.home / "events" / state.settings.catalogue, event_table(events))


@pytest.mark.usefixtures("traffic")
def test_the_report_is_told_as_json_and_as_a_page(state: Any, tmp_path: Path) -> None:
    answer = get(state, tmp_path, f"{PATH}?metric=rewarded_requests&level=0.9")
    assert answer.status_code == 200
    found = ExperimentReport.model_validate_json(answer.content)
    assert (found.experiment, found.metric, found.level, found.units) == (
        "exp",
        "rewarded_requests",
        0.9,
        200,
    )
    assert [one.clicks for one in found.variants] == [34, 33]
    page = get(state, tmp_path, f"{PATH}?format=html")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "<h1>Experiment exp</h1>" in page.text
    assert found.stop is None
    ExperimentStore(state.client, state.keys).stop("exp", actor="guardrail", reason="clicks fell")
    stopped = ExperimentReport.model_validate_json(get(state, tmp_path, PATH).content)
    assert stopped.stop is not None
    assert (stopped.state, stopped.stop.actor, stopped.stop.reason) == ("stopped", "guardrail", "clicks fell")


@pytest.mark.usefixtures("traffic")
@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        (f"{PATH}?metric=happiness", 422, "metric, is 'happiness'"),
        (f"{PATH}?level=2", 422, "level is '2'"),
        (f"{PATH}?level=much", 422, "level is 'much'"),
        (f"{PATH}?format=pdf", 422, "format is 'pdf'"),
        ("/admin/v1/experiments/other/report", 404, "no experiment other"),
    ],
)
def test_what_is_wrong_is_told(state: Any, tmp_path: Path, path: str, status: int, said: str) -> None:
    answer = get(state, tmp_path, path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert said in answer.json()["detail"]


def test_before_any_traffic_there_is_no_report(state: Any, tmp_path: Path) -> None:
    ExperimentStore(state.client, state.keys).create(experiment())
    answer = get(state, tmp_path, PATH)
    assert answer.status_code == 409
    assert "no decision whose window has closed" in answer.json()["detail"]


@pytest.mark.usefixtures("traffic")
@pytest.mark.parametrize("query", ["", "?metric=rewarded_requests"])
@pytest.mark.parametrize(("changed", "word"), [("metric", "metric"), ("guardrails", "guardrail")])
def test_a_kept_metric_that_is_gone_is_no_fault_of_the_request(
    state: Any, tmp_path: Path, query: str, changed: str, word: str
) -> None:
    """As of an experiment that another release kept: what the request names is judged by, where that says all."""
    gone = {"metric": "joy", "guardrails": (Guardrail(metric="joy", margin=0.1),)}
    kept = experiment(**{changed: gone[changed]})
    state.client.hset(state.keys.experiments, "exp", kept.model_dump_json())
    answer = get(state, tmp_path, PATH + query)
    if query and changed == "metric":
        assert answer.status_code == 200
    else:
        told = answer.json()
        assert (answer.status_code, told.get("field")) == (409, None), told
        assert f"{word}, is 'joy'" in told["detail"]


@pytest.mark.usefixtures("traffic")
def test_only_admins_may(state: Any, tmp_path: Path) -> None:
    assert get(state, tmp_path, PATH, key="reader").status_code == 403


def test_an_interleaving_and_the_holdout_have_reports_of_their_own(state: Any, tmp_path: Path) -> None:
    store = ExperimentStore(state.client, state.keys)
    store.create(experiment(allocation=Interleaving()))
    hours_ago = AGO_MS - 7_200_000  # the window of a holdout is half an hour
    fields = {"propensities": (1.0,), "slot_team": [0, 1]}
    decisions = [decision(f"r{n}", f"u{n}", "interleaved", hours_ago + n, **fields) for n in range(200)]
    write_days(state.home / "decisions" / state.settings.catalogue, decision_table(decisions))
    events = [event(f"r{n}", "y", hours_ago + n + 5) for n in range(0, 200, 3)]
    write_days(state.home / "events" / state.settings.catalogue, event_table(events))
    found = InterleavingReport.model_validate_json(get(state, tmp_path, PATH).content)
    assert [(team.name, team.wins) for team in found.teams] == [("a", 0), ("b", 67)]
    assert "<h1>Interleaving exp</h1>" in get(state, tmp_path, f"{PATH}?format=html").text
    told = get(state, tmp_path, f"{PATH}?metric=latency_ms").json()
    assert (told["status"], told["field"]) == (422, "metric")
    assert "metric of an interleaving, is 'latency_ms'" in told["detail"]

    path = "/admin/v1/holdout/report?origin=simulator"
    refused = get(state, tmp_path, path)
    assert (refused.status_code, refused.json()["type"].rsplit(":")[-1]) == (409, "no-report")
    client = state.client
    client.set(state.keys.holdout, Holdout(share=0.5).model_dump_json())
    held = ExperimentReport.model_validate_json(get(state, tmp_path, path).content)
    assert [variant.name for variant in held.variants] == ["holdout", "everyone-else"]
    assert held.units == 200
    assert get(state, tmp_path, "/admin/v1/holdout/report?origin=replay").status_code == 422
    assert "<h1>Experiment holdout</h1>" in get(state, tmp_path, f"{path}&format=html").text


def test_who_changed_the_holdout_begins_its_count_anew(state: Any) -> None:
    store = HoldoutStore(state.client, state.keys)
    assert store.since_ms() == 0
    store.put(Holdout(share=0.1))
    first = store.since_ms()
    assert abs(first - time.time_ns() // 1_000_000) < 60_000
    store.put(Holdout(share=0.1))
    assert store.since_ms() == first
