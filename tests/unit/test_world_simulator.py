"""The simulator against a small real HTTP server, and the exact lift."""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tastemaker.data import simulator
from tastemaker.data.exact_lift import exact_lift
from tastemaker.data.importers import import_events, save_import
from tastemaker.data.simulator import GIVE_UP_AFTER, Served, Simulator, Trace
from tastemaker.data.world import Visitor
from tastemaker.data.world_process import WorldProcess
from tastemaker.errors import ServingError
from tastemaker.events.schema import parse_events
from tastemaker.home import Home
from tastemaker.runtime import free_port

GOOD, BAD = [f"i{n}" for n in range(10)], [f"i{n}" for n in range(40, 50)]


class Gateway(ThreadingHTTPServer):
    """Gives half of the visitors GOOD as variant A, the others BAD as variant B; keeps what it is told."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.events: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.status = 200
        self.reject = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path == "/v1/events":
            self.events += body["events"]
            return {"accepted": len(body["events"]), "rejected": self.reject}
        user = body["user_id"]
        self.asked[user].append(body)
        bad = int(user.rsplit("-", 1)[1]) % 2
        return {
            "request_id": f"{user}/{len(self.asked[user])}",
            "items": [{"item_id": item, "score": 0.0} for item in (BAD if bad else GOOD)],
            "experiment": "x",
            "variant": "AB"[bad],
            "bundle": "b1",
            "degraded": ["popular"] if bad else [],
            "timings_ms": {"retrieve": 1.0, "total": 2.0},
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Gateway

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.server.headers.append({key.lower(): value for key, value in self.headers.items()})
            content = json.dumps(self.server.answer(self.path, body)).encode()
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    server = Gateway()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorldProcess]:
    """Users of one taste: items 0 to 19, the lower ones more often; nobody has items 40 to 49 but one user."""
    folder = tmp_path_factory.mktemp("simulator")
    rows = ["user_id,item_id,timestamp"]
    rows += [f"u{user},i{(user * 7 + n) % (12 + user % 9)},{n}" for user in range(60) for n in range(12)]
    rows += [f"odd,i{n},{n}" for n in range(40, 50)]
    (folder / "events.csv").write_text("\n".join(rows) + "\n")
    home = Home.make(folder / "home")
    save_import(home, "default", import_events(folder / "events.csv", None, 10**9))
    with WorldProcess(home, "default", seed=1) as process:
        yield process


def test_every_request_is_made_in_order_and_marked(gateway: Gateway, world: WorldProcess) -> None:
    visitors = world.visitors(60, seed=2)
    trace = Simulator(gateway.url, world).run(visitors)
    assert {user: [body["session"] for body in asked] for user, asked in gateway.asked.items()} == {
        visitor.visitor_id: visitor.sessions for visitor in visitors
    }
    assert all(body["k"] == 10 for asked in gateway.asked.values() for body in asked)
    assert {headers["x-tastemaker-origin"] for headers in gateway.headers} == {"simulator"}
    served = {(one.visitor_id, one.request): one for one in trace.served}
    assert len(served) == sum(len(visitor.sessions) for visitor in visitors)
    assert all(one.slate == (GOOD if one.variant == "A" else BAD) for one in trace.served)


def test_events_are_valid_and_are_the_worlds_clicks(gateway: Gateway, world: WorldProcess) -> None:
    trace = Simulator(gateway.url, world).run(world.visitors(60, seed=3))
    parsed, rejected = parse_events(gateway.events, time.time_ns() // 1_000_000)
    assert rejected == []
    assert {event.origin for event in parsed} == {"simulator"}
    shown = {(e.request_id, e.position, e.item_id, e.user_id) for e in parsed if e.kind == "impression"}
    assert shown == {
        (one.request_id, position, item, one.visitor_id)
        for one in trace.served
        for position, item in enumerate(one.slate)
    }
    clicked = sorted((e.request_id or "", e.position or 0) for e in parsed if e.kind == "click")
    asked = [(one.visitor_id, one.slate, one.request) for one in trace.served]
    expected = zip(trace.served, world.click(asked), strict=True)
    assert clicked == sorted(
        (one.request_id, position) for one, positions in expected for position in positions
    )
    assert len(clicked) > 20
    assert trace.summary()["clicks"] == len(clicked)


def test_summary_counts_what_happened(gateway: Gateway, world: WorldProcess) -> None:
    visitors = world.visitors(20, seed=4)
    summary = Simulator(gateway.url, world).run(visitors).summary()
    requests = sum(len(visitor.sessions) for visitor in visitors)
    to_b = sum(len(visitor.sessions) for visitor in visitors[1::2])
    assert summary["visitors"] == 20
    assert (summary["requests"], summary["failed"], summary["shown"]) == (requests, 0, 10 * requests)
    assert summary["degraded"] == summary["variants"]["B"] == to_b
    assert summary["latencies_ms"]["total"] == [2.0] * requests
    assert len(summary["latencies_ms"]["client"]) == requests
    json.dumps(summary)


def test_an_exact_lift_is_the_ratio_of_expected_clicks(world: WorldProcess) -> None:
    visitors = world.visitors(4, seed=7)
    served = [
        Served(v.visitor_id, 0, v.sessions[0], slate, v.visitor_id, "x", variant, "b", [], {}, 1.0)
        for v, slate, variant in zip(visitors, [GOOD, BAD, GOOD[::-1], BAD], "ABAB", strict=True)
    ]
    trace = Trace(served, {}, {}, 4, 1.0)
    slates = {"A": GOOD, "B": BAD}

    def replay(variant: str, sessions: Sequence[Sequence[str]]) -> list[list[str]]:
        return [slates[variant] for _ in sessions]

    exact = exact_lift(trace, replay, world, {"A": "good", "B": "bad"})
    as_served = [GOOD, GOOD, GOOD[::-1], GOOD]  # A's own slates as they were, B's requests replayed
    rates = {
        "A": sum(world.expected([(v.visitor_id, s) for v, s in zip(visitors, as_served, strict=True)])) / 4,
        "B": sum(world.expected([(v.visitor_id, BAD) for v in visitors])) / 4,
    }
    assert exact.rates == pytest.approx(rates)
    assert exact.lift == pytest.approx(rates["B"] / rates["A"] - 1)
    assert exact.lift < -0.3
    assert (exact.parity, exact.num_checked) == (3 / 4, 4)  # the reversed slate is another one


def test_one_bundle_under_two_names_is_asked_once_and_has_no_lift(world: WorldProcess) -> None:
    visitors = world.visitors(3, seed=8)
    served = [
        Served(v.visitor_id, 0, v.sessions[0], GOOD, v.visitor_id, "x", variant, "b", degraded, {}, 1.0)
        for v, variant, degraded in zip(visitors, "ABA", ([], [], ["trending"]), strict=True)
    ]
    asked: list[int] = []

    def replay(variant: str, sessions: Sequence[Sequence[str]]) -> list[list[str]]:
        asked.append(len(sessions))
        return [GOOD for _ in sessions]

    exact = exact_lift(Trace(served, {}, {}, 3, 1.0), replay, world, {"A": "x", "B": "x"}, num_checked=1)
    assert exact.lift == 0
    assert asked == [2]  # the degraded one, and one to check
    assert exact.num_checked == 1


def test_no_trace_has_no_truth(world: WorldProcess) -> None:
    with pytest.raises(ServingError, match="no request was served"):
        exact_lift(Trace([], {}, {}, 0, 0.0), lambda *_: [], world, {"A": "a", "B": "b"})


def test_a_gateway_that_is_gone_is_one_clear_error(world: WorldProcess) -> None:
    with pytest.raises(ServingError, match=r"does not answer.*ConnectError.*tastemaker serve"):
        Simulator(f"http://127.0.0.1:{free_port()}", world).run(world.visitors(40, seed=1))


def test_failures_are_counted_and_the_run_goes_on(gateway: Gateway, world: WorldProcess) -> None:
    gateway.status = 503
    visitors = [Visitor(f"v-{n}", [[]]) for n in range(GIVE_UP_AFTER - 1)]
    trace = Simulator(gateway.url, world).run(visitors)
    assert trace.failures == {"status 503": GIVE_UP_AFTER - 1}
    assert trace.summary()["requests"] == trace.summary()["failed"] == GIVE_UP_AFTER - 1


def test_rejected_events_are_one_clear_error(gateway: Gateway, world: WorldProcess) -> None:
    gateway.reject = 1
    with pytest.raises(ServingError, match="events were rejected"):
        Simulator(gateway.url, world).run(world.visitors(3, seed=1))


def test_events_reach_the_gateway_while_visitors_still_come(
    gateway: Gateway, world: WorldProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulator, "EVENTS_EVERY_SECONDS", 0.01)
    answer, events_before_last = gateway.answer, []

    def slower(path: str, body: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.002)
        if path != "/v1/events":
            events_before_last.append(len(gateway.events))
        return answer(path, body)

    monkeypatch.setattr(gateway, "answer", slower)
    Simulator(gateway.url, world).run(world.visitors(60, seed=8))
    assert events_before_last[-1] > 0
