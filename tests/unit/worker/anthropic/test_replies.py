"""Messages and their events: which blocks there are, how they end, and what is counted."""

from dataclasses import replace
from typing import Any

import pytest

from glm_worker.server.anthropic.replies import MessageReplies
from glm_worker.server.flights.replies import Answered, Ending
from glm_worker.server.text.deltas import Content, Delta, Reasoning, TokenLogprob, ToolArguments, ToolCall
from unit.worker.anthropic.bodies import as_json, data_of, order_of, put_together

ENDING = Ending(reason="stop", num_prompt_tokens=1, num_tokens=9, num_reasoning_tokens=3)
CUT = replace(ENDING, reason="length")


def whole(*deltas: Delta, ending: Ending = ENDING, **fields: Any) -> dict[str, Any]:
    return as_json(MessageReplies(order_of(**fields), "m", 0).body([Answered(list(deltas), ending)]))


def kinds(*deltas: Delta) -> list[str]:
    """Return the kinds of events of a stream in which each delta comes alone."""
    replies = MessageReplies(order_of(), "m", 0)
    events = [event for delta in deltas for event in replies.chunks(0, [delta])]
    events = [*replies.opening(), *events, *replies.ending(0, ENDING), *replies.closing([ENDING])]
    return [event["type"] + ":" + event.get("delta", {}).get("type", "") for event in map(data_of, events)]


def test_a_stream_has_its_events_in_the_order_of_the_api() -> None:
    call = [ToolCall(0, "f"), ToolArguments(0, '{"a": '), ToolArguments(0, "1}")]
    assert kinds(Reasoning("a"), Reasoning("b"), Content("c"), *call) == [
        "message_start:",
        "content_block_start:",
        "content_block_delta:thinking_delta",
        "content_block_delta:thinking_delta",
        "content_block_delta:signature_delta",
        "content_block_stop:",
        "content_block_start:",
        "content_block_delta:text_delta",
        "content_block_stop:",
        "content_block_start:",
        "content_block_delta:input_json_delta",
        "content_block_delta:input_json_delta",
        "content_block_stop:",
        "message_delta:",
        "message_stop:",
    ]


def test_an_answer_of_nothing_has_no_blocks() -> None:
    assert kinds() == ["message_start:", "message_delta:", "message_stop:"]
    assert kinds(Content(""), Reasoning("")) == kinds()
    assert whole()["content"] == []


def test_text_after_a_call_is_a_block_of_its_own_without_the_line_break_between_blocks() -> None:
    call = [ToolCall(0, "f"), ToolArguments(0, "{}")]
    blocks = whole(Content("a"), *call, Content("\n\nb"), Reasoning("t"), Content("\nc"), Reasoning("\nu"))["content"]
    assert [block.get("text", block.get("thinking")) for block in blocks] == ["a", None, "\nb", "t", "c", "u"]


def test_a_first_text_is_as_it_comes() -> None:
    (block,) = whole(Content("\n a"))["content"]
    assert block == {"type": "text", "text": "\n a"}


def test_a_block_that_would_be_only_the_line_break_between_blocks_is_none() -> None:
    assert len(whole(Content("a"), Reasoning("t"), Content("\n"))["content"]) == 2


def test_thinking_is_signed_with_what_the_next_request_may_send_back() -> None:
    order = order_of()
    (block, *_) = as_json(MessageReplies(order, "m", 0).body([Answered([Reasoning("t")], ENDING)]))["content"]
    assert block == {"type": "thinking", "thinking": "t", "signature": f"{order.id}.0"}
    assert order_of(messages=[{"role": "user", "content": "a"}, {"role": "assistant", "content": [block]}, USER])


USER = {"role": "user", "content": "b"}


def test_calls_have_names_and_ids_of_their_own() -> None:
    deltas = [ToolCall(0, "f"), ToolArguments(0, '{"a": 1}'), ToolCall(1, "g"), ToolArguments(1, "{}")]
    first, second = whole(*deltas, ending=replace(ENDING, reason="tool_calls"))["content"]
    assert (first["name"], first["input"], second["name"], second["input"]) == ("f", {"a": 1}, "g", {})
    assert first["id"] != second["id"]
    assert first["id"].startswith("toolu_")


