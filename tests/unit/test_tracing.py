"""Spans of a request, as a collector receives them: what hangs under what, who is sampled, and what is never told."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, cast
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from gateway_world import World
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tastemaker.config import Settings, TracingSettings
from tastemaker.errors import ConfigError
from tastemaker_services.replicas.answering import Answering
from tastemaker_services.tracing import INCOMING, TraceParent, Tracer, is_sampled, tracer_of

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


class Collector:
    """Receives what an exporter sends, over HTTP."""

    def __init__(self) -> None:
        received: list[bytes] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                received.append(self.rfile.read(int(self.headers["content-length"])))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self._received, self._server = received, HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.settings = TracingSettings(
            endpoint=f"http://127.0.0.1:{self._server.server_port}/v1/traces", sample_ratio=1.0
        )

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def spans(self) -> list[Any]:
        requests = [ExportTraceServiceRequest.FromString(body) for body in self._received]
        scopes = (scope for one in requests for group in one.resource_spans for scope in group.scope_spans)
        return [span for scope in scopes for span in scope.spans]

    def bytes(self) -> bytes:
        return b"".join(self._received)


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.stop()


def test_an_answer_leads_to_its_trace_with_a_span_for_each_stage(collector: Collector) -> None:
    world = World()
    world.tracer = Tracer(collector.settings, "gateway")
    answer = world.recommend(session=["i3"])
    [parent] = {query.traceparent for _, _, query in world.graph.queries}
    tracer = Tracer(collector.settings, "ranker")  # of a stage's process, which has the query alone
    ranker = Answering("ranker", {"a" * 64: "a version"}, tracer=tracer)
    query = world.graph.queries[-1][2]
    assert ranker.each(lambda version, rest: (version, len(rest)), [("a" * 64, query, 1)]) == [
        ("a version", 2)
    ]
    tracer.stop()
    world.tracer.stop()
    spans = {span.name: span for span in collector.spans()}
    assert spans.keys() == {"recommend", "history", "retrieve", "rank", "rerank", "ranker works"}
    root = spans.pop("recommend")
    assert root.trace_id.hex() == answer["request_id"]
    assert parent.split("-")[1:3] == [root.trace_id.hex(), root.span_id.hex()]
    for span in spans.values():
        assert (span.trace_id, span.parent_span_id) == (root.trace_id, root.span_id)
        assert root.start_time_unix_nano <= span.end_time_unix_nano
    told = {one.key: one.value for one in root.attributes}
    assert told["tastemaker.bundle"].string_value == answer["bundle"]
    assert told["tastemaker.items"].int_value == 3
    assert told["tastemaker.answered"].bool_value


def test_no_span_tells_of_users_and_items(collector: Collector) -> None:
    world = World()
    world.histories["somebody-in-particular"] = ["i0", "i1"]
    world.tracer = Tracer(collector.settings, "gateway")
    answer = world.recommend(user_id="somebody-in-particular", k=10)
    world.tracer.stop()
    assert collector.spans()
    assert b"somebody-in-particular" not in collector.bytes()
    told = {value.value.string_value for span in collector.spans() for value in span.attributes}
    assert not told & {item["item_id"] for item in answer["items"]}


def test_a_callers_trace_is_gone_on_with(collector: Collector) -> None:
    tracer = Tracer(collector.settings, "gateway")
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(INCOMING.get())
        trace = tracer.begin("recommend", "0" * 31 + "1")
        assert trace is not None
        trace.end({"answered": False})
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def call() -> None:
        transport = httpx.ASGITransport(app=cast(FastAPI, TraceParent(app)))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            await client.get("/", headers={"traceparent": PARENT})
            await client.get("/", headers={"traceparent": "nonsense"})

    asyncio.run(call())
    tracer.stop()
    assert seen == [PARENT, "nonsense"]
    continued, own = collector.spans()
    assert continued.trace_id.hex() == PARENT.split("-")[1]
    assert continued.parent_span_id.hex() == PARENT.split("-")[2]
    assert (own.trace_id.hex(), own.parent_span_id) == ("0" * 31 + "1", b"")


@given(ratio=st.floats(0.0, 1.0), request_id=st.uuids(version=4))
def test_who_is_sampled_is_decided_by_the_requests_luck(ratio: float, request_id: UUID) -> None:
    luck = int(request_id.hex[:15], 16) / 16**15
    assert is_sampled(request_id.hex, ratio) == (luck < ratio)
    assert not is_sampled(request_id.hex, 0.0)
    assert is_sampled(request_id.hex, 1.0)


def test_only_requests_that_are_sampled_send_spans(collector: Collector) -> None:
    tracer = Tracer(collector.settings.model_copy(update={"sample_ratio": 0.25}), "gateway")
    ids = [f"{first}{'7' * 31}" for first in "0123456789abcdef"]
    begun = {request_id: tracer.begin("recommend", request_id) for request_id in ids}
    for trace in begun.values():
        if trace is not None:
            trace.end({})
    tracer.stop()
    assert [request_id for request_id, trace in begun.items() if trace is not None] == ids[:4]  # 4 of 16
    assert [span.trace_id.hex() for span in collector.spans()] == ids[:4]


def test_it_is_off_unless_asked_for_and_then_loads_nothing() -> None:
    assert tracer_of(Settings().tracing, "gateway") is None
    assert (
        tracer_of(TracingSettings(endpoint="http://collector:4318/v1/traces", sample_ratio=0.0), "g") is None
    )
    assert all(not query.traceparent for _, _, query in _asked_without_tracing())
    code = "import sys, tastemaker_services.gateway.gateway; print('opentelemetry.exporter' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "False"


def test_an_endpoint_is_a_url_without_credentials() -> None:
    with pytest.raises(ConfigError, match=r"tracing\.endpoint"):
        Settings.parse({"tracing": {"endpoint": "collector:4318"}}, "test")
    with pytest.raises(ConfigError, match=r"tracing\.endpoint"):
        Settings.parse({"tracing": {"endpoint": "https://me:secret@collector"}}, "test")


def _asked_without_tracing() -> list[Any]:
    world = World()
    world.recommend()
    return world.graph.queries
