"""A span for each order that was admitted, with the attributes of OpenTelemetry's GenAI conventions.

Off unless a collector is named; OpenTelemetry is imported only then. A span says how long a request took, how many
tokens it had and how it ended. It has no text of a prompt or an answer, and no header but the trace of the caller.
"""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from glm_worker.server.flights.served import Served

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

_MAX_WAITING = 2048  # spans that wait for the collector; past it they are dropped, and no request waits
_EXPORT_S = 5.0


class Spans(Protocol):
    def record(self, served: Served) -> None: ...
    def close(self) -> None: ...


class NoSpans:
    """What there is without a collector."""

    def record(self, served: Served) -> None:
        pass

    def close(self) -> None:
        pass


NO_SPANS = NoSpans()


def spans_to(endpoint: str, *, model: str, identity: Mapping[str, str]) -> Spans:
    """Return spans that go to the OTLP/HTTP collector at this URL, as http://collector:4318/v1/traces; none for ""."""
    if not endpoint:
        return NO_SPANS
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OtelSpans(OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_S), model=model, identity=identity)


class OtelSpans:
    """identity: attributes of the service that sends them. Sends from a thread of its own."""

    def __init__(self, exporter: "SpanExporter", *, model: str, identity: Mapping[str, str]) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        # It logs what clients put into `tracestate`
        logging.getLogger("opentelemetry.trace").setLevel(logging.CRITICAL)
        attributes = {f"glm.{name}": value for name, value in identity.items()}
        self._provider = TracerProvider(
            resource=Resource({"service.name": "glm-worker", **attributes}), shutdown_on_exit=False
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(exporter, max_queue_size=_MAX_WAITING, export_timeout_millis=_EXPORT_S * 1000)
        )
        self._tracer = self._provider.get_tracer("glm_worker")
        self._propagator = TraceContextTextMapPropagator()
        self._model = model

    def record(self, served: Served) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode

        attributes = _attributes(served, self._model)
        span = self._tracer.start_span(
            f"{attributes['gen_ai.operation.name']} {self._model}",
            context=self._propagator.extract({name.lower(): value for name, value in served.headers.items()}),
            kind=SpanKind.SERVER,
            attributes={name: value for name, value in attributes.items() if value is not None},
            start_time=served.began_ns,
        )
        if served.error is not None:
            span.set_status(Status(StatusCode.ERROR))
        span.end(served.ended_ns)

    def close(self) -> None:
        """Send what waits, for some seconds at most."""
        self._provider.force_flush(int(_EXPORT_S * 1000))
        self._provider.shutdown()


def _attributes(served: Served, model: str) -> dict[str, Any]:
    """Return the attributes of a span; None is left out."""
    order, job = served.order, served.order.jobs[0]
    return {
        "gen_ai.operation.name": "chat" if job.is_chat else "text_completion",
        "gen_ai.provider.name": "glm-operator",
        "gen_ai.request.model": model,
        "gen_ai.request.choice.count": len(order.jobs),
        "gen_ai.request.max_tokens": job.max_tokens,
        "gen_ai.request.temperature": job.sampling.temperature,
        "gen_ai.request.top_p": job.sampling.top_p,
        "gen_ai.request.top_k": job.sampling.top_k or None,
        "gen_ai.request.frequency_penalty": job.sampling.frequency_penalty or None,
        "gen_ai.request.presence_penalty": job.sampling.presence_penalty or None,
        "gen_ai.response.id": order.id,
        "gen_ai.response.model": model,
        "gen_ai.response.finish_reasons": [ending.reason for ending in served.endings] or None,
        "gen_ai.usage.input_tokens": order.num_prompt_tokens,
        "gen_ai.usage.output_tokens": sum(ending.num_tokens for ending in served.endings) if served.endings else None,
        "gen_ai.usage.reasoning.output_tokens": sum(ending.num_reasoning_tokens for ending in served.endings)
        if served.endings
        else None,
        "gen_ai.response.time_to_first_chunk": served.ttft_s,
        "glm.thinking": None if order.thinking is None else order.thinking.enabled,
        "error.type": served.error if served.endings or served.error else "cancelled",
    }
