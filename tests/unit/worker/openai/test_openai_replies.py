"""Answers in OpenAI's shapes: choices, calls, logprobs and usage, whole and in chunks."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from glm_worker.server.flights.replies import Answered, Ending, Event, Generated
from glm_worker.server.jobs.order import Order
from glm_worker.server.openai.chat.replies import ChatReplies
from glm_worker.server.openai.completions.replies import CompletionReplies
from glm_worker.server.text.deltas import Content, Delta, Reasoning, TokenLogprob, ToolArguments, ToolCall
from unit.worker.orders import chat_of, completion_of
from unit.worker.server_builders import stop_id, tokenizer
from unit.worker.told import told

USER = {"role": "user", "content": "hi"}


def a_chat(**fields: Any) -> Order:
    return chat_of({"model": "glm-nano", "messages": [USER], **fields})


def a_completion(**fields: Any) -> Order:
    return completion_of({"model": "glm-nano", "prompt": "x", **fields})


def an_ending(reason: Any = "stop", *, num_tokens: int = 5, num_reasoning: int = 0, stop: Any = None) -> Ending:
    return Ending(
        reason=reason, num_prompt_tokens=4, num_tokens=num_tokens, num_reasoning_tokens=num_reasoning, stop=stop
    )


def payloads(events: Sequence[Event]) -> list[dict[str, Any]]:
    return told(events)


def choices(events: Sequence[Event]) -> list[dict[str, Any]]:
    return [choice for payload in payloads(events) for choice in payload["choices"]]


def logprob(text: str, value: float = -0.5, top: tuple[tuple[str, float], ...] = ()) -> list[Delta]:
    """Return the deltas of a text, a token each."""
    return [
        delta
        for token_id in tokenizer().encode(text)
        for delta in (
            TokenLogprob(token_id, value, tuple((tokenizer().encode(each)[0], lp) for each, lp in top)),
            Content(tokenizer().decode([token_id])),
        )
    ]


def test_every_answer_is_a_choice_with_its_own_end() -> None:
    replies = ChatReplies(a_chat(n=2), "m", 1)
    ends = [an_ending("stop", stop="END"), an_ending("length", num_reasoning=2)]
    body = replies.body([Answered([Content("a")], ends[0]), Answered([Reasoning("r"), Content("b")], ends[1])])
    first, second = body["choices"]
    assert (first["index"], first["message"]["content"], first["finish_reason"]) == (0, "a", "stop")
    assert (second["index"], second["message"]["reasoning_content"]) == (1, "r")
    assert (first["stop_reason"], second["stop_reason"]) == ("END", None)
    assert body["usage"]["completion_tokens"] == 10
    assert body["usage"]["completion_tokens_details"] == {"reasoning_tokens": 2}
    assert body["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}


def test_of_a_prompt_with_several_answers_what_one_of_them_computed_was_not_cached() -> None:
    order = completion_of({"model": "glm-nano", "prompt": ["x", "y"], "n": 2})
    found = [0, 1, 1, 1]  # the first answer to x computed it; y was there
    answers = [Answered([], replace(an_ending(), num_cached_tokens=number)) for number in found]
    assert CompletionReplies(order, "m", 1).body(answers)["usage"]["prompt_tokens_details"] == {"cached_tokens": 1}


def test_the_usage_has_all_its_numbers_in_both_apis() -> None:
    for replies in (ChatReplies(a_chat(), "m", 1), CompletionReplies(a_completion(), "m", 1)):
        usage = replies.body([Answered([Content("a")], an_ending())])["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + 5
        assert set(usage) == {
            "prompt_tokens",
            "completion_tokens",
            "total_tokens",
            "prompt_tokens_details",
            "completion_tokens_details",
        }


def test_ids_of_calls_are_unique_over_all_answers_and_short() -> None:
    order = a_chat(n=16)
    calls: list[Delta] = [
        delta for number in range(40) for delta in (ToolCall(number, "f"), ToolArguments(number, "{}"))
    ]
    body = ChatReplies(order, "m", 1).body([Answered(calls, an_ending("tool_calls"))] * 16)
    ids = [call["id"] for choice in body["choices"] for call in choice["message"]["tool_calls"]]
    assert len(set(ids)) == 16 * 40
    assert all(len(call_id) <= 40 and call_id.startswith("call_") for call_id in ids)


def test_a_streamed_call_has_the_id_that_it_has_in_whole() -> None:
    order = a_chat(n=2)
    calls: list[Delta] = [ToolCall(0, "f"), ToolArguments(0, "{}")]
    whole = ChatReplies(order, "m", 1).body([Answered([], an_ending()), Answered(calls, an_ending())])
    (streamed, *_) = [
        call
        for choice in choices(ChatReplies(order, "m", 1).chunks(1, calls))
        for call in choice["delta"].get("tool_calls", ())
    ]
    assert streamed["id"] == whole["choices"][1]["message"]["tool_calls"][0]["id"]


def test_reasoning_has_both_names_where_the_deployment_says_so() -> None:
    order = replace(a_chat(), has_both_reasoning_fields=True)
    deltas: list[Delta] = [Reasoning("r")]
    message = ChatReplies(order, "m", 1).body([Answered(deltas, an_ending())])["choices"][0]["message"]
    assert (message["reasoning_content"], message["reasoning"]) == ("r", "r")
    delta = choices(ChatReplies(order, "m", 1).chunks(0, deltas))[-1]["delta"]
    assert delta == {"reasoning_content": "r", "reasoning": "r"}


def test_the_logprobs_of_a_chat_are_those_of_its_tokens() -> None:
    order = a_chat(logprobs=True, top_logprobs=1)
    body = ChatReplies(order, "m", 1).body([Answered(logprob("1", -0.25, (("2", -1.5),)), an_ending())])
    (entry,) = body["choices"][0]["logprobs"]["content"]
    assert (entry["token"], entry["logprob"], entry["bytes"]) == ("1", -0.25, [49])
    assert entry["top_logprobs"] == [{"token": "2", "logprob": -1.5, "bytes": [50]}]


def test_streamed_logprobs_put_together_are_the_whole_ones() -> None:
    order = a_chat(logprobs=True)
    deltas = logprob("数字 🙂 1 2 3")
    whole = ChatReplies(order, "m", 1).body([Answered(deltas, an_ending())])["choices"][0]
    for size in (1, 2, 3, 7, len(deltas)):
        replies = ChatReplies(order, "m", 1)
        events = [replies.chunks(0, deltas[at : at + size]) for at in range(0, len(deltas), size)]
        streamed = [choice for each in events for choice in choices(each)]
        entries = [entry for choice in streamed if choice["logprobs"] for entry in choice["logprobs"]["content"]]
        assert entries == whole["logprobs"]["content"]
        assert "".join(choice["delta"].get("content", "") for choice in streamed) == whole["message"]["content"]


@pytest.mark.parametrize("surface", ["chat", "completion"])
def test_logprobs_that_were_spelled_as_they_came_are_those_of_the_end(surface: str) -> None:
    order = a_chat(logprobs=True, top_logprobs=2) if surface == "chat" else a_completion(logprobs=2)

    def replies() -> ChatReplies | CompletionReplies:
        return ChatReplies(order, "m", 1) if surface == "chat" else CompletionReplies(order, "m", 1)

    of_text = logprob("数字 🙂 1", -float("inf"), (("2", -1.5), ("🙂", -3.25)))
    spelled = [replies().spelled(each) if isinstance(each, TokenLogprob) else each for each in of_text]
    bodies = [msgspec.json.encode(replies().body([Answered(each, an_ending())])) for each in (of_text, spelled)]
    assert bodies[0] == bodies[1]
    chunks = [[event.line for event in replies().chunks(0, each)] for each in (of_text, spelled)]
    assert chunks[0] == chunks[1]


def test_without_a_wish_there_are_no_logprobs() -> None:
    assert ChatReplies(a_chat(), "m", 1).body([Answered([], an_ending())])["choices"][0]["logprobs"] is None
    assert CompletionReplies(a_completion(), "m", 1).body([Answered([], an_ending())])["choices"][0]["logprobs"] is None


def test_never_is_a_number_that_json_has() -> None:
    order = a_chat(logprobs=True)
    body = ChatReplies(order, "m", 1).body([Answered(logprob("1", -float("inf")), an_ending())])
    assert body["choices"][0]["logprobs"]["content"][0]["logprob"] == -9999.0
    json.dumps(body, allow_nan=False)


def test_a_special_token_among_the_likeliest_is_told_as_it_is_written() -> None:
    order = a_chat(logprobs=True, top_logprobs=1)
    deltas: list[Delta] = [TokenLogprob(tokenizer().encode("1")[0], -0.1, ((stop_id(), -3.0),)), Content("1")]
    body = ChatReplies(order, "m", 1).body([Answered(deltas, an_ending())])
    assert body["choices"][0]["logprobs"]["content"][0]["top_logprobs"][0]["token"] == "<|user|>"


def test_the_logprobs_of_a_completion_are_lists_with_offsets() -> None:
    order = a_completion(logprobs=2)
    text = "数字 1"
    body = CompletionReplies(order, "m", 1).body([Answered(logprob(text, -0.5, (("2", -1.0),)), an_ending())])
    told = body["choices"][0]["logprobs"]
    ids = tokenizer().encode(text)
    assert len(told["tokens"]) == len(told["token_logprobs"]) == len(told["top_logprobs"]) == len(ids)
    before = [len(b"".join(map(tokenizer().bytes_of, ids[:at])).decode(errors="ignore")) for at in range(len(ids))]
    assert told["text_offset"] == before
    assert told["top_logprobs"][0] == {"2": -1.0, told["tokens"][0]: -0.5}


def test_a_part_of_a_character_is_told_as_its_bytes() -> None:
    (first, *rest) = tokenizer().encode("🙂")
    assert rest, "the shipped tokenizer writes it with several tokens"
    deltas: list[Delta] = [TokenLogprob(first, -0.5)]
    body = CompletionReplies(a_completion(logprobs=0), "m", 1).body([Answered(deltas, an_ending())])
    (token,) = body["choices"][0]["logprobs"]["tokens"]
    assert token.startswith("bytes:\\xf0")


def test_offsets_go_on_from_chunk_to_chunk_of_each_answer() -> None:
    replies = CompletionReplies(a_completion(logprobs=0, n=2), "m", 1)
    offsets = [
        choice["logprobs"]["text_offset"]
        for index in (0, 1, 0)
        for choice in choices(replies.chunks(index, logprob("1")))
    ]
    assert offsets == [[0], [0], [1]]


def test_the_prompt_comes_once_before_each_answer() -> None:
    order = a_completion(prompt=["a", "b"], n=2)
    echoed = ["a", "b"]
    whole = CompletionReplies(order, "m", 1, echoed=echoed).body([Answered([Content("!")], an_ending())] * 4)
    assert [choice["text"] for choice in whole["choices"]] == ["a!", "a!", "b!", "b!"]
    replies = CompletionReplies(order, "m", 1, echoed=echoed)
    streamed = [replies.chunks(2, [Content("!")]), replies.chunks(2, [Content("?")]), replies.ending(2, an_ending())]
    assert [choice["text"] for each in streamed for choice in choices(each)] == ["b!", "?", ""]
    assert choices(CompletionReplies(order, "m", 1, echoed=echoed).ending(0, an_ending()))[0]["text"] == "a"


@pytest.mark.parametrize("is_chat", [True, False])
def test_the_usage_so_far_is_in_every_chunk_where_it_is_asked_for(is_chat: bool) -> None:
    fields: dict[str, Any] = {"stream": True, "stream_options": {"continuous_usage_stats": True}, "n": 2}
    order = a_chat(**fields) if is_chat else a_completion(**fields)
    so_far = {job.id: Generated(number + 1, number) for number, job in enumerate(order.jobs)}
    kind = ChatReplies if is_chat else CompletionReplies
    replies = kind(order, "m", 1, so_far.get)
    first = payloads(replies.chunks(0, [Content("a")]))
    assert [payload["usage"]["completion_tokens"] for payload in first] == [1] * len(first)
    second = payloads(replies.chunks(1, [Content("a")]))
    assert second[-1]["usage"]["completion_tokens"] == 3
    del so_far[order.jobs[0].id]  # it is over, and its last words and its end come together
    assert replies.chunks(0, [Content("b")]) == []
    last = payloads(replies.ending(0, an_ending(num_tokens=7)))
    assert [payload["usage"]["completion_tokens"] for payload in last] == [9, 9]
    assert last[-1]["choices"][0]["finish_reason"] == "stop"


def test_a_chunk_has_a_null_usage_only_where_a_last_one_will_have_it() -> None:
    with_usage = a_chat(stream=True, stream_options={"include_usage": True})
    assert payloads(ChatReplies(with_usage, "m", 1).chunks(0, [Content("a")]))[0]["usage"] is None
    assert "usage" not in payloads(ChatReplies(a_chat(stream=True), "m", 1).chunks(0, [Content("a")]))[0]
