"""What the API accepts, and how it refuses the rest: the field, its value, and what is allowed."""

import json
from typing import Any

import pytest

from glm_worker.errors import RequestRefused
from glm_worker.server.openai.schema import ChatCompletionRequest, CompletionRequest
from glm_worker.server.refusals import parse

USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def chat(**fields: Any) -> ChatCompletionRequest:
    return parse(ChatCompletionRequest, json.dumps({"model": "m", "messages": [USER], **fields}).encode())


def refused(**fields: Any) -> RequestRefused:
    with pytest.raises(RequestRefused) as caught:
        chat(**fields)
    return caught.value


NEUTRAL: dict[str, list[Any]] = {
    "n": [1],
    "user": ["somebody"],
    "presence_penalty": [0, 0.0],
    "frequency_penalty": [0],
    "logit_bias": [{}],
    "logprobs": [False],
    "top_logprobs": [0],
    "parallel_tool_calls": [True],
    "tool_choice": ["auto", "none"],
    "response_format": [{"type": "text"}],
    "store": [False],
    "metadata": [{}],
    "service_tier": ["auto", "default"],
    "modalities": [["text"]],
    "reasoning_effort": ["medium"],
}
LATER: dict[str, list[Any]] = {
    "n": [2],
    "presence_penalty": [0.5],
    "frequency_penalty": [-1],
    "logit_bias": [{"5": 1}],
    "logprobs": [True],
    "top_logprobs": [3],
    "parallel_tool_calls": [False],
    "tool_choice": ["required", {"type": "function", "function": {"name": "f"}}],
    "response_format": [{"type": "json_object"}],
    "store": [True],
    "metadata": [{"a": "b"}],
    "service_tier": ["priority"],
    "modalities": [["audio"]],
    "reasoning_effort": ["high"],
}


@pytest.mark.parametrize(("field", "value"), [(f, v) for f, values in NEUTRAL.items() for v in [*values, None]])
def test_neutral_values_of_later_fields_are_accepted(field: str, value: Any) -> None:
    chat(**{field: value})


@pytest.mark.parametrize(("field", "value"), [(f, v) for f, values in LATER.items() for v in values])
def test_other_values_of_later_fields_are_refused_by_name(field: str, value: Any) -> None:
    error = refused(**{field: value})
    assert error.param == field
    assert "allowed" in error.message


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("temperature", -0.1, "0 to 2"),
        ("temperature", 2.1, "0 to 2"),
        ("top_p", 0, "0 to 1, without 0"),
        ("top_p", 1.5, "0 to 1"),
        ("top_k", -2, "-1 to"),
        ("min_p", 1, "without 1"),
        ("seed", 2**63, str(2**63 - 1)),
        ("max_tokens", 0, "1"),
        ("max_completion_tokens", 0, "1"),
    ],
)
def test_sampling_out_of_bounds_is_refused_with_value_and_range(field: str, value: float, allowed: str) -> None:
    error = refused(**{field: value})
    assert error.param == field
    assert str(value) in error.message
    assert allowed in error.message


@pytest.mark.parametrize(
    ("field", "value"), [("temperature", 0), ("temperature", 2), ("top_p", 1), ("top_k", -1), ("min_p", 0)]
)
def test_the_ends_of_the_bounds_are_allowed(field: str, value: float) -> None:
    assert getattr(chat(**{field: value}), field) == value


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"zz": 1}, "zz"),
        ({"extra_body": {"enable_thinking": False}}, "extra_body"),
        ({"messages": [{**USER, "zz": 1}]}, "messages[0].zz"),
        ({"thinking": {"type": "enabled", "budget": 5}}, "thinking.budget"),
        ({"chat_template_kwargs": {"foo": True}}, "chat_template_kwargs.foo"),
        ({"stream": True, "stream_options": {"foo": True}}, "stream_options.foo"),
        ({"tools": [{**TOOL, "zz": 1}]}, "tools[0].zz"),
    ],
)
def test_unknown_fields_are_refused_by_their_path(fields: dict[str, Any], param: str) -> None:
    error = refused(**fields)
    assert (error.param, error.code, error.status) == (param, "unknown_parameter", 400)
    assert "allowed" in error.message


def test_the_fields_allowed_beside_an_unknown_one_are_those_of_its_role() -> None:
    error = refused(messages=[{"role": "tool", "content": "4", "refusal": None}])
    assert "tool_call_id" in error.message
    assert "reasoning" not in error.message


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ("hi", "messages"),
        ([{"content": "hi"}], "messages[0].role"),
        ([{"role": "robot", "content": "hi"}], "messages[0].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([USER, {"role": "user", "content": 5}], "messages[1].content"),
        ([{"role": "user", "content": None}], "messages[0].content"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
            "messages[0].content[0].type",
        ),
        ([{**USER, "name": "Ann"}], "messages[0].name"),
        (
            [{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}],
            "messages[0].tool_calls[0].function.arguments",
        ),
    ],
)
def test_messages_that_cannot_be_are_refused_by_their_path(messages: Any, param: str) -> None:
    assert refused(messages=messages).param == param


def test_what_an_openai_client_sends_back_is_accepted() -> None:
    answer = {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "audio": None,
        "function_call": None,
        "annotations": [],
    }
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    chat(
        messages=[
            USER,
            {**answer, "tool_calls": [call]},
            {"role": "tool", "content": "4", "tool_call_id": "c", "name": "f"},
        ]
    )


