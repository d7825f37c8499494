"""What a well-formed stream is, on each surface: from the bytes that came to the answer that they tell."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Call:
    name: str
    arguments: Json


@dataclass
class Told:
    """What a stream told. ended_by: the surface's own word for it."""

    ended_by: str = ""
    reasoning: str = ""
    text: str = ""
    calls: list[Call] = field(default_factory=list)
    num_tokens: int | None = None


def told(path: str, body: bytes) -> Told:
    """Return what a whole stream of the surface with this path told. Fails where it is not well-formed."""
    end = path.partition("?")[0]
    if end.endswith("/chat/completions"):
        return _chat(_events(body))
    if end.endswith("/responses"):
        return _response(_events(body))
    if end.endswith("/messages"):
        return _message(_events(body))
    if end.endswith("/completions"):
        return _completion(_events(body))
    raise AssertionError(f"{path} streams nothing")


def _events(body: bytes) -> list[tuple[str, str]]:
    """Return the name and the data of each event. A comment is none."""
    assert body.endswith(b"\n\n"), f"the stream was cut: {body[-80:]!r}"
    events = []
    for block in body.decode().removesuffix("\n\n").split("\n\n"):
        lines = [line for line in block.split("\n") if not line.startswith(":")]
        if not lines:
            continue
        fields = dict(line.split(": ", 1) for line in lines)
        assert fields.keys() <= {"event", "data"}
        assert len(fields) == len(lines), f"a field comes twice: {block!r}"
        events.append((fields.get("event", ""), fields["data"]))
    return events


def _chunks(events: Sequence[tuple[str, str]], kind: str) -> list[Json]:
    """Return the chunks of OpenAI's older surfaces, which all are of one answer."""
    assert events[-1] == ("", "[DONE]")
    chunks = [json.loads(data) for name, data in events[:-1] if not name]
    assert len(chunks) == len(events) - 1
    assert not [chunk["error"] for chunk in chunks if "error" in chunk]
    assert {chunk["object"] for chunk in chunks} == {kind}
    assert len({(chunk["id"], chunk["model"], chunk["created"]) for chunk in chunks}) == 1
    return chunks


def _usage(chunks: Sequence[Json]) -> int | None:
    """Return the tokens of the answer, where the last chunk has them and no choice."""
    last = chunks[-1]
    if last["choices"]:
        return None
    usage = last["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    return int(usage["completion_tokens"])


def _chat(events: Sequence[tuple[str, str]]) -> Told:
    chunks = _chunks(events, "chat.completion.chunk")
    answer, calls = Told(num_tokens=_usage(chunks)), dict[int, list[str]]()
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        assert choice["index"] == 0
        assert not answer.ended_by, "a chunk after the one with finish_reason"
        delta = choice["delta"]
        answer.reasoning += delta.get("reasoning_content") or ""
        answer.text += delta.get("content") or ""
        for call in delta.get("tool_calls") or ():
            function = call["function"]
            if call["index"] not in calls:
                assert call["index"] == len(calls)
                assert call["id"]
                assert call["type"] == "function"
                calls[call["index"]] = [function["name"], ""]
            calls[call["index"]][1] += function.get("arguments") or ""
        answer.ended_by = choice["finish_reason"] or ""
    answer.calls = [Call(name, json.loads(arguments)) for name, arguments in calls.values()]
    assert answer.ended_by
    return answer


def _completion(events: Sequence[tuple[str, str]]) -> Told:
    chunks = _chunks(events, "text_completion")
    answer = Told(num_tokens=_usage(chunks))
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        assert not answer.ended_by, "a chunk after the one with finish_reason"
        answer.text += choice["text"]
        answer.ended_by = choice["finish_reason"] or ""
    assert answer.ended_by
    return answer


def _response(events: Sequence[tuple[str, str]]) -> Told:
    payloads = [json.loads(data) for _, data in events]
    assert [payload["type"] for payload in payloads] == [name for name, _ in events]
    assert [payload["sequence_number"] for payload in payloads] == list(range(len(payloads)))
    assert [payload["type"] for payload in payloads[:2]] == ["response.created", "response.in_progress"]
    last = payloads[-1]
    assert last["type"] in ("response.completed", "response.incomplete"), last
    added = [payload["item"]["id"] for payload in payloads if payload["type"] == "response.output_item.added"]
    items = [payload["item"] for payload in payloads if payload["type"] == "response.output_item.done"]
    assert [item["id"] for item in items] == added
    assert items == last["response"]["output"]
    answer = Told(ended_by=last["response"]["status"], num_tokens=last["response"]["usage"]["output_tokens"])
    for item in items:
        match item["type"]:
            case "reasoning":
                answer.reasoning += "".join(part["text"] for part in item.get("content") or ())
            case "message":
                answer.text += "".join(part["text"] for part in item["content"])
            case "function_call":
                answer.calls.append(Call(item["name"], json.loads(item["arguments"])))
    streamed = "".join(payload["delta"] for payload in payloads if payload["type"] == "response.output_text.delta")
    assert streamed == answer.text
    return answer


def _message(events: Sequence[tuple[str, str]]) -> Told:
    payloads = [json.loads(data) for _, data in events]
    assert [payload["type"] for payload in payloads] == [name for name, _ in events]
    payloads = [payload for payload in payloads if payload["type"] != "ping"]
    start, *inner, delta, stop = payloads
    assert (start["type"], delta["type"], stop["type"]) == ("message_start", "message_delta", "message_stop"), stop
    answer = Told(ended_by=delta["delta"]["stop_reason"], num_tokens=delta["usage"]["output_tokens"])
    block: Json | None = None
    index, json_text = -1, ""
    for payload in inner:
        match payload["type"]:
            case "content_block_start":
                assert block is None, "a block begins inside another one"
                index, block, json_text = index + 1, payload["content_block"], ""
            case "content_block_delta":
                assert block is not None
                json_text += _message_delta(answer, block["type"], payload["delta"])
            case "content_block_stop":
                assert block is not None
                if block["type"] == "tool_use":
                    answer.calls.append(Call(block["name"], json.loads(json_text or "{}")))
                block = None
            case other:
                raise AssertionError(f"{other} inside a message")
        assert payload["index"] == index
    assert block is None, "a block that does not end"
    return answer


def _message_delta(answer: Told, block_type: str, delta: Json) -> str:
    """Add a delta to the answer; return what it adds to the input of a call."""
    match block_type, delta["type"]:
        case "thinking", "thinking_delta":
            answer.reasoning += delta["thinking"]
        case "thinking", "signature_delta":
            assert delta["signature"]
        case "text", "text_delta":
            answer.text += delta["text"]
        case "tool_use", "input_json_delta":
            return str(delta["partial_json"])
        case other:
            raise AssertionError(f"{other[1]} inside {other[0]}")
    return ""
