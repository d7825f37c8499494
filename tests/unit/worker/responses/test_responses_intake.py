"""From items to turns, and what is accepted, kept and refused on the way."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import ResponseUsage

from glm_worker.errors import RequestRefused
from glm_worker.request import EngineRequest
from glm_worker.server.flights.replies import Answered, Ending
from glm_worker.server.jobs.conversation import AssistantTurn, PastCall, Said, ToolResult
from glm_worker.server.jobs.job import Room
from glm_worker.server.responses.ids import ResponseId, digits_of, tag_of
from glm_worker.server.responses.intake import _item, _read
from glm_worker.server.responses.opaque import seal, unseal
from glm_worker.server.responses.replies import ResponseReplies
from glm_worker.server.responses.turns import Placed, turns_of
from unit.worker.orders import chat_job
from unit.worker.responses.response_builders import accepted, streamed, whole
from unit.worker.server_builders import stop_id, tokenizer

USER: Any = {"role": "user", "content": "hi"}
CALL: Any = {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a": 1}'}
RESULT: Any = {"type": "function_call_output", "call_id": "c", "output": "4"}
WEATHER: Any = {"type": "function", "name": "f", "parameters": {"type": "object"}}


def said(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": text}


def thought(text: str) -> dict[str, Any]:
    return {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": text}]}


def turns(*items: dict[str, Any]) -> list[Any]:
    return turns_of([Placed(_read(item), f"input[{number}]") for number, item in enumerate(items)])


def prompt_of(asked: Any) -> str:
    (job,) = asked.order.jobs
    return str(tokenizer()._inner.decode(job.prompt_token_ids, skip_special_tokens=False))


def engine_request(**fields: Any) -> EngineRequest:
    return accepted(**fields).order.jobs[0].engine_request(Room(2048))


def test_an_answer_of_several_items_is_one_turn() -> None:
    past = PastCall(name="f", arguments={"a": 1}, id="c")
    assert turns(USER, thought("hm"), said("assistant", "I look."), CALL, CALL, RESULT) == [
        Said(role="user", text="hi"),
        AssistantTurn(text="I look.", reasoning="hm", calls=(past, past)),
        ToolResult(text="4", call_id="c"),
    ]


def test_texts_around_calls_are_one_text_and_texts_in_a_row_are_two_turns() -> None:
    (one,) = turns(said("assistant", "a"), CALL, said("assistant", "b"), CALL)
    assert (one.text, len(one.calls)) == ("ab", 2)
    assert [turn.text for turn in turns(said("assistant", "a"), said("assistant", "b"))] == ["a", "b"]


def test_reasoning_after_a_text_begins_a_turn() -> None:
    assert [(turn.reasoning, turn.text) for turn in turns(thought("x"), said("assistant", "a"), thought("y"))] == [
        ("x", "a"),
        ("y", ""),
    ]


def test_reasoning_is_its_content_or_its_opaque_string_or_its_summary() -> None:
    sealed = {"type": "reasoning", "summary": [], "encrypted_content": seal("hm")}
    summary = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "short"}]}
    for item, expected in ((sealed, "hm"), (summary, "short"), (sealed | {"content": thought("x")["content"]}, "x")):
        (turn,) = turns(item)
        assert turn.reasoning == expected


@pytest.mark.parametrize(
    ("arguments", "left"), [("{", {}), ('{"a": "x", "b": "unfin', {"a": "x"}), ('{"a": [1], "b": [2', {"a": [1]})]
)
@pytest.mark.parametrize("status", ["incomplete", None])
def test_a_call_that_was_cut_comes_back_with_its_whole_arguments(arguments: str, left: Any, status: Any) -> None:
    (turn,) = turns({**CALL, "arguments": arguments, "status": status})
    assert turn.calls[0].arguments == left
    with pytest.raises(RequestRefused, match=r"input\[0\]: the arguments of a call are not valid JSON"):
        turns({**CALL, "arguments": arguments, "status": "completed"})


@pytest.mark.parametrize("arguments", ["{'a': 1", "[1]", "5", '{"a":"\\ud83d"}'])
def test_an_earlier_call_with_bad_arguments_is_refused_by_its_place(arguments: str) -> None:
    with pytest.raises(RequestRefused, match=r"input\[1\]") as caught:
        turns(USER, {**CALL, "arguments": arguments})
    assert caught.value.param == "input[1]"


@given(st.text())
def test_reasoning_comes_back_from_its_opaque_string(text: str) -> None:
    assert unseal(seal(text)) == text


@given(st.text(min_size=1), st.data())
def test_an_opaque_string_that_was_changed_is_none(text: str, data: st.DataObject) -> None:
    sealed = seal(text)
    at = data.draw(st.integers(0, len(sealed) - 1))
    changed = sealed[:at] + data.draw(st.sampled_from("Az0-=.")) + sealed[at + 1 :]
    assert unseal(changed) in (None, text)
    assert unseal(sealed[:at]) is None


@pytest.mark.parametrize("group", ["nano-g0", "local", "under_score", "ü", "", "x" * 100])
def test_ids_name_the_group_and_are_read_back(group: str) -> None:
    id_ = ResponseId.new(group)
    assert ResponseId.parse(str(id_)) == id_
    assert id_.tag == tag_of(group)
    assert digits_of(id_.item("msg", 3)) == digits_of(id_.input_item("fco", 12)) == id_.digits


@pytest.mark.parametrize("text", ["", "resp_1", "chatcmpl-1", "resp_a_" + "g" * 32, "resp_a_b_" + "0" * 32])
def test_what_is_no_id_is_none(text: str) -> None:
    assert ResponseId.parse(text) is None


def test_a_chat_and_a_response_of_the_same_words_have_the_same_prompt() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    body = b'{"model": "glm-nano", "messages": [{"role": "user", "content": "hi"}], "tools": [%s]}'
    job = chat_job(body % json.dumps(tool).encode())
    assert accepted(tools=[WEATHER]).order.jobs[0].prompt_token_ids == job.prompt_token_ids


def test_sampling_is_passed_on() -> None:
    request = engine_request(temperature=0.5, top_p=0.9, top_k=5, min_p=0.1, seed=3, max_output_tokens=7)
    assert (request.sampling.temperature, request.sampling.top_p) == (0.5, 0.9)
    assert (request.sampling.top_k, request.sampling.min_p, request.sampling.seed) == (5, 0.1, 3)
    assert request.max_tokens == 7


@pytest.mark.parametrize(
    ("fields", "num_logprobs"),
    [
        ({}, None),
        ({"top_logprobs": 0}, None),
        ({"top_logprobs": 3}, 3),
        ({"include": ["message.output_text.logprobs"]}, 0),
        ({"include": ["message.output_text.logprobs"], "top_logprobs": 2}, 2),
    ],
)
def test_logprobs_are_asked_for(fields: dict[str, Any], num_logprobs: int | None) -> None:
    assert engine_request(**fields).num_logprobs == num_logprobs


@pytest.mark.parametrize(
    ("switch", "thinks"),
    [
        ({}, True),
        ({"reasoning": {"effort": "none"}}, False),
        ({"reasoning": {"effort": "max"}}, True),
        ({"reasoning": {"enabled": False}}, False),
        ({"reasoning": {"max_tokens": 0}}, False),
        ({"thinking": {"type": "disabled"}}, False),
        ({"chat_template_kwargs": {"enable_thinking": False}}, False),
    ],
)
def test_every_switch_of_thinking_counts(switch: dict[str, Any], thinks: bool) -> None:
    assert accepted(**switch).order.jobs[0].thinking is thinks


def test_switches_that_contradict_are_refused() -> None:
    with pytest.raises(RequestRefused, match="contradict") as caught:
        accepted(reasoning={"effort": "none"}, thinking={"type": "enabled"})
    assert caught.value.param is not None


def test_a_budget_of_reasoning_is_a_bound_of_the_engine() -> None:
    thought = engine_request(reasoning={"max_tokens": 12}).thought
    assert thought is not None
    assert thought.max_tokens == 12


def test_what_is_kept_of_the_input_is_accepted_again() -> None:
    asked = accepted(input=[said("system", "x"), USER, thought("hm"), said("assistant", "a"), CALL, RESULT])
    assert len({item["id"] for item in asked.items}) == len(asked.items)
    assert prompt_of(accepted(input=list(asked.items))) == prompt_of(asked)
    for item in asked.items:
        _item.validate_python(item)


def test_an_answer_of_nothing_but_reasoning_has_an_empty_message() -> None:
    ids = [*tokenizer().encode("\n<think>hm</think>"), stop_id()]
    reasoning, message = whole(accepted(), ids)["output"]
    assert (reasoning["type"], message["content"][0]["text"]) == ("reasoning", "")
    cut = whole(accepted(), ids[:-2], "length")
    assert [(item["type"], item["status"]) for item in cut["output"]] == [("reasoning", "incomplete")]
    assert cut["incomplete_details"] == {"reason": "max_output_tokens"}


def test_a_stream_names_its_end() -> None:
    ids = tokenizer().encode("1 2")
    assert streamed(accepted(), [ids], "length")[-1]["type"] == "response.incomplete"
    assert streamed(accepted(), [[*ids, stop_id()]])[-1]["type"] == "response.completed"


def test_the_usage_of_a_response_says_what_of_its_prompt_was_cached() -> None:
    ending = Ending(reason="stop", num_prompt_tokens=9, num_tokens=2, num_reasoning_tokens=0, num_cached_tokens=4)
    usage = ResponseReplies(accepted(), "m", 0).body([Answered([], ending)])["usage"]
    read = ResponseUsage.model_validate(usage)  # with all that the client requires
    assert read.model_dump(exclude_unset=True) == usage
    assert (read.input_tokens, read.input_tokens_details.cached_tokens) == (9, 4)
    assert read.input_tokens_details.cache_write_tokens == 0
