"""From a chat's body to what the core is told: the conversation, the wishes, the request of the engine."""

import json
from typing import Any

import pytest
from starlette.datastructures import Headers

from glm_worker.errors import RequestRefused
from glm_worker.messages import Policy
from glm_worker.request import EngineRequest
from glm_worker.server.jobs.context import Caller, Context, Rules
from glm_worker.server.jobs.conversation import Conversation, Named
from glm_worker.server.jobs.job import Room
from glm_worker.server.jobs.order import Order
from glm_worker.server.openai.chat.intake import chat_order, conversation_of
from glm_worker.server.openai.chat.request import ChatCompletionRequest
from glm_worker.server.refusals import parse
from glm_worker.server.structured.formats import AnyText, Choice, JsonObject, JsonSchema, Regex
from unit.worker.server_builders import checkpoint, tokenizer

USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
ROOM = Room(2048)
WISHED = ("mode", "budget_tokens", "effort", "threshold", "keeps_history", "shows")


def a_context(**headers: str) -> Context:
    named = Headers({name.replace("_", "-"): value for name, value in headers.items()})
    return Context(
        checkpoint=checkpoint(), rules=Rules(), policy=Policy(), caller=Caller(request_id="r", headers=named)
    )


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "glm-nano", "messages": [USER], **fields}).encode()


def an_order(**fields: Any) -> Order:
    return chat_order(body(**fields), a_context())


def engine_requests(**fields: Any) -> list[EngineRequest]:
    return [job.engine_request(ROOM) for job in an_order(**fields).jobs]


def a_conversation(context: Context | None = None, **fields: Any) -> Conversation:
    return conversation_of(parse(ChatCompletionRequest, body(**fields)), context or a_context())


def refused(**fields: Any) -> RequestRefused:
    with pytest.raises(RequestRefused) as caught:
        an_order(**fields)
    return caught.value


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"max_tokens": 7}, {"max_tokens": 7}),
        ({"max_completion_tokens": 8}, {"max_tokens": 8}),
        ({"min_tokens": 3}, {"min_tokens": 3}),
        ({"logprobs": True}, {"num_logprobs": 0}),
        ({"logprobs": True, "top_logprobs": 20}, {"num_logprobs": 20}),
        ({}, {"num_logprobs": None, "priority": 0, "deadline_ms": None, "min_tokens": 0, "bad_words": []}),
        ({"priority": -3}, {"priority": -3}),
    ],
)
def test_the_engine_is_told_what_the_request_says(fields: dict[str, Any], told: dict[str, Any]) -> None:
    (request,) = engine_requests(**fields)
    assert {name: getattr(request, name) for name in told} == told


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"temperature": 0.3, "top_p": 0.8, "top_k": 5, "min_p": 0.1}, {"temperature": 0.3, "top_k": 5, "min_p": 0.1}),
        ({"frequency_penalty": -2, "presence_penalty": 2}, {"frequency_penalty": -2.0, "presence_penalty": 2.0}),
        ({"repetition_penalty": 1.2}, {"repetition_penalty": 1.2}),
        ({}, {"frequency_penalty": 0.0, "presence_penalty": 0.0, "repetition_penalty": 1.0, "logit_bias": {}}),
        ({"logit_bias": {"5": -100, "1023": 1.5}}, {"logit_bias": {5: -100.0, 1023: 1.5}}),
        ({"seed": 11}, {"seed": 11}),
    ],
)
def test_sampling_is_told_as_the_request_says(fields: dict[str, Any], told: dict[str, Any]) -> None:
    (request,) = engine_requests(**fields)
    assert {name: getattr(request.sampling, name) for name in told} == told


def test_stop_tokens_go_beside_those_of_the_model_or_alone() -> None:
    (both,) = engine_requests(stop_token_ids=[5, 6])
    assert both.stop_token_ids == [*checkpoint().stop_token_ids, 5, 6]
    (alone,) = engine_requests(stop_token_ids=[5, 6], ignore_eos=True)
    assert alone.stop_token_ids == [5, 6]


def test_bad_words_are_sequences_of_tokens_at_a_beginning_and_after_a_space() -> None:
    (request,) = engine_requests(bad_words=["sure"])
    assert request.bad_words == [tokenizer().encode("sure"), tokenizer().encode(" sure")]


def test_a_deadline_is_a_time_on_the_monotonic_clock() -> None:
    order = an_order(deadline_s=1.5)
    assert order.deadline_s == 1.5
    assert order.jobs[0].engine_request(ROOM).deadline_ms is not None


