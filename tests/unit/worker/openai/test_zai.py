"""Z.ai's dialect: its own fields, calls that come whole, the usage in the last chunk, its numbers for errors."""

import json
from dataclasses import replace
from typing import Any

import pytest

from glm_edge.errors.failure import Failure
from glm_edge.errors.zai import error_body
from glm_worker.server.checkpoint import Checkpoint, GenerationDefaults
from glm_worker.server.flights.replies import DONE, Answered, Ending, Event
from glm_worker.server.jobs.order import Order
from glm_worker.server.openai.zai.intake import order_of
from glm_worker.server.openai.zai.replies import ZaiReplies
from glm_worker.server.openai.zai.request import ZaiChatRequest
from glm_worker.server.refusals import parse
from glm_worker.server.text.deltas import Content, Delta, ToolArguments, ToolCall
from unit.worker.orders import a_context
from unit.worker.server_builders import checkpoint
from unit.worker.told import told

USER = {"role": "user", "content": "hi"}
CALLS: list[Delta] = [
    Content("so"),
    ToolCall(0, "f"),
    ToolArguments(0, '{"a":'),
    ToolArguments(0, " 1}"),
    ToolCall(1, "g"),
    ToolArguments(1, "{}"),
]


def an_order(of: Checkpoint | None = None, **fields: Any) -> Order:
    body = json.dumps({"model": "glm-nano", "messages": [USER], **fields}).encode()
    return order_of(parse(ZaiChatRequest, body), a_context(of))


def replies(order: Order, *, streams_arguments: bool = False) -> ZaiReplies:
    return ZaiReplies(order, "m", 1, "r-1", streams_arguments=streams_arguments)


def an_ending(num_tokens: int = 5) -> Ending:
    return Ending(reason="tool_calls", num_prompt_tokens=4, num_tokens=num_tokens, num_reasoning_tokens=0)


def data(events: list[Event]) -> list[dict[str, Any]]:
    return told(events)


def told_calls(events: list[Event]) -> list[dict[str, Any]]:
    return [
        call
        for payload in data(events)
        for choice in payload["choices"]
        for call in choice["delta"].get("tool_calls", ())
    ]


def test_not_sampling_is_greedy_whatever_the_temperature() -> None:
    assert an_order(do_sample=False, temperature=0.9).jobs[0].sampling.temperature == 0
    assert an_order(do_sample=True, temperature=0.9).jobs[0].sampling.temperature == 0.9
    assert an_order(temperature=0.9).jobs[0].sampling.temperature == 0.9


def test_sampling_on_a_checkpoint_that_is_greedy_by_itself_samples() -> None:
    greedy = replace(checkpoint(), defaults=GenerationDefaults(do_sample=False, temperature=0.6))
    assert an_order(greedy).jobs[0].sampling.temperature == 0
    assert an_order(greedy, do_sample=True).jobs[0].sampling.temperature == 0.6


def test_its_own_fields_are_accepted_and_the_users_id_is_called_ignored() -> None:
    order = an_order(request_id="r", user_id="somebody", tool_stream=True, thinking={"type": "disabled"})
    assert order.ignored == ("user_id",)
    assert not order.jobs[0].thinking


def test_the_reply_has_the_requests_id_and_the_usage() -> None:
    body = replies(an_order()).body([Answered([Content("x")], an_ending())])
    assert body["request_id"] == "r-1"
    assert body["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}


def test_calls_come_whole_unless_they_are_asked_for_in_pieces() -> None:
    for size in (1, 2, len(CALLS)):
        whole = replies(an_order(stream=True))
        events = [event for at in range(0, len(CALLS), size) for event in whole.chunks(0, CALLS[at : at + size])]
        calls = told_calls([*events, *whole.ending(0, an_ending())])
        assert [(call["index"], call["function"]["name"]) for call in calls] == [(0, "f"), (1, "g")]
        assert [call["function"]["arguments"] for call in calls] == ['{"a": 1}', "{}"]
    pieces = told_calls(replies(an_order(stream=True), streams_arguments=True).chunks(0, CALLS))
    assert len(pieces) == 4


def test_the_last_chunk_has_the_usage_of_all_answers() -> None:
    two = replies(an_order(stream=True, n=2))
    (first,) = data(two.ending(1, an_ending(num_tokens=3)))[-1:]
    assert "usage" not in first
    (last,) = data(two.ending(0, an_ending(num_tokens=4)))[-1:]
    assert last["usage"]["completion_tokens"] == 7
    assert last["choices"][0]["finish_reason"] == "tool_calls"
    assert two.closing([an_ending(), an_ending()]) == [DONE]


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (Failure(404, "m", "invalid_request_error", "model", "model_not_found"), "1211"),
        (Failure(400, "m", "invalid_request_error", "messages", "missing_required_parameter"), "1213"),
        (Failure(400, "m", "invalid_request_error", "top_p", "invalid_value"), "1214"),
        (Failure(400, "m", "invalid_request_error", "zz", "unknown_parameter"), "1214"),
        (Failure(400, "m", "invalid_request_error", None, "invalid_json"), "1210"),
        (Failure(404, "m", "invalid_request_error", None, "not_found"), "1222"),
        (Failure(400, "m", "invalid_request_error", "messages", "context_length_exceeded"), "1261"),
        (Failure(503, "m", "service_unavailable", None, "overloaded"), "1305"),
        (Failure(503, "m", "service_unavailable", None, "generation_lost"), "1230"),
        (Failure(500, "m", "internal_error", None, "internal_error"), "500"),
    ],
)
def test_errors_have_the_numbers_of_its_list(failure: Failure, code: str) -> None:
    assert error_body(failure) == {"error": {"code": code, "message": "m"}}
    assert replies(an_order()).failure(failure)[0].data == error_body(failure)
