"""Pictures of dashboards: what is asked of Prometheus for them, and what is installed to draw them."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from helm.dashboards.asking import Prometheus, first_choices, resolved
from helm.dashboards.shots.__main__ import shot
from helm.dashboards.shots.visitors import Visitors, click_rate

from tastemaker.events.schema import parse_events

ROOT = Path(__file__).parents[2]
SHOTS = ROOT / "helm/dashboards/shots"
DASHBOARDS = sorted((ROOT / "helm/tastemaker/dashboards").glob("*.json"))
VALUES = {"experiment": ["later", "earlier"], "variant": ["b"], "metric": ["clicks_per_impression"]}


class Answers(BaseHTTPRequestHandler):
    """Prometheus' way to answer: one series to any query, and values of known labels."""

    asked: list[tuple[str, dict[str, list[str]]]]

    def do_GET(self) -> None:
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        self.asked.append((path, query))
        label = re.fullmatch(r"/api/v1/label/(\w+)/values", path)
        data: Any = VALUES[label[1]] if label else {"result": [self.series(path, query)]}
        body = json.dumps({"status": "success", "data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def series(self, path: str, query: dict[str, list[str]]) -> dict[str, Any]:
        if path == "/api/v1/query":
            return {"metric": {}, "value": [float(query["time"][0]), "1"]}
        return {"metric": {}, "values": [[float(query["start"][0]), "1"]]}

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def prometheus() -> Iterator[Prometheus]:
    Answers.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Prometheus(f"http://127.0.0.1:{server.server_port}", start=1000.0, end=1900.0)
    server.shutdown()
    thread.join()
    server.server_close()


def load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / f"helm/tastemaker/dashboards/{name}.json").read_text())
    return found


def test_variables_stand_as_a_reader_finds_them(prometheus: Prometheus) -> None:
    chosen = first_choices(load("experiments"), prometheus, {})
    assert chosen == {
        "namespace": ".*", "catalogue": ".*",
        "experiment": "earlier", "variant": "b", "metric": "clicks_per_impression",  # the first by name
    }  # fmt: skip
    matches = [query["match[]"][0] for path, query in Answers.asked if path.endswith("/variant/values")]
    assert ['experiment=~"earlier"' in match for match in matches] == [True]
    assert first_choices(load("experiments"), prometheus, {"experiment": "later"})["experiment"] == "later"


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_target_is_asked_with_all_variables_in_place(path: Path, prometheus: Prometheus) -> None:
    dashboard = json.loads(path.read_text())
    found = shot(dashboard, prometheus, {})
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            answers = found["answers"][panel["id"]]
            kinds = ["value" if target["instant"] else "values" for target in panel["targets"]]
            assert [next(iter(answer[0].keys() - {"metric"})) for answer in answers] == kinds
    queries = [query["query"][0] for _, query in Answers.asked if "query" in query]
    assert not [query for query in queries if "$" in query]
    assert len(found["annotations"]) == len(dashboard["annotations"]["list"])


def test_a_longer_name_is_not_taken_for_a_shorter_one() -> None:
    assert resolved('a{b=~"$alias",c=~"$alias_of"}', {"alias": "x", "alias_of": "y"}) == 'a{b=~"x",c=~"y"}'


def test_visitors_click_by_score_and_place_and_variant() -> None:
    visitors = Visitors("http://127.0.0.1:1", 1.0, {"worse": 0.5})
    items = [{"item_id": f"i{place}", "score": score} for place, score in enumerate((0.5, 0.4, -1.0, 7.0))]
    assert [click_rate(item["score"], place) for place, item in enumerate(items)] == pytest.approx(
        [0.5, 0.4 * 0.85, 0, 0.85**3]
    )
    for variant, liking in (("better", 1.0), ("worse", 0.5)):
        answer = {"request_id": "r", "items": items, "assignments": [{"variant": variant}]}
        rows = [row for _ in range(2000) for row in visitors.events("u", answer)]
        events, rejected = parse_events(rows, now_ms=2**62)
        assert not rejected
        assert {event.origin for event in events} == {"simulator"}
        clicks = [event.position for event in events if event.kind == "click"]
        for place, item in enumerate(items):  # 2,000 draws: the standard error is at most .012
            rate = click_rate(item["score"], place) * liking
            assert clicks.count(place) / 2000 == pytest.approx(rate, abs=0.05)
        assert sum(event.kind == "impression" for event in events) == 8000


def test_packages_are_held_by_hash_and_name_no_registry() -> None:
    lock = json.loads((SHOTS / "package-lock.json").read_text())
    wanted = json.loads((SHOTS / "package.json").read_text())["dependencies"]
    assert lock["packages"][""]["dependencies"] == wanted
    packages = {name: one for name, one in lock["packages"].items() if name}
    assert all(one["integrity"].startswith("sha512-") for one in packages.values())
    assert not [name for name, one in packages.items() if "resolved" in one]
    assert all(re.fullmatch(r"(npm:@grafana/schema@)?\d+\.\d+\.\d+", version) for version in wanted.values())