def test_n_answers_are_as_many_jobs_of_one_prompt_with_seeds_of_their_own() -> None:
    requests = engine_requests(n=3, seed=7)
    assert [request.sampling.seed for request in requests] == [7, 8, 9]
    assert len({request.request_id for request in requests}) == 3
    assert an_order(n=3).num_prompt_tokens == an_order().num_prompt_tokens


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"logit_bias": {"1024": 1}}, "logit_bias"),
        ({"stop_token_ids": [5, 1024]}, "stop_token_ids[1]"),
        ({"stop_token_ids": [-1]}, "stop_token_ids[0]"),
    ],
)
def test_tokens_that_the_vocabulary_lacks_are_refused(fields: dict[str, Any], param: str) -> None:
    error = refused(**fields)
    assert error.param == param
    assert "allowed are 0 to 1023" in error.message


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_too_many_tokens_are_told_by_the_name_that_the_client_used(name: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        engine_requests(**{name: 5000})
    assert (caught.value.param, caught.value.code) == (name, "context_length_exceeded")


def test_what_is_ignored_goes_into_a_header() -> None:
    order = an_order(user="u", messages=[{**USER, "name": "Ann"}])
    assert order.headers["x-glm-ignored"] == "user, messages[].name"
    assert "x-glm-ignored" not in an_order().headers


@pytest.mark.parametrize(
    ("fields", "wish"),
    [
        ({}, {}),
        ({"thinking": {"type": "enabled"}}, {"mode": "enabled"}),
        ({"thinking": {"type": "disabled"}}, {"mode": "disabled"}),
        ({"thinking": {"type": "auto", "threshold": 0.7}}, {"mode": "auto", "threshold": 0.7}),
        ({"thinking": {"clear_thinking": False}}, {"keeps_history": True}),
        ({"thinking": {"budget_tokens": 100}}, {"budget_tokens": 100}),
        ({"thinking": {"budget_tokens": 0}}, {"mode": "disabled", "budget_tokens": 0}),
        ({"chat_template_kwargs": {"enable_thinking": False}}, {"mode": "disabled"}),
        ({"chat_template_kwargs": {"clear_thinking": True}}, {"keeps_history": False}),
        ({"reasoning_effort": "none"}, {"mode": "disabled"}),
        ({"reasoning_effort": "low"}, {"mode": None, "effort": "low"}),
        ({"reasoning_effort": "medium"}, {"mode": None, "effort": "medium"}),
        ({"reasoning_effort": "high"}, {"mode": "enabled", "effort": "high"}),
        ({"reasoning_effort": "max"}, {"mode": "enabled", "effort": "xhigh"}),
        ({"reasoning": {"enabled": True}}, {"mode": "enabled"}),
        ({"reasoning": {"effort": "minimal"}}, {"mode": "enabled", "effort": "minimal"}),
        ({"reasoning": {"max_tokens": 64}}, {"mode": "enabled", "budget_tokens": 64}),
        ({"reasoning": {"exclude": True}}, {"shows": False}),
        ({"thinking_token_budget": 32}, {"budget_tokens": 32}),
        ({"include_reasoning": False}, {"shows": False}),
        ({"separate_reasoning": True}, {}),
        ({"thinking": {"type": "disabled"}, "reasoning_effort": "none"}, {"mode": "disabled"}),
    ],
)
def test_every_spelling_of_thinking_is_one_wish(fields: dict[str, Any], wish: dict[str, Any]) -> None:
    said = a_conversation(**fields).thinking
    assert {name: getattr(said, name) for name in WISHED} == {**dict.fromkeys(WISHED), **wish}


@pytest.mark.parametrize(
    ("fields", "both"),
    [
        (
            {"thinking": {"type": "enabled"}, "reasoning_effort": "none"},
            ("thinking.type: enabled", "reasoning_effort: none"),
        ),
        (
            {"thinking": {"type": "disabled"}, "chat_template_kwargs": {"enable_thinking": True}},
            ("thinking.type: disabled", "chat_template_kwargs.enable_thinking: true"),
        ),
        (
            {"include_reasoning": True, "reasoning": {"exclude": True}},
            ("reasoning.exclude: true", "include_reasoning: true"),
        ),
    ],
)
def test_spellings_that_contradict_each_other_are_refused_by_both_names(
    fields: dict[str, Any], both: tuple[str, str]
) -> None:
    error = refused(**fields)
    assert all(spelling in error.message for spelling in both)


def test_reasoning_inside_of_the_content_is_refused() -> None:
    assert refused(separate_reasoning=False).param == "separate_reasoning"


def test_the_threshold_of_auto_may_come_as_a_header() -> None:
    assert a_conversation(a_context(x_glm_auto_threshold="0.8")).thinking.threshold == 0.8
    with pytest.raises(RequestRefused) as caught:
        a_conversation(a_context(x_glm_auto_threshold="much"))
    assert caught.value.param == "x-glm-auto-threshold"


@pytest.mark.parametrize(
    ("fields", "content", "name"),
    [
        ({}, AnyText(), "response_format"),
        ({"response_format": {"type": "text"}}, AnyText(), "response_format"),
        ({"response_format": {"type": "json_object"}}, JsonObject(), "response_format"),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": SCHEMA, "strict": True},
                }
            },
            JsonSchema(SCHEMA, "response_format.json_schema.schema"),
            "response_format",
        ),
        ({"structured_outputs": {"json": SCHEMA}}, JsonSchema(SCHEMA, ""), "structured_outputs.json"),
        ({"structured_outputs": {"json": json.dumps(SCHEMA)}}, JsonSchema(SCHEMA, ""), "structured_outputs.json"),
        ({"structured_outputs": {"json_object": True}}, JsonObject(), "structured_outputs.json_object"),
        ({"structured_outputs": {"regex": "a+"}}, Regex("a+", ""), "structured_outputs.regex"),
        ({"structured_outputs": {"choice": ["a", "b"]}}, Choice(("a", "b"), ""), "structured_outputs.choice"),
        ({"guided_json": SCHEMA}, JsonSchema(SCHEMA, ""), "guided_json"),
        ({"guided_regex": "a+"}, Regex("a+", ""), "guided_regex"),
        ({"guided_choice": ["a", "b"]}, Choice(("a", "b"), ""), "guided_choice"),
    ],
)
def test_every_way_to_ask_for_a_format_is_one_form(fields: dict[str, Any], content: Any, name: str) -> None:
    conversation = a_conversation(**fields)
    assert conversation.content == content
    assert conversation.params.answer_format == name


