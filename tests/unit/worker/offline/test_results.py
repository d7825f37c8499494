"""From the bodies of the API to what an engine returns, and raises."""

import json

import pytest

from glm_worker.errors import DeadlinePassed, EngineFailed, Overloaded, RequestRefused
from glm_worker.offline.results import Choice, Piece, ToolCall, Usage, error_of, pieces_of, result_of

USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 7,
    "total_tokens": 12,
    "prompt_tokens_details": {"cached_tokens": 2},
    "completion_tokens_details": {"reasoning_tokens": 3},
}


def test_a_chat_has_text_reasoning_calls_and_usage() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [call]}
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}], "usage": USAGE}
    result = result_of(200, json.dumps(body).encode())
    assert result.choices == (Choice("", "hm", (ToolCall("call_1", "f", "{}"),), "tool_calls"),)
    assert result.tool_calls[0].name == "f"
    assert result.usage == Usage(5, 7, 2, 3)
    assert result.body == body


def test_a_completion_has_text_alone() -> None:
    body = {"choices": [{"index": 0, "text": "more", "finish_reason": "length"}], "usage": USAGE}
    result = result_of(200, json.dumps(body).encode())
    assert (result.text, result.reasoning, result.tool_calls, result.finish_reason) == ("more", "", (), "length")


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, {"type": "invalid_request_error", "code": "invalid_value", "param": "top_p"}, RequestRefused),
        (404, {"type": "invalid_request_error", "code": "model_not_found"}, RequestRefused),
        (503, {"type": "service_unavailable", "code": "overloaded"}, Overloaded),
        (504, {"type": "deadline_passed", "code": "deadline_passed"}, DeadlinePassed),
        (500, {"type": "internal_error", "code": "internal_error"}, EngineFailed),
    ],
)
def test_an_error_is_raised_as_what_it_is(status: int, error: dict[str, str], kind: type[Exception]) -> None:
    body = json.dumps({"error": {"message": "a sentence", **error}}).encode()
    with pytest.raises(kind, match=r"^a sentence$") as raised:
        result_of(status, body)
    if isinstance(raised.value, RequestRefused):
        assert (raised.value.status, raised.value.code, raised.value.param) == (
            status,
            error["code"],
            error.get("param"),
        )


def test_chunks_become_pieces_and_those_that_bring_nothing_none() -> None:
    def chunk(delta: dict[str, object], reason: str | None = None) -> dict[str, object]:
        return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}], "usage": None}

    assert pieces_of(chunk({"role": "assistant", "content": ""})) == []
    assert pieces_of(chunk({"content": "a"})) == [Piece(text="a")]
    assert pieces_of(chunk({"reasoning_content": "b"})) == [Piece(reasoning="b")]
    assert pieces_of(chunk({}, "stop")) == [Piece(finish_reason="stop")]
    assert pieces_of({"choices": [], "usage": USAGE}) == [Piece(usage=Usage(5, 7, 2, 3))]


def test_an_error_in_a_stream_is_raised() -> None:
    with pytest.raises(EngineFailed, match="broken"):
        pieces_of({"error": {"message": "broken", "type": "internal_error"}})
    assert isinstance(error_of(500, {}), EngineFailed)