@pytest.mark.parametrize("number", ["12345678901234567890123", "1e400", "-0.10"])
def test_numbers_keep_their_spelling(number: str) -> None:
    body = MessageReplies(order_of(), "m", 0).body(
        [Answered([ToolCall(0, "f"), ToolArguments(0, f'{{"a": {number}}}')], ENDING)]
    )
    assert bytes(body["content"][0]["input"]) == f'{{"a": {number}}}'.encode()


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        ("", {}),
        ('{"a": "x", "b": "unfin', {"a": "x"}),
        ('{"a": "x, \\"y', {}),
        ('{"a": [1, {"b": ": "}], "c": 2', {"a": [1, {"b": ": "}], "c": 2}),
        ('{"a": 1, ', {"a": 1}),
        ('{"a": 1, "b": ', {"a": 1}),
    ],
)
def test_of_a_call_that_was_cut_the_whole_arguments_are_left(arguments: str, left: dict[str, Any]) -> None:
    message = whole(ToolCall(0, "f"), *([ToolArguments(0, arguments)] if arguments else []), ending=CUT)
    assert message["content"][0]["input"] == left
    assert message["stop_reason"] == "max_tokens"


@pytest.mark.parametrize(
    ("ending", "reason", "sequence"),
    [
        (ENDING, "end_turn", None),
        (CUT, "max_tokens", None),
        (replace(ENDING, reason="tool_calls"), "tool_use", None),
        (replace(ENDING, stop="\n\nHuman:"), "stop_sequence", "\n\nHuman:"),
    ],
)
def test_an_answer_says_why_it_ended(ending: Ending, reason: str, sequence: str | None) -> None:
    message = whole(Content("a"), ending=ending)
    assert (message["stop_reason"], message["stop_sequence"]) == (reason, sequence)


def test_an_answer_that_the_room_ended_says_so() -> None:
    assert whole(ending=CUT, room=50)["stop_reason"] == "model_context_window_exceeded"
    assert whole(ending=ENDING, room=50)["stop_reason"] == "end_turn"


def test_usage_is_exact_at_the_beginning_and_at_the_end() -> None:
    order = order_of()
    replies = MessageReplies(order, "m", 0)
    start = data_of(replies.opening()[0])["message"]
    num_prompt = len(order.jobs[0].prompt_token_ids)
    assert (start["usage"]["input_tokens"], start["usage"]["output_tokens"]) == (num_prompt, 0)
    assert start["stop_reason"] is None
    *_, delta = (data_of(event) for event in replies.ending(0, ENDING))
    assert delta["usage"] == {
        "input_tokens": num_prompt,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 9,
        "output_tokens_details": {"thinking_tokens": 3},
    }


def test_what_was_read_from_the_cache_is_no_part_of_the_input() -> None:
    order = order_of()
    num_prompt = len(order.jobs[0].prompt_token_ids)
    ending = replace(ENDING, num_cached_tokens=num_prompt - 1)
    *_, delta = (data_of(event) for event in MessageReplies(order, "m", 0).ending(0, ending))
    assert (delta["usage"]["input_tokens"], delta["usage"]["cache_read_input_tokens"]) == (1, num_prompt - 1)


def test_log_probabilities_are_no_blocks() -> None:
    assert whole(TokenLogprob(1, -0.5), Content("a"))["content"] == [{"type": "text", "text": "a"}]


def test_the_stream_of_hidden_thinking_is_that_of_none() -> None:
    """Exchange leaves reasoning out; nothing here counts on it."""
    replies = MessageReplies(order_of(), "m", 0)
    events = [*replies.opening(), *replies.chunks(0, [Content("a")]), *replies.ending(0, ENDING)]
    message = put_together([*events, *replies.closing([ENDING])])
    assert [block["type"] for block in message["content"]] == ["text"]
    assert message["usage"]["output_tokens_details"] == {"thinking_tokens": 3}
