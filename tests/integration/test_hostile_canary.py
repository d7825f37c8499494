"""No text of a prompt or an answer is in a log, a metric, a trace or an error: a word, sent everywhere, is in none."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fuzz.judge import complaints
from fuzz.seeds import CANARY, seeds
from fuzz.server_process import answer_all
from fuzz.wire import Connection
from glm_worker.request import EngineRequest
from glm_worker.server import backend as backend_module
from glm_worker.server import main
from glm_worker.server.flights.spans import OtelSpans
from glm_worker.supervisor.logs import Discreet
from integration.server_world import MODEL, ScriptedEngine, ServerWorld, a_server, token_ids

Json = dict[str, Any]


def a_schema(schema: Any) -> Json:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}}


def said(role: str, *blocks: Json) -> Json:
    return {"messages": [{"role": role, "content": list(blocks)}]}


CHAT, MESSAGES, RESPONSES, TEXT = "/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/completions"
_CLIENTS = ("httpx", "httpcore", "openai", "anthropic")  # of this test, not of the server
ANSWER = f"<think>{CANARY}</think>{CANARY}<tool_call>{CANARY}"


class Sinks:
    """Everything that the server writes down beside its replies."""

    def __init__(self) -> None:
        self.spans = InMemorySpanExporter()
        self.lines: list[str] = []

    def log_handler(self) -> logging.Handler:
        sinks = self

        class Handler(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if not record.name.startswith(_CLIENTS):
                    sinks.lines.append(Discreet("%(name)s %(levelname)s %(message)s").format(record))

        return Handler(logging.DEBUG)

    def told(self) -> list[str]:
        return [*self.lines, *(span.to_json() for span in self.spans.get_finished_spans())]


@pytest.fixture
def sinks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sinks]:
    sinks = Sinks()
    monkeypatch.setattr(main, "spans_to", lambda _, **values: OtelSpans(sinks.spans, **values))
    handler, root = sinks.log_handler(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield sinks
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture
async def world(sinks: Sinks, tmp_path: Path) -> AsyncIterator[ServerWorld]:
    async with a_server(tmp_path) as world:
        yield world


@pytest.fixture
async def engine(world: ServerWorld) -> ScriptedEngine:
    return await world.serve()


def says_it(request: EngineRequest) -> list[int]:
    return token_ids(ANSWER)


async def test_of_requests_that_are_answered_nothing_is_written_down(
    sinks: Sinks, world: ServerWorld, engine: ScriptedEngine
) -> None:
    answering = asyncio.create_task(answer_all(engine, says_it))
    connection = Connection(world.port)
    for seed in seeds(MODEL):
        reply = await connection.post(seed.path, json.dumps(seed.body).encode(), {"x-request-id": "mine"})
        assert reply.status == 200, reply.body
    await connection.close()
    answering.cancel()
    metrics = await world.metrics()
    await world.close()  # which sends the spans
    await asyncio.to_thread(_wait_for_spans, sinks)
    assert CANARY not in metrics
    assert not [told for told in sinks.told() if CANARY in told]


def _wait_for_spans(sinks: Sinks) -> None:
    deadline = time.monotonic() + 60
    while not sinks.spans.get_finished_spans():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# Only what names something is told back, as of `role`, `type`, `model` and unknown fields: at most 100 characters.
WRONG: list[tuple[str, Json]] = [
    (CHAT, {"messages": CANARY}),
    (CHAT, {"messages": [CANARY]}),
    (CHAT, {"messages": [{"role": "user", "content": {"text": CANARY}}]}),
    (CHAT, {"messages": [{"role": "user", "content": [CANARY]}]}),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": [CANARY]}]}]}),
    (CHAT, {"messages": [{"role": {"x": CANARY}, "content": "x"}]}),
    (CHAT, {"messages": [{"role": "user", "content": "x", "name": CANARY * 20}]}),
    (CHAT, {"messages": [{"role": "assistant", "tool_calls": CANARY}]}),
    (CHAT, {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": CANARY}}]}]}),
    (CHAT, {"messages": [{"role": "assistant", "content": "x", "refusal": CANARY}]}),
    (CHAT, {"messages": [{"role": "tool", "content": {"x": CANARY}}]}),
    (CHAT, {"tools": CANARY}),
    (CHAT, {"tools": [{"type": "function", "function": {"name": "f", "description": [CANARY]}}]}),
    (CHAT, {"tools": [{"type": "function", "function": {"name": "f", "parameters": CANARY}}]}),
    (CHAT, {"tools": [{"type": "function", "function": {"name": f"{CANARY} !"}}]}),
    (CHAT, {"stop": {"x": CANARY}}),
    (CHAT, {"stop": [[CANARY]]}),
    (CHAT, {"stop": CANARY * 100}),
    (CHAT, {"bad_words": CANARY}),
    (CHAT, {"user": [CANARY]}),
    (CHAT, {"metadata": CANARY}),
    (CHAT, {"metadata": {"x": [CANARY]}}),
    (CHAT, {"guided_regex": f"({CANARY}"}),
    (CHAT, {"guided_choice": CANARY}),
    (CHAT, {"response_format": CANARY}),
    (CHAT, a_schema({"type": [{"x": CANARY}]})),
    (CHAT, a_schema({"type": "string", "pattern": f"({CANARY}"})),
    (CHAT, {"temperature": 7, "messages": [{"role": "user", "content": CANARY}]}),
    (TEXT, {"prompt": {"x": CANARY}}),
    (TEXT, {"prompt": [CANARY, 7]}),
    (TEXT, {"prompt": CANARY, "suffix": [CANARY]}),
    (TEXT, {"prompt": CANARY * 5000}),
    (MESSAGES, {"system": {"x": CANARY}}),
    (MESSAGES, {"system": [{"type": "text", "text": [CANARY]}]}),
    (MESSAGES, said("user", {"type": "tool_result", "tool_use_id": "x", "content": {"x": CANARY}})),
    (MESSAGES, {"messages": [{"role": "user", "content": [{"type": "text", "text": {"x": CANARY}}]}]}),
    (MESSAGES, said("assistant", {"type": "tool_use", "id": "x", "name": "f", "input": CANARY})),
    (MESSAGES, {"tools": [{"name": "f", "description": {"x": CANARY}, "input_schema": {}}]}),
    (MESSAGES, {"stop_sequences": [CANARY * 100]}),
    (MESSAGES, {"metadata": {"user_id": [CANARY]}}),
    (RESPONSES, {"input": {"x": CANARY}}),
    (RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_text", "text": [CANARY]}]}]}),
    (RESPONSES, {"instructions": [CANARY]}),
    (RESPONSES, {"metadata": {"x": [CANARY]}}),
    (RESPONSES, {"input": [{"type": "function_call_output", "call_id": "c", "output": {"x": CANARY}}]}),
    (RESPONSES, {"tools": [{"type": "function", "name": "f", "description": [CANARY], "parameters": {}}]}),
    ("/tokenize", {"prompt": [CANARY]}),
    ("/detokenize", {"tokens": [CANARY]}),
]  # fmt: skip


def a_body(path: str, fields: Json) -> Json:
    needed: Json = {"messages": [{"role": "user", "content": CANARY}]}
    match path:
        case "/v1/messages":
            needed["max_tokens"] = 5
        case "/v1/responses":
            needed = {"input": CANARY}
        case "/v1/completions" | "/tokenize" | "/detokenize":
            needed = {}
    return {"model": MODEL, **needed, **fields}


async def test_errors_say_of_what_type_a_wrong_text_is_and_never_the_text(
    sinks: Sinks, world: ServerWorld, engine: ScriptedEngine
) -> None:
    connection = Connection(world.port)
    wrong = []
    for path, fields in WRONG:
        reply = await connection.post(path, json.dumps(a_body(path, fields)).encode())
        assert reply.status == 400, (path, fields, reply.body)
        if found := complaints(path, reply, secrets=[CANARY]):
            wrong.append((path, fields, found, reply.body[:300]))
    await connection.close()
    assert wrong == []
    assert not [line for line in sinks.lines if CANARY in line]


async def test_a_fault_of_ours_that_quotes_a_prompt_is_logged_without_it(
    sinks: Sinks, world: ServerWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(body: bytes) -> None:
        try:
            raise KeyError(body.decode())
        except KeyError as error:
            raise ValueError(f"cannot read {body!r}") from error

    monkeypatch.setattr(backend_module, "check_json", breaks)
    connection = Connection(world.port)
    reply = await connection.post(CHAT, json.dumps(a_body(CHAT, {})).encode())
    await connection.close()
    assert reply.status == 500
    assert CANARY.encode() not in reply.body
    (line,) = [line for line in sinks.lines if "Traceback" in line]
    assert CANARY not in line
    assert "KeyError" in line
    assert "ValueError" in line
    assert "breaks" in line


async def test_a_stream_that_breaks_tells_nothing_of_its_text(
    sinks: Sinks, world: ServerWorld, engine: ScriptedEngine
) -> None:
    body = {**a_body(CHAT, {}), "stream": True}
    asked = asyncio.create_task(world.http.post(CHAT, json=body))
    await engine.say(await engine.next_request(), CANARY)
    await world.kill(engine)
    await world.unavailable("rank 1 was killed", 1)  # nobody goes on with it
    events = [line for line in (await asked).text.split("\n") if "error" in line]
    assert events
    assert not [event for event in events if CANARY in event]
    assert not [line for line in sinks.lines if CANARY in line]
