"""The sentence that says what is wrong with a body: where, what, what is allowed, and nothing of the prompt."""

import json
from typing import Any

import pytest

from glm_worker.errors import RequestRefused
from glm_worker.server.openai.chat.request import ChatCompletionRequest
from glm_worker.server.openai.completions.request import CompletionRequest
from glm_worker.server.refusals import json_in, parse

USER = {"role": "user", "content": "hi"}
CANARY = "a secret of whoever asks"


def refused(body: bytes | None = None, **fields: Any) -> RequestRefused:
    if body is None:
        body = json.dumps({"model": "m", "messages": [USER], **fields}).encode()
    with pytest.raises(RequestRefused) as caught:
        parse(ChatCompletionRequest, body)
    return caught.value


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"5", b'"x"', b"\xff", b'{"model": "m"} x'])
def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    assert "JSON" in refused(body).message


def test_a_body_of_another_kind_has_a_code() -> None:
    refusal = refused(b"[]")
    assert (refusal.message, refusal.code) == ("the body must be a JSON object", "invalid_value")


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b'{"a":' * 5000, "the body is nested too deeply at line 1 column"),
        (
            b'{"model": "m",\n "max_tokens": ' + b"9" * 5000 + b"}",
            "the body has a number out of range at line 2 column",
        ),
        (b'{"model": "\\ud800"}', "the body has half of a surrogate pair, which is no character, at line 1 column"),
        (b'{"model": "\\ude00"}', "the body has half of a surrogate pair, which is no character, at line 1 column"),
        (b'{"model": "\xff"}', "the body has bytes that are not UTF-8 at line 1 column 12"),
    ],
)
def test_what_json_allows_and_this_server_does_not_is_told_with_its_place(body: bytes, sentence: str) -> None:
    error = refused(body)
    assert sentence in error.message
    assert "not valid JSON" not in error.message


def test_an_escape_that_is_cut_off_is_no_surrogate() -> None:
    assert "not valid JSON" in refused(b'{"model": "\\u12"}').message


def test_json_inside_of_a_parameter_is_told_with_its_name() -> None:
    with pytest.raises(RequestRefused, match="guided_json has half of a surrogate pair") as caught:
        json_in('{"a": "\\ud83d"}', "guided_json")
    assert caught.value.param == "guided_json"


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
        assert "half of a surrogate pair" in refused(**fields).message


def test_one_mistake_of_many_is_named_with_the_count() -> None:
    assert refused(temperature=9).message == "temperature is 9; allowed: 0 to 2"
    assert refused(temperature=9, top_p=9).message == "temperature is 9; allowed: 0 to 2 (and 1 more mistake)"
    three = refused(temperature=9, top_p=9, seed="x", zz=1)
    assert three.message == "temperature is 9; allowed: 0 to 2 (and 3 more mistakes)"
    assert three.param == "temperature"


def test_options_of_a_union_are_one_mistake_with_all_that_is_allowed() -> None:
    assert refused(stop=5).message == "stop is a number; allowed: a string or an array"
    assert refused(messages=[{"role": "user", "content": 5}]).message == (
        "messages[0].content is a number; allowed: a string or an array"
    )
    assert refused(tool_choice="any").message == (
        "tool_choice is 'any'; allowed: 'auto', 'none' or 'required' or an object"
    )


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"temperature": "warm"}, "temperature is 'warm'; allowed: a number"),
        ({"max_tokens": 1.5}, "max_tokens is 1.5; allowed: a whole number"),
        ({"stream": 1}, "stream is 1; allowed: true or false"),
        ({"model": None}, "model is null; allowed: a string"),
        ({"thinking": True}, "thinking is true; allowed: an object"),
        ({"thinking": {"type": "on"}}, "thinking.type is 'on'; allowed: 'enabled', 'disabled' or 'auto'"),
        ({"metadata": {"k": 5}}, "metadata.k is a number; allowed: a string"),
        ({"seed": 10**200}, "seed is a number of more than 100 digits; allowed: -9223372036854775808 to"),
        ({"messages": []}, "messages has 0 items; allowed: at least 1"),
        ({"stop": ["a"] * 17}, "stop has 17 items; allowed: at most 16"),
        ({"stop": "x" * 2000}, "stop has 2000 characters; allowed: at most 1024"),
        ({"top_kk": 5}, "unknown field top_kk; did you mean top_k?"),
        ({"messages": [{**USER, "zz": 1}]}, "unknown field messages[0].zz; allowed beside it: cache_control, content"),
    ],
)
def test_a_mistake_is_told_with_the_value_and_what_is_allowed(fields: dict[str, Any], sentence: str) -> None:
    assert refused(**fields).message.startswith(sentence)


def test_very_many_unknown_fields_are_only_counted() -> None:
    fields: dict[str, Any] = {f"z{number}": 1 for number in range(2000)}
    assert "2000 mistakes" in refused(**fields).message


def test_of_many_wrong_items_the_first_is_told() -> None:
    assert refused(messages=[{"role": "robot"}] * 2000).param == "messages[0].role"
    assert refused(messages=[{"role": "user", "content": [5] * 2000}]).param == "messages[0].content[0]"


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": CANARY},
        {"messages": [CANARY]},
        {"messages": [{"role": "user", "content": {"text": CANARY}}]},
        {"messages": [{"role": "user", "content": [CANARY]}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": [CANARY]}]}]},
        {"messages": [{"role": "user", "content": CANARY, "name": [CANARY]}]},
        {"messages": [USER, {"role": "assistant", "reasoning": CANARY, "reasoning_content": "other"}]},
        {"stop": {"a": CANARY}},
        {"user": {"a": CANARY}},
        {"tools": [{"type": "function", "function": {"name": CANARY}}]},
        {"response_format": {"type": "json_schema", "json_schema": CANARY}},
        {"guided_choice": CANARY},
    ],
)
def test_nothing_of_a_prompt_is_told_back(fields: dict[str, Any]) -> None:
    assert CANARY not in refused(**fields).message


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
        {"n": "9" * 1000},
    ],
)
def test_nothing_is_told_back_at_length(fields: dict[str, Any]) -> None:
    error = refused(**fields)
    allowed = error.message.partition("allowed")[0]  # what follows are our own words
    assert len(allowed) < 250
    assert len(error.message) < 1000
    assert len(error.param or "") <= 100


def _told(model: Any, fields: dict[str, Any]) -> str:
    """Return what is told of these fields, or nothing when they are accepted."""
    try:
        parse(model, json.dumps(fields).encode())
    except RequestRefused as error:
        return error.message
    return ""


@pytest.mark.parametrize("model", [ChatCompletionRequest, CompletionRequest])
@pytest.mark.parametrize("value", [None, True, 5, -1e300, "x", [], [[]], {}, {"a": 1}, [{}], [None]])
def test_no_refusal_shows_what_the_server_is_made_of(model: Any, value: Any) -> None:
    """No address of the validator's documentation, no names of classes, no quoting of its own."""
    for field in model.model_fields:
        body = {"model": "m", "messages": [USER], "prompt": "x"}
        body.pop("prompt" if model is ChatCompletionRequest else "messages")
        told = _told(model, {**body, field: value})
        for sign in ("pydantic", "http", "Message", "Request", "input_value", "valid ", "Input", "instance"):
            assert sign not in told
