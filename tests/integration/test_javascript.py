"""The JavaScript module against a gateway's real routes: what was seen and clicked arrives, with position and request."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from gateway_process import Backend, listening

from tastemaker.config_serving import ApiKey, GatewaySettings
from tastemaker_services.web.problems import Problem

ROOT = Path(__file__).resolve().parents[2]
KEY = "i" * 40
KEYS = (ApiKey(sha256=hashlib.sha256(KEY.encode()).hexdigest(), scopes=("ingest",)),)
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed")


def visit(url: str, key: str = KEY) -> list[str]:
    """What the page's onError was told."""
    module = ROOT / "clients" / "javascript" / "tastemaker.js"
    page = [str(NODE), str(ROOT / "tests" / "support" / "page.mjs"), str(module), url, key]
    seen = subprocess.run(page, capture_output=True, text=True, check=True, timeout=120)
    told: list[str] = json.loads(seen.stdout.strip().splitlines()[-1])
    return told


def test_what_was_seen_and_clicked_arrives_once_with_position_and_request() -> None:
    backend = Backend()
    with listening(backend, GatewaySettings(keys=KEYS)) as url:
        told = visit(url)
    sent = {(event.kind, event.item_id): event for event in backend.events.values()}
    assert set(sent) == {("impression", "a"), ("click", "c"), ("purchase", "c")}
    assert len(backend.events) == 3
    assert (sent["impression", "a"].position, sent["click", "c"].position) == (0, 7)
    assert sent["purchase", "c"].value == 9.5
    for event in backend.events.values():
        assert (event.user_id, event.request_id, event.context) == ("u7", "r1", {"device": "tv"})
    (rejected,) = told
    assert "glance" in rejected


def test_a_key_that_is_none_is_told_and_nothing_is_sent_again() -> None:
    backend = Backend()
    with listening(backend, GatewaySettings(keys=KEYS)) as url:
        (told,) = visit(url, "wrong")
    assert "401" in told
    assert "API key" in told
    assert backend.events == {}


def test_a_batch_whose_answer_was_lost_counts_once() -> None:
    backend = Backend()
    backend.refusals = [Problem(503, "not-accepted", "the log is away")]
    with listening(backend, GatewaySettings(keys=KEYS)) as url:
        visit(url)
    assert len(backend.asked) == 2
    assert len(backend.events) == 3
