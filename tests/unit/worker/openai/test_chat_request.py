"""What the API accepts, and how it refuses the rest: the field, its value, and what is allowed."""

import json
from typing import Any

import pytest

from glm_worker.errors import RequestRefused
from glm_worker.server.openai.chat.request import ChatCompletionRequest
from glm_worker.server.refusals import parse

USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def chat(**fields: Any) -> ChatCompletionRequest:
    return parse(ChatCompletionRequest, json.dumps({"model": "m", "messages": [USER], **fields}).encode())


def refused(**fields: Any) -> RequestRefused:
    with pytest.raises(RequestRefused) as caught:
        chat(**fields)
    return caught.value


NO_WISH: dict[str, list[Any]] = {
    "n": [1],
    "presence_penalty": [0, 0.0],
    "frequency_penalty": [0],
    "repetition_penalty": [1],
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
    "verbosity": ["medium"],
    "skip_special_tokens": [True],
    "include_stop_str_in_output": [False],
    "add_generation_prompt": [True],
    "continue_final_message": [False],
}
NO_EFFECT: dict[str, Any] = {
    "user": "somebody",
    "safety_identifier": "s",
    "prompt_cache_key": "k",
    "prompt_cache_retention": "24h",
    "verbosity": "low",
    "store": True,
    "metadata": {"a": "b"},
    "service_tier": "priority",
}


@pytest.mark.parametrize(("field", "value"), [(f, v) for f, values in NO_WISH.items() for v in [*values, None]])
def test_values_that_ask_for_nothing_are_accepted_and_not_called_ignored(field: str, value: Any) -> None:
    assert list(chat(**{field: value}).ignored()) == []


@pytest.mark.parametrize(("field", "value"), NO_EFFECT.items())
def test_what_stock_clients_send_and_nothing_honours_is_called_ignored(field: str, value: Any) -> None:
    assert list(chat(**{field: value}).ignored()) == [field]


def test_names_and_cache_controls_are_called_ignored_by_their_place() -> None:
    mark = {"type": "ephemeral"}
    part = {"type": "text", "text": "hi", "cache_control": mark}
    request = chat(
        messages=[{**USER, "name": "Ann"}, {**USER, "cache_control": mark}, {"role": "user", "content": [part]}],
        tools=[{**TOOL, "cache_control": mark}],
        stream=True,
        stream_options={"include_obfuscation": True},
    )
    assert list(request.ignored()) == [
        "stream_options.include_obfuscation",
        "messages[].name",
        "messages[].cache_control",
        "messages[].content[].cache_control",
        "tools[].cache_control",
    ]


def test_what_a_package_parsed_of_an_answer_may_come_back_and_is_called_ignored() -> None:
    """As openai's `messages.append(completion.choices[0].message)` does after parse()."""
    function = {"name": "f", "arguments": '{"a": 1}', "parsed_arguments": {"a": 1}}
    call = {"id": "c", "type": "function", "function": function}
    answer = {"role": "assistant", "content": None, "parsed": {"b": 2}, "tool_calls": [call]}
    result = {"role": "tool", "content": "1", "tool_call_id": "c"}
    assert list(chat(messages=[USER, answer, result]).ignored()) == [
        "messages[].parsed",
        "messages[].tool_calls[].function.parsed_arguments",
    ]
    function["parsed_arguments"], answer["parsed"] = None, None
    assert not list(chat(messages=[USER, answer, result]).ignored())


def test_the_name_of_a_tools_result_says_nothing_new() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    result = {"role": "tool", "content": None, "tool_call_id": "c", "name": "f"}
    assert not list(chat(messages=[USER, {"role": "assistant", "tool_calls": [call]}, result]).ignored())


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
        ([{**USER, "name": "A" * 129}], "messages[0].name"),
        ([{"role": "tool", "tool_call_id": "c"}], "messages[0].content"),
        (
            [{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}],
            "messages[0].tool_calls[0].function.arguments",
        ),
    ],
)
def test_messages_that_cannot_be_are_refused_by_their_path(messages: Any, param: str) -> None:
    assert refused(messages=messages).param == param


def test_what_an_openai_client_sends_back_is_accepted() -> None:
    answer: dict[str, Any] = {
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
    ("fields", "param"),
    [
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stop": ["a", ""]}, "stop[1]"),
        ({"stop": ""}, "stop"),
        ({"stop": "x" * 1025}, "stop"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": False, "top_logprobs": 2}, "top_logprobs"),
        ({"min_tokens": 6, "max_tokens": 5}, "min_tokens"),
        ({"min_tokens": 6, "max_completion_tokens": 5}, "min_tokens"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "required", "tools": []}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "g"}}, "tools": [TOOL]}, "tool_choice"),
        ({"continue_final_message": True, "add_generation_prompt": True}, "continue_final_message"),
        ({"continue_final_message": True}, "continue_final_message"),
        ({"add_generation_prompt": False}, "add_generation_prompt"),
        (
            {"response_format": {"type": "json_object"}, "guided_regex": "a"},
            "guided_regex",
        ),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs.choice"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"tools": [TOOL, TOOL]}, "tools"),
        (
            {"messages": [USER, {"role": "assistant", "reasoning": "a", "reasoning_content": "b"}]},
            "messages[1].reasoning",
        ),
    ],
)
def test_fields_that_contradict_each_other_are_refused(fields: dict[str, Any], param: str) -> None:
    assert refused(**fields).param == param


