"""Replies of a fake group as they go over the wire: plain events, or frames as workers write them."""

import json
from array import array
from dataclasses import dataclass

from glm_edge.frames import FRAMES_TYPE, Close, Frame, Open, Tokens, encode

MODEL = "m"
CHAT = b"POST /v1/chat/completions "
COUNT = b"POST /tokenize "
NOT_THERE = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
"""To whatever else is posted."""

TOKEN = "tok "
"""Text of every token: clients count it."""

_EVENT = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": MODEL}


def json_of(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _event(delta: dict[str, str], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    return b"data: " + json_of({**_EVENT, "choices": [choice]}) + b"\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n" % len(data) + data + b"\r\n"


def head_of(kind: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n".encode()


FIRST = _event({"role": "assistant", "content": TOKEN})
NEXT = _event({"content": TOKEN})
LAST = _event({}, "length") + b"data: [DONE]\n\n"
END = b"0\r\n\r\n"


def whole(num_tokens: int) -> bytes:
    """Return the body of a reply that does not stream."""
    message = {"role": "assistant", "content": TOKEN * num_tokens}
    return json_of(
        {
            **_EVENT,
            "object": "chat.completion",
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "length"}],
            "usage": {"prompt_tokens": 8, "completion_tokens": num_tokens, "total_tokens": 8 + num_tokens},
        }
    )


@dataclass
class Script:
    """The pieces of one kind of reply as they go over the wire: its head, its first token, each other, its end."""

    opening: bytes
    first: bytes
    token: bytes
    closing: bytes


def plain_stream() -> Script:
    return Script(head_of("text/event-stream; charset=utf-8"), chunk(FIRST), chunk(NEXT), chunk(LAST) + END)


def framed(*, streams: bool, num_tokens: int, num_prompt_tokens: int = 8) -> Script:
    """Return the same in frames, as worker/glm_worker/server/flights/framed.py writes them."""
    kind = "text/event-stream; charset=utf-8" if streams else "application/json"
    opened = Open(
        id="chatcmpl-bench",
        created=1_700_000_000,
        seeds=[7],
        status=200,
        headers=[("content-type", kind)],
        num_prompt_tokens=num_prompt_tokens,
        fingerprint="f" * 16,
    )
    state = b"\x01" if streams else b""

    def tokens(told: bytes) -> bytes:
        return chunk(encode(Frame(Tokens(ids=[(0, [17])], state=state), told if streams else b"")))

    closed = Close(
        num_prompt_tokens=num_prompt_tokens,
        num_cached_tokens=0,
        num_reasoning_tokens=0,
        num_answer_tokens=num_tokens,
        reasons=["length"],
    )
    return Script(
        head_of(FRAMES_TYPE) + chunk(encode(Frame(opened))),
        tokens(FIRST),
        tokens(NEXT),
        chunk(encode(Frame(closed, LAST if streams else whole(num_tokens)))) + END,
    )


def tokenized(request: bytes) -> bytes:
    """Return the tokens of a prompt, one for four bytes: vllm-router asks for them, and finds prefixes by them."""
    asked = json.loads(request.partition(b"\r\n\r\n")[2])
    data = "".join(f"{each['role']}\n{each['content']}\n" for each in asked.get("messages", ())).encode()
    tokens = list(array("I", data + bytes(-len(data) % 4)))
    return json_of({"count": len(tokens), "max_model_len": 131_072, "tokens": tokens})
