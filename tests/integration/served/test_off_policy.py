"""Versions judged from served answers whose lists were drawn: by `tastemaker ope`, and by the gate of `tastemaker promote`."""

from functools import partial
from typing import Any

import httpx
import numpy as np
import pyarrow.compute as pc
import pytest
from ray_noise import RAY_NOISE
from served_graph import NUM_ITEMS, Running, ids, now_ms, write_bundle
from waiting import until

from tastemaker import cli, context
from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.events.archive import EVENT_SCHEMA, read_days
from tastemaker.experiments.decision_log import DECISION_SCHEMA
from tastemaker.promotion import promoter as promoter_module
from tastemaker.promotion.gate import Case, GateResult
from tastemaker.promotion.promoter import Promoter, PromotionOrder
from tastemaker.stages.pipeline import Pipeline
from tastemaker.types import Query

pytestmark = [pytest.mark.slow, *RAY_NOISE]
NUM_REQUESTS, NUM_SESSIONS, HOUR_MS = 700, 12, 3_600_000
CLICK_MS, WINDOW_MINUTES = 500, 0.1  # how long after its answer a click comes, and how long it counts
DRAWN = {"reranking": {"sampling": {"share": 1.0, "temperature": 0.5}, "keep_top": 0}}
LUCK: dict[str, Any] = {
    "name": "luck", "hypothesis": "drawn lists cost little", "salt": "s", "layer": "luck",
    "allocation": {"kind": "fixed", "weights": [0.5, 0.5]},
    "variants": [{"name": name, "alias": "champion", "policy": DRAWN} for name in ("drawn", "too")],
}  # fmt: skip


class Judged:
    """Two versions near the champion, and a log of visits whose first item they see otherwise: it is clicked where the better one shows it."""

    def __init__(self, running: Running) -> None:
        self.running, self.store = running, BundleStore.of(running.settings, running.home)
        self.better, self.first = self._published(0.3)
        self.worse, other = self._published(-0.3)
        self.rows = [row for row in range(NUM_ITEMS) if self.first[row] != other[row]][:NUM_SESSIONS]

    def _published(self, moved: float) -> tuple[int, list[str]]:
        """A version's number, and its first item for each session."""
        ref = write_bundle(self.store, self.running.settings.catalogue, 0, moved)
        pipeline = Pipeline.from_bundle(Bundle.open(self.store, ref))
        queries = [
            Query(np.array([row], np.int32), k=3, visit_L=np.array([row], np.int32))
            for row in range(NUM_ITEMS)
        ]
        first = [f"é/{answer.item_index[0]}" for answer in pipeline.recommend(queries)]
        return self.running.registry.publish(self.running.settings.catalogue, ref, {}).number, first

    def visit(self) -> None:
        events, requests = list[dict[str, Any]](), list[str]()
        for n in range(NUM_REQUESTS):
            row = self.rows[n % NUM_SESSIONS]
            answer = self.running.recommend(f"judge {n}", k=3, session=[f"é/{row}"])
            first, request_id = ids(answer)[0], answer["request_id"]
            requests.append(request_id)
            if first == self.first[row]:
                events.append(
                    {
                        "event_id": f"click of {request_id}", "user_id": f"judge {n}", "item_id": first, "kind": "click",
                        "timestamp_ms": now_ms() + CLICK_MS, "request_id": request_id,
                    }
                )  # fmt: skip
        until(lambda: now_ms() > events[-1]["timestamp_ms"], "the last click")
        response = self.running.client.post("/v1/events", json={"events": events})
        assert response.status_code == 202, response.text
        self._wait("decisions", DECISION_SCHEMA, "decision_id", requests, len(requests))
        self._wait("events", EVENT_SCHEMA, "event_id", requests, len(events))
        closed_ms = now_ms() + round(WINDOW_MINUTES * 60_000)
        until(lambda: now_ms() > closed_ms, "the last window")

    def _wait(self, kind: str, schema: Any, identity: str, requests: list[str], num: int) -> None:
        """Until the log has what belongs to the requests."""
        folder = self.running.home / kind / self.running.settings.catalogue
        mine = pc.field("request_id").isin(requests)
        until(lambda: read_days(folder, schema, identity, mine).num_rows == num, f"{num} {kind}")

    def gate(self, number: int) -> GateResult:
        """What the gate of off-policy says in a promotion that moves nothing."""
        settings, home = self.running.settings, self.running.home
        promoter = Promoter(settings, home, self.running.registry, self.store)
        order = PromotionOrder(number, actor="ann", reason="judged", again=True, dry_run=True)
        return next(one for one in promoter.promote(order).gates if one.name == "off-policy")


@pytest.fixture(scope="module")
def judged(running: Running) -> Judged:
    found = Judged(running)
    with httpx.Client(base_url=running.serving.admin_url, trust_env=False) as admin:
        started = admin.post("/admin/v1/experiments", json={"definition": LUCK, "start": True})
        assert started.status_code == 201, started.text
        until(lambda: running.recommend("u", k=3)["experiment"] == "luck", "the router's snapshot")
        found.visit()
        assert admin.post("/admin/v1/experiments/luck/stop", json={"reason": "seen"}).status_code == 200
    until(lambda: running.recommend("u", k=3)["experiment"] != "luck", "the router's snapshot")
    return found


@pytest.mark.parametrize(("belief", "depth"), [("reward-interaction", 1), ("item-position", 3)])
def test_what_was_served_tells_which_version_is_better(
    judged: Judged, monkeypatch: pytest.MonkeyPatch, belief: str, depth: int
) -> None:
    """The better one's first item is always clicked, the other's never, and nothing is further down."""
    monkeypatch.setattr(context, "_settings", judged.running.settings)
    values = {}
    for number in (judged.better, judged.worse):
        asked = ["ope", "--version", str(number), "--depth", str(depth), "--belief", belief, "--json"]
        (one,) = cli.invoke([*asked, "--window-minutes", str(WINDOW_MINUTES), "--least-effective", "20"])
        values[number] = one["estimates"][0]
        assert one["rows"] > 0.9 * NUM_REQUESTS  # a busy machine gives some fallbacks
        assert 0.5 < one["support"]["mean_weight"] < 1.6
        same, looked = (int(word) for word in one["notes"][0].split()[:3:2])
        assert same == looked > 100
    better, worse = values[judged.better], values[judged.worse]
    assert better["value"]["value"] == pytest.approx(1, abs=0.25)  # 7 standard errors
    assert worse["value"]["value"] == pytest.approx(0, abs=0.25)
    assert worse["difference"]["high"] < 0 < better["difference"]["low"]


def test_the_gate_passes_what_would_have_earned_more_and_refuses_what_would_not(
    judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An hour later every window has closed.
    monkeypatch.setattr(promoter_module, "Case", partial(Case, now_ms=now_ms() + HOUR_MS))
    better, worse = judged.gate(judged.better), judged.gate(judged.worse)
    assert (better.outcome, worse.outcome) == ("passed", "refused"), (better.reason, worse.reason)
    assert better.numbers["effective_lists"] >= 100
    assert "clicks_per_request of the first slot " in better.reason
    assert worse.numbers["high"] < 0 < better.numbers["low"]