def test_both_names_of_max_tokens_mean_the_same() -> None:
    assert chat(max_tokens=5).answer_tokens == 5
    assert chat(max_completion_tokens=6).answer_tokens == 6
    assert chat(max_tokens=5, max_completion_tokens=5).answer_tokens == 5
    assert chat().answer_tokens is None


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


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 17}, "n"),
        ({"n": 0}, "n"),
        ({"messages": [USER] * 4097}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * 1025}]}, "messages[0].content"),
        ({"tools": [{"type": "function", "function": {"name": f"f{n}"}} for n in range(513)]}, "tools"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop_token_ids": [1] * 129}, "stop_token_ids"),
        ({"bad_words": ["a"] * 129}, "bad_words"),
        ({"bad_words": ["a" * 257]}, "bad_words[0]"),
        ({"bad_words": [""]}, "bad_words[0]"),
        ({"logit_bias": {str(n): 1 for n in range(301)}}, "logit_bias"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5"),
        ({"logit_bias": {"x": 1}}, "logit_bias.x"),
        ({"logit_bias": {"-1": 1}}, "logit_bias.-1"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"metadata": {str(n): "v" for n in range(17)}}, "metadata"),
        ({"metadata": {"k" * 65: "v"}}, "metadata." + "k" * 65),
        ({"metadata": {"k": "v" * 513}}, "metadata.k"),
        ({"user": "u" * 513}, "user"),
        ({"priority": 2**31}, "priority"),
        ({"deadline_s": 0}, "deadline_s"),
        ({"deadline_s": 86_401}, "deadline_s"),
        ({"max_tokens": 2**31}, "max_tokens"),
        ({"frequency_penalty": 2.1}, "frequency_penalty"),
        ({"presence_penalty": -2.1}, "presence_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"thinking": {"budget_tokens": -1}}, "thinking.budget_tokens"),
        ({"thinking": {"threshold": 1.5}}, "thinking.threshold"),
        ({"guided_choice": []}, "guided_choice"),
        ({"guided_choice": ["a"] * 1001}, "guided_choice"),
        ({"guided_regex": "a" * 8193}, "guided_regex"),
        ({"structured_outputs": {"choice": ["a" * 1025]}}, "structured_outputs.choice[0]"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x" * 65, "schema": {}}}},
         "response_format.json_schema.name"),
    ],
)  # fmt: skip
def test_every_size_that_a_request_controls_is_bounded(fields: dict[str, Any], param: str) -> None:
    error = refused(**fields)
    assert error.param == param
    assert "allowed" in error.message


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 16},
        {"tools": [{"type": "function", "function": {"name": f"f{n}"}} for n in range(512)]},
        {"stop": ["a"] * 16},
        {"logit_bias": {str(n): 100 for n in range(300)}},
        {"logprobs": True, "top_logprobs": 20},
        {"metadata": {str(n): "v" * 512 for n in range(16)}},
    ],
)
def test_what_just_keeps_to_the_bounds_is_accepted(fields: dict[str, Any]) -> None:
    chat(**fields)


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file", "video_url"])
def test_a_part_that_is_no_text_is_refused_by_its_kind_alone(kind: str) -> None:
    error = refused(messages=[{"role": "user", "content": [{"type": kind, kind: {"url": "https://x"}}]}])
    assert error.param == "messages[0].content[0].type"
    assert error.code == "unsupported_content"
    assert f"is '{kind}', but this model reads text only" in error.message
    assert "more mistake" not in error.message


@pytest.mark.parametrize(
    ("field", "value", "instead"),
    [
        ("extra_body", {"enable_thinking": False}, "belong into the body"),
        ("functions", [], "use tools"),
        ("function_call", "auto", "use tool_choice"),
        ("guided_grammar", "root ::= x", "regular expression"),
        ("chat_template", "{{ x }}", "the checkpoint's"),
        ("enable_thinking", False, "use thinking.type"),
    ],
)
def test_fields_of_other_servers_are_refused_with_what_to_do_instead(field: str, value: Any, instead: str) -> None:
    error = refused(**{field: value})
    assert (error.param, error.code) == (field, "unsupported_parameter")
    assert instead in error.message


def test_a_grammar_is_refused_by_name() -> None:
    error = refused(structured_outputs={"grammar": "root ::= x"})
    assert (error.param, error.code) == ("structured_outputs.grammar", "unsupported_parameter")


def test_the_tools_of_stock_clients_are_accepted() -> None:
    strict = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}
    request = chat(
        tools=[strict], tool_choice={"type": "function", "function": {"name": "f"}}, parallel_tool_calls=False
    )
    assert request.tools is not None
    assert request.tools[0].function.strict is True


def test_a_turn_to_go_on_with_is_the_assistants() -> None:
    begun = [USER, {"role": "assistant", "content": "It is"}]
    assert chat(messages=begun, continue_final_message=True, add_generation_prompt=False).goes_on
    assert chat(messages=begun, add_generation_prompt=False).goes_on
    assert not chat(messages=begun).goes_on
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert refused(
        messages=[USER, {"role": "assistant", "content": "x", "tool_calls": [call]}], continue_final_message=True
    ).param == "continue_final_message"  # fmt: skip


def test_the_bounds_are_in_the_description_of_the_api() -> None:
    fields = ChatCompletionRequest.model_json_schema()["properties"]

    def bounds(name: str) -> list[dict[str, Any]]:
        return [option for option in fields[name]["anyOf"] if option.get("type") in ("integer", "number")]

    assert bounds("n") == [{"type": "integer", "minimum": 1, "maximum": 16}]
    assert bounds("top_p") == [{"type": "number", "exclusiveMinimum": 0, "maximum": 1}]
    assert fields["skip_special_tokens"]["enum"] == [True, None]
    assert fields["messages"]["maxItems"] == 4096
