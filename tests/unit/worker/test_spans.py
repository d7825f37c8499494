"""A span says what a request took, and nothing of what was said."""

import json

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from glm_worker.server.flights.replies import Ending
from glm_worker.server.flights.served import Served
from glm_worker.server.flights.spans import NO_SPANS, OtelSpans, spans_to
from unit.worker.orders import chat_of

CANARY = "zebra-7f3a"
ORDER = chat_of({"model": "glm-nano", "messages": [{"role": "user", "content": CANARY}], "max_tokens": 9, "top_k": 5})
ENDING = Ending(reason="stop", num_prompt_tokens=7, num_tokens=5, num_reasoning_tokens=2)
TRACE = "0af7651916cd43dd8448eb211c80319c"


def exported(*served: Served) -> list[dict[str, object]]:
    exporter = InMemorySpanExporter()
    spans = OtelSpans(exporter, model="glm-nano", identity={"deployment": "chat"})
    for each in served:
        spans.record(each)
    spans.close()
    return [json.loads(span.to_json()) for span in exporter.get_finished_spans()]


def a_served(**of: object) -> Served:
    return Served(**{"order": ORDER, "headers": {}, "began_ns": 10**18, "ended_ns": 10**18 + 5, **of})  # type: ignore[arg-type]


def test_without_a_collector_there_are_no_spans() -> None:
    assert spans_to("", model="m", identity={}) is NO_SPANS


def test_a_finished_request_has_its_tokens_and_its_times() -> None:
    (span,) = exported(a_served(endings=[ENDING], ttft_s=0.25))
    attributes = span["attributes"]
    assert isinstance(attributes, dict)
    assert span["name"] == "chat glm-nano"
    assert attributes["gen_ai.usage.output_tokens"] == 5
    assert attributes["gen_ai.usage.reasoning.output_tokens"] == 2
    assert attributes["gen_ai.usage.input_tokens"] == ORDER.num_prompt_tokens
    assert attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert attributes["gen_ai.response.time_to_first_chunk"] == 0.25
    assert attributes["gen_ai.request.max_tokens"] == 9
    assert attributes["gen_ai.request.top_k"] == 5
    assert "error.type" not in attributes
    assert CANARY not in json.dumps(span)


def test_a_span_belongs_to_the_trace_of_the_caller() -> None:
    (span,) = exported(a_served(headers={"Traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}, endings=[ENDING]))
    context = span["context"]
    assert isinstance(context, dict)
    assert context["trace_id"] == f"0x{TRACE}"


@pytest.mark.parametrize(
    "trace",
    [
        {"tracestate": f"{CANARY}!!=ERROR the disk is full"},
        {"tracestate": ",".join(f"a{number}={CANARY}" for number in range(40))},
        {"tracestate": CANARY * 1000},
        {"tracestate": f"a={CANARY},a={CANARY}"},
        {"traceparent": CANARY * 1000},
    ],
    ids=range(5),
)
def test_no_client_writes_into_the_log(trace: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    (span,) = exported(a_served(headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", **trace}, endings=[ENDING]))
    assert caplog.text == ""
    assert span["name"] == "chat glm-nano"


def test_failures_and_clients_that_left_are_told_apart() -> None:
    failed, cancelled = exported(a_served(error="GenerationLost"), a_served())
    assert failed["attributes"]["error.type"] == "GenerationLost"  # type: ignore[index]
    assert failed["status"]["status_code"] == "ERROR"  # type: ignore[index]
    assert cancelled["attributes"]["error.type"] == "cancelled"  # type: ignore[index]
    assert "gen_ai.response.finish_reasons" not in cancelled["attributes"]  # type: ignore[operator]
