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
def test_only_admins_may(state: Any, tmp_path: Path) -> None:
    assert get(state, tmp_path, PATH, key="reader").status_code == 403
