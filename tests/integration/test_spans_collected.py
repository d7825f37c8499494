"""A real collector of spans: what it gets of a request that a real server answered, and what it never gets."""

import asyncio
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from integration.free_ports import free_port
from integration.server_world import DEADLINE_S, MODEL, ScriptedEngine, ServerWorld, a_server

CANARY, ANSWER, KEY = "zebra-7f3a", "a quagga, of course", "sk-okapi"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
BODY: dict[str, Any] = {
    "model": MODEL,
    "messages": [
        {"role": "system", "content": f"You know {CANARY}."},
        {"role": "user", "content": f"What is {CANARY}?"},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "description": CANARY, "parameters": {"type": "object"}}}],
    "stop": [f"{CANARY}!"],
    "user": CANARY,
    "max_tokens": 40,
    "temperature": 0.25,
    "thinking": {"type": "disabled"},
}


class Collector:
    """What was sent to it, as it came."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.bodies: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.url = ""

    def take(self) -> bytes:
        return self.bodies.get(timeout=DEADLINE_S)


@contextmanager
def a_collector() -> Iterator[Collector]:
    """Listen as the OTLP/HTTP receiver of a collector does, and keep what comes."""
    collector = Collector()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["content-type"] == "application/x-protobuf"
            assert self.headers.get("content-encoding") is None
            collector.paths.append(self.path)
            collector.bodies.put(self.rfile.read(int(self.headers["content-length"])))
            reply = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    collector.url = f"http://127.0.0.1:{server.server_address[1]}/v1/traces"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def answered(world: ServerWorld, engine: ScriptedEngine) -> dict[str, Any]:
    """Ask, be answered, and return the answer."""
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "authorization": f"Bearer {KEY}"}
    asked = asyncio.create_task(world.http.post("/v1/chat/completions", json=BODY, headers=headers))
    request = await engine.next_request()
    await engine.begin(request)
    await engine.say(request, ANSWER, end="<|user|>")
    response = await asked
    assert response.status_code == 200
    answer: dict[str, Any] = response.json()
    assert answer["choices"][0]["message"]["content"].strip() == ANSWER
    return answer


def spans_of(body: bytes) -> tuple[list[Span], dict[str, Any]]:
    """Return the spans of a body and the attributes of who sent them."""
    (sent,) = ExportTraceServiceRequest.FromString(body).resource_spans
    return [span for scope in sent.scope_spans for span in scope.spans], attributes(sent.resource.attributes)


def attributes(pairs: Any) -> dict[str, Any]:
    def plain(value: AnyValue) -> Any:
        kind = value.WhichOneof("value")
        return (
            [plain(each) for each in value.array_value.values] if kind == "array_value" else getattr(value, str(kind))
        )

    found: list[KeyValue] = list(pairs)
    return {pair.key: plain(pair.value) for pair in found}


async def test_a_collector_gets_one_span_of_a_request_and_no_word_of_it(tmp_path: Path) -> None:
    with a_collector() as collector:
        async with a_server(tmp_path, trace_endpoint=collector.url, deployment="chat", group="chat-g0") as world:
            answer = await answered(world, await world.serve())
        body = collector.take()  # at the latest when it stops, a server sends what it has
        assert collector.bodies.empty()
    assert collector.paths == ["/v1/traces"]
    (span,), sender = spans_of(body)
    usage = answer["usage"]
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "glm-operator",
        "gen_ai.request.model": MODEL,
        "gen_ai.request.max_tokens": 40,
        "gen_ai.request.temperature": 0.25,
        "gen_ai.request.choice.count": 1,
        "gen_ai.response.id": answer["id"],
        "gen_ai.response.model": MODEL,
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": usage["prompt_tokens"],
        "gen_ai.usage.output_tokens": usage["completion_tokens"],
        "gen_ai.usage.reasoning.output_tokens": 0,
    }
    told = attributes(span.attributes)
    assert expected.items() <= told.items()
    assert 0 < told["gen_ai.response.time_to_first_chunk"] < DEADLINE_S
    assert 0 < span.start_time_unix_nano < span.end_time_unix_nano
    assert (span.name, span.kind) == (f"chat {MODEL}", Span.SPAN_KIND_SERVER)
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    whose = {"service.name": "glm-worker", "glm.deployment": "chat", "glm.group": "chat-g0"}
    assert whose.items() <= sender.items()
    for secret in (CANARY, ANSWER, KEY):
        assert secret.encode() not in body


async def test_a_collector_that_is_away_holds_up_no_request(tmp_path: Path) -> None:
    async with a_server(tmp_path, trace_endpoint=f"http://127.0.0.1:{free_port()}/v1/traces") as world:
        engine = await world.serve()
        for _ in range(3):
            await answered(world, engine)
