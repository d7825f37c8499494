"""What a plain reply says that it used is read in the words of each API, however it is cut; else it is not known."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_gateway.surfaces.usage import MAX_WHOLE_BYTES, Stored, Told, UsageReader

OPENAI = {
    "prompt_tokens": 9,
    "completion_tokens": 7,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
RESPONSES = {
    "input_tokens": 9,
    "output_tokens": 7,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens_details": {"reasoning_tokens": 2},
}
ANTHROPIC = {"input_tokens": 5, "cache_read_input_tokens": 4, "output_tokens": 7}
JSON, STREAM = b"application/json; charset=utf-8", b"text/event-stream"


def told(kind: bytes | None, *pieces: bytes) -> Told | None:
    reader = UsageReader(kind)
    for piece in pieces:
        reader.feed(piece)
    return reader.told


def events(*values: Any) -> bytes:
    return b"".join(b"data: " + msgspec.json.encode(value) + b"\n\n" for value in values) + b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("usage", "found"),
    [
        (OPENAI, Told(9, 4, 7, 2)),
        ({"prompt_tokens": 3, "completion_tokens": 1, "prompt_tokens_details": None}, Told(3, 0, 1, 0)),
        (RESPONSES, Told(9, 4, 7, 2)),
        (ANTHROPIC, Told(9, 4, 7, 0)),
        ({"prompt_tokens": -1}, None),
        ({"prompt_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}}, None),
        ({"prompt_tokens": "9", "completion_tokens": 7}, None),
        ({}, None),
        (None, None),
    ],
)
def test_a_whole_reply_tells_it(usage: Any, found: Told | None) -> None:
    assert told(JSON, msgspec.json.encode({"usage": usage, "x": 1})) == found


@pytest.mark.parametrize(
    "stream",
    [
        events({"choices": [], "usage": None}, {"choices": [], "usage": OPENAI}),
        events({"type": "response.completed", "response": {"usage": RESPONSES}}),
        events(
            {"type": "message_start", "message": {"usage": {**ANTHROPIC, "output_tokens": 1}}},
            {"type": "message_delta", "usage": {"output_tokens": 7}},
        ),
    ],
)
@given(cut=st.integers(0, 400))
def test_a_stream_tells_it_wherever_it_is_cut(stream: bytes, cut: int) -> None:
    found = told(STREAM, stream[:cut], stream[cut:])
    assert found is not None
    assert (found.prompt, found.cached, found.answer) == (9, 4, 7)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (JSON, b"no json"),
        (JSON, b"[" * 100_000),
        (JSON, b'{"usage": {"prompt_tokens": 1}}' + b" " * MAX_WHOLE_BYTES),
        (None, b'{"usage": {"prompt_tokens": 1}}'),
        (b"text/plain", b'{"usage": {"prompt_tokens": 1}}'),
        (STREAM, b'data: {"usage": {"prompt_tokens": 1, "x": "' + b"a" * 100_000 + b'"}}\n\n'),
        (STREAM, b'data: {"usage": broken\n\n'),
        (STREAM, b'data: {"choices": []}\n\n'),
    ],
)
def test_what_is_not_understood_is_not_known(kind: bytes | None, body: bytes) -> None:
    assert told(kind, body) is None


@given(st.binary(max_size=300), st.sampled_from([JSON, STREAM]))
def test_nothing_breaks_it(data: bytes, kind: bytes) -> None:
    told(kind, data, data)


@pytest.mark.parametrize(
    ("status", "is_over"), [("queued", False), ("in_progress", False), ("completed", True), ("cancelled", True)]
)
def test_a_reply_says_how_a_response_stands(status: str, is_over: bool) -> None:
    reader = UsageReader(b"application/json")
    reader.feed(b'{"object": "response", "id": "resp_1", "status": "%s", "usage": null}' % status.encode())
    assert reader.stored == Stored("resp_1", status, None)
    assert reader.stored.is_over is is_over


def test_a_stream_says_how_its_response_stood_last() -> None:
    reader = UsageReader(b"text/event-stream")
    event = b'data: {"type": "t", "response": {"object": "response", "id": "r", "status": "%s", "usage": %s}}\n\n'
    reader.feed(event % (b"queued", b"null"))
    assert reader.stored == Stored("r", "queued", None)
    reader.feed(event % (b"completed", b'{"input_tokens": 3, "output_tokens": 2, "output_tokens_details": {}}'))
    assert reader.stored == Stored("r", "completed", Told(3, 0, 2, 0))


def test_what_is_no_response_says_nothing_of_one() -> None:
    reader = UsageReader(b"application/json")
    reader.feed(b'{"object": "response", "id": "resp_1", "deleted": true}')
    assert reader.stored is None