def test_a_schema_in_a_text_that_is_no_json_is_refused() -> None:
    assert refused(guided_json='{"type": ').param == "guided_json"


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (None, "auto"),
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        ({"type": "function", "function": {"name": "f"}}, Named("f")),
    ],
)
def test_the_choice_of_tools_is_told(choice: Any, said: Any) -> None:
    conversation = a_conversation(tools=[TOOL], tool_choice=choice)
    assert conversation.tool_choice == said
    assert conversation.parallel_calls
    assert not a_conversation(tools=[TOOL], parallel_tool_calls=False).parallel_calls


def test_strictness_is_told_to_the_core_and_not_to_the_model() -> None:
    strict = {"type": "function", "function": {**TOOL["function"], "strict": True}, "cache_control": {"type": "x"}}  # type: ignore[dict-item]
    (offered,) = a_conversation(tools=[strict]).tools
    assert offered.is_strict
    assert offered.as_rendered == TOOL
    assert not a_conversation(tools=[TOOL]).tools[0].is_strict


def test_an_answer_goes_on_with_what_the_assistant_said() -> None:
    messages = [USER, {"role": "assistant", "content": "It is"}]
    (request,) = engine_requests(messages=messages, continue_final_message=True, add_generation_prompt=False)
    end = tokenizer().encode("It is")
    assert request.prompt_token_ids[-len(end) :] == end


@pytest.mark.parametrize(
    ("arguments", "left"), [("{", {}), ('{"a": "x", "b": "unfin', {"a": "x"}), ('{"a": {"b": 1}', {"a": {"b": 1}})]
)
def test_a_call_that_was_cut_comes_back_with_its_whole_arguments(arguments: str, left: Any) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    turn = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert a_conversation(messages=[USER, turn, USER]).turns[1].calls[0].arguments == left


@pytest.mark.parametrize("arguments", ["[1", "{'a': 1", '{"a": 1}}', '{"a": 1 b'])
def test_a_call_with_arguments_that_are_no_beginning_of_an_object_is_refused(arguments: str) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    with pytest.raises(RequestRefused) as caught:
        a_conversation(messages=[USER, {"role": "assistant", "content": None, "tool_calls": [call]}])
    assert caught.value.param == "messages[1].tool_calls[0].function.arguments"


def test_null_content_of_a_tool_is_nothing() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [USER, {"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "content": None}]
    assert engine_requests(messages=messages)


def test_a_refusal_of_the_assistant_is_what_it_said() -> None:
    parts = [{"type": "refusal", "refusal": "no"}, {"type": "text", "text": " way"}]
    conversation = a_conversation(messages=[USER, {"role": "assistant", "content": parts}])
    assert conversation.turns[1].text == "no way"