@pytest.mark.parametrize(
    ("switches", "flag"),
    [
        ({}, None),
        ({"thinking": {"type": "enabled"}}, True),
        ({"thinking": {"type": "disabled"}}, False),
        ({"chat_template_kwargs": {"enable_thinking": False}}, False),
        ({"chat_template_kwargs": {}}, None),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "none", "thinking": {"type": "disabled"}}, False),
    ],
)
def test_three_switches_are_one_flag(switches: dict[str, Any], flag: bool | None) -> None:
    assert chat(**switches).enable_thinking is flag


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"thinking": {"type": "enabled"}, "reasoning_effort": "none"}, "thinking"),
        ({"thinking": {"type": "disabled"}, "chat_template_kwargs": {"enable_thinking": True}}, "thinking"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stop": ["a", ""]}, "stop"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"tools": [TOOL, TOOL]}, "tools"),
        ({"messages": [USER, {"role": "assistant", "reasoning": "a", "reasoning_content": "b"}]}, "messages"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(fields: dict[str, Any], param: str) -> None:
    assert refused(**fields).param == param


def test_both_names_of_max_tokens_mean_the_same() -> None:
    assert chat(max_tokens=5).answer_tokens == 5
    assert chat(max_completion_tokens=6).answer_tokens == 6
    assert chat(max_tokens=5, max_completion_tokens=5).answer_tokens == 5
    assert chat().answer_tokens is None


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"5", b'"x"', b"\xff", b'{"model": "\\ud800"}', b'{"a":' * 5000])
def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(RequestRefused, match="JSON"):
        parse(ChatCompletionRequest, body)


@pytest.mark.parametrize("value", ["1", True, [1]])
def test_numbers_are_not_guessed_from_other_types(value: Any) -> None:
    assert refused(temperature=value).param == "temperature"


def test_not_a_number_is_no_temperature() -> None:
    with pytest.raises(RequestRefused, match="temperature"):
        parse(
            ChatCompletionRequest, b'{"model": "m", "messages": [{"role": "user", "content": "x"}], "temperature": NaN}'
        )


@pytest.mark.parametrize("name", ["", "has space", "x" * 129, "naïve"])
def test_function_names_are_checked(name: str) -> None:
    assert refused(tools=[{"type": "function", "function": {"name": name}}]).param == "tools[0].function.name"


def test_a_long_value_is_shown_in_short() -> None:
    assert len(refused(n="9" * 1000).message) < 200


@pytest.mark.parametrize(
    "fields", [{"echo": True}, {"suffix": "x"}, {"best_of": 2}, {"logprobs": 1}, {"prompt": ["a", "b"]}]
)
def test_completions_refuse_what_comes_later(fields: dict[str, Any]) -> None:
    with pytest.raises(RequestRefused) as caught:
        parse(CompletionRequest, json.dumps({"model": "m", "prompt": "x", **fields}).encode())
    assert caught.value.param == next(iter(fields)) or caught.value.param == "prompt[0]"


@pytest.mark.parametrize("prompt", [["a", "b"], ["a"], [[1], [2]], [1, "a"], None, 5])
def test_prompts_that_are_not_one_are_told_what_to_send(prompt: Any) -> None:
    with pytest.raises(
        RequestRefused, match="a list of prompts is not supported; send one string or one list"
    ) as caught:
        parse(CompletionRequest, json.dumps({"model": "m", "prompt": prompt}).encode())
    assert caught.value.param == "prompt"


@pytest.mark.parametrize(
    "fields",
    [
        {"z" * 3000: 1},
        {"messages": [{"role": "r" * 3000, "content": "hi"}]},
        {"messages": [{**USER, "z" * 3000: 1}]},
        {"tools": [{"type": "t" * 3000}]},
        {"temperature": "9" * 3000},
        {"temperature": 10**3000},
        {"stop": [{"k" * 3000: 1}]},
        {"tool_choice": {"k" * 3000: ["v" * 3000] * 3000}},
    ],
)
def test_nothing_is_told_back_at_length(fields: dict[str, Any]) -> None:
    error = refused(**fields)
    allowed = error.message.partition("allowed")[0]  # what follows are our own words
    assert len(allowed) < 250
    assert len(error.message) < 1000
    assert len(error.param or "") <= 100


def test_of_many_wrong_items_the_first_is_told() -> None:
    assert refused(messages=[{"role": "robot"}] * 2000).param == "messages[0].role"
    assert refused(messages=[{"role": "user", "content": [5] * 2000}]).param == "messages[0].content[0]"


def test_very_many_unknown_fields_are_only_counted() -> None:
    assert "2000 mistakes" in refused(**{f"z{number}": 1 for number in range(2000)}).message


def test_lone_surrogates_are_refused_in_every_text() -> None:
    lone = "\ud83d"
    for fields in (
        {"messages": [{"role": "user", "content": lone}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": lone}]}]},
        {"messages": [{"role": "assistant", "reasoning_content": lone}]},
        {"tools": [{"type": "function", "function": {"name": "f", "description": lone}}]},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {lone: lone}}}]},
        {"stop": lone},
        {"user": lone},
    ):
        assert "JSON" in refused(**fields).message
