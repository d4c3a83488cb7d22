"""OpenTelemetry spans: one of each sampled request, one of each of its stages, one of each stage's work in its own process.

Off unless `tracing.endpoint` names a collector; then the extra `tracing` is needed. A request that brings no `traceparent` gets
a trace whose id is its request_id, so that an answer leads to its trace. Who is sampled, we decide, never the caller.
Spans say what was asked in numbers and names of ours: neither users nor items.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from tastemaker import __version__
from tastemaker.config import TracingSettings
from tastemaker.errors import MissingExtraError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

EXPORT_MS: Final = 1000
"""How often spans leave a process."""
_DIGITS: Final = 15
INCOMING: ContextVar[str] = ContextVar("traceparent", default="")
"""What the caller of this task's request says of its own trace."""
_trace_id: ContextVar[int] = ContextVar("trace_id", default=0)
Scope = MutableMapping[str, Any]


class Trace:
    """The spans of one sampled request.

    Args:
        tracer: Of OpenTelemetry.
        root: The request's span, begun.
        context: In which spans are children of it.
        parent: The same as a `traceparent`, for other processes.
    """

    def __init__(self, tracer: Any, root: "Span", context: "Context", parent: str) -> None:
        self._tracer, self._root, self._context, self.parent = tracer, root, context, parent

    def stage(self, name: str, seconds: float) -> None:
        """Adds a stage that has just ended."""
        now_ns = time.time_ns()
        began_ns = now_ns - round(seconds * 1e9)
        self._tracer.start_span(name, context=self._context, start_time=began_ns).end(now_ns)

    def end(self, attributes: Mapping[str, Any]) -> None:
        """Ends the request's span; what is None is not told."""
        for name, value in attributes.items():
            if value is not None:
                self._root.set_attribute(f"tastemaker.{name}", value)
        self._root.end()


class Tracer:
    """Makes the spans of one process and sends them to the collector in the background.

    Args:
        settings: Whose endpoint is set.
        service: What this process is, for `service.name`.

    Raises:
        MissingExtraError: The extra `tracing` is not installed.
    """

    def __init__(self, settings: TracingSettings, service: str) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
            from opentelemetry.sdk.trace.sampling import ALWAYS_ON
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            raise MissingExtraError(
                "tracing.endpoint needs OpenTelemetry", mend="pip install 'tastemaker[tracing]'"
            ) from error

        class Ids(RandomIdGenerator):
            """Takes the trace's id from the request."""

            def generate_trace_id(self) -> int:
                return _trace_id.get() or super().generate_trace_id()

        named = Resource.create({"service.name": f"tastemaker-{service}", "service.version": __version__})
        self._provider = TracerProvider(sampler=ALWAYS_ON, resource=named, id_generator=Ids())
        exporter = OTLPSpanExporter(endpoint=settings.endpoint)
        self._provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=EXPORT_MS))
        self._tracer = self._provider.get_tracer("tastemaker", __version__)
        self._propagator = TraceContextTextMapPropagator()
        self._sample_ratio = settings.sample_ratio

    def begin(self, name: str, request_id: str) -> Trace | None:
        """The trace of a request that begins now; None where it is not sampled.

        Args:
            name: Of its span.
            request_id: See `is_sampled`.
        """
        if not is_sampled(request_id, self._sample_ratio):
            return None
        from opentelemetry import trace
        from opentelemetry.context import Context

        around = self._propagator.extract({"traceparent": INCOMING.get()}, Context())
        token = _trace_id.set(int(request_id, 16))
        try:
            root = self._tracer.start_span(name, context=around, kind=trace.SpanKind.SERVER)
        finally:
            _trace_id.reset(token)
        root.set_attribute("tastemaker.request_id", request_id)
        inside = trace.set_span_in_context(root, Context())
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, inside)
        return Trace(self._tracer, root, inside, carrier["traceparent"])

    def worked(self, name: str, parent: str, began_ns: int) -> None:
        """Adds work that was done here, until now, for another process's request.

        Args:
            name: Of the work.
            parent: `Trace.parent` of the request.
            began_ns: When it began, UTC.
        """
        from opentelemetry.context import Context

        around = self._propagator.extract({"traceparent": parent}, Context())
        self._tracer.start_span(name, context=around, start_time=began_ns).end()

    def stop(self) -> None:
        """Sends what is still here."""
        self._provider.shutdown()


def is_sampled(request_id: str, ratio: float) -> bool:
    """Whether a request is among the share that is traced: its luck decides, the same in every process.

    Args:
        request_id: 32 hexadecimal digits, of which the first are its luck.
        ratio: The share, 0 to 1.
    """
    return int(request_id[:_DIGITS], 16) < ratio * 16**_DIGITS


def told_of(body: Mapping[str, Any], degraded: Sequence[str], origin: str) -> dict[str, Any]:
    """What a request's span says, of an answer or, with an empty body, of none; nothing of users and items."""
    told = ("experiment", "variant", "bundle", "bundle_version", "cached")
    return {name: body.get(name) for name in told} | {
        "origin": origin,
        "answered": bool(body),
        "items": len(body.get("items", ())),
        "degraded": tuple(degraded),
    }


def tracer_of(settings: TracingSettings, service: str) -> Tracer | None:
    """The tracer of this process; None where tracing is off, and nothing of OpenTelemetry is loaded."""
    return Tracer(settings, service) if settings.endpoint is not None and settings.sample_ratio else None


class TraceParent:
    """ASGI middleware that notes the caller's `traceparent`; there only while tracing is on."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Passes the request on."""
        if scope["type"] == "http":
            found = next((value for name, value in scope["headers"] if name == b"traceparent"), b"")
            INCOMING.set(found.decode("ascii", "replace"))
        await self._app(scope, receive, send)
