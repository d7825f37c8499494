"""From the bodies of Anthropic's messages to prompts: blocks, turns, tools, thinking, and what is refused by name."""

import json
from typing import Any

import pytest

from glm_worker.errors import RequestRefused
from glm_worker.server.anthropic.intake import Intake, conversation_of
from glm_worker.server.anthropic.schema import CountRequest
from glm_worker.server.jobs.conversation import Conversation, Named
from glm_worker.server.jobs.job import Room
from glm_worker.server.structured.formats import JsonSchema
from unit.worker.anthropic.bodies import USER, a_context, order_of, prompt_of

TOOL = {"name": "f", "description": "d", "input_schema": {"type": "object"}}
CALL = {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": "x", "b": [1, "ü"]}}
CACHED = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}


def a_text(text: str, **fields: Any) -> dict[str, Any]:
    return {"type": "text", "text": text, **fields}


def a_result(of: str, content: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": of, "content": content, **fields}


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def a_conversation(**fields: Any) -> Conversation:
    body = {"model": "glm-nano", "messages": [USER], **fields}
    return conversation_of(CountRequest.model_validate_json(json.dumps(body)))


def refusal(**fields: Any) -> RequestRefused:
    with pytest.raises(RequestRefused) as caught:
        order_of(**fields)
    return caught.value


def test_text_is_the_same_as_one_block_of_it() -> None:
    assert prompt_of(order_of(messages=[user(a_text("hi"))])) == prompt_of(order_of(messages=[USER]))


def test_the_system_prompt_comes_first_and_its_blocks_are_lines() -> None:
    order = order_of(system=[a_text("a"), a_text("b")])
    assert prompt_of(order) == "[gMASK]<sop><|system|>\na\nb<|user|>\nhi<|assistant|>"
    assert prompt_of(order_of(system="a\nb")) == prompt_of(order)
    assert prompt_of(order_of(system="")) == prompt_of(order_of())


def test_a_system_message_stands_where_it_was_sent() -> None:
    prompt = prompt_of(order_of(messages=[USER, {"role": "system", "content": "be brief"}, USER]))
    assert prompt == "[gMASK]<sop><|user|>\nhi<|system|>\nbe brief<|user|>\nhi<|assistant|>"


def test_consecutive_messages_of_one_role_are_one_turn() -> None:
    apart = order_of(messages=[USER, user(a_text("there")), assistant(a_text("a")), assistant(a_text("b")), USER])
    joined = order_of(messages=[user(a_text("hi\nthere")), assistant(a_text("a\nb")), USER])
    assert prompt_of(apart) == prompt_of(joined)


def test_results_go_before_the_text_beside_them_in_the_order_of_their_calls() -> None:
    calls = assistant({"type": "thinking", "thinking": "hm", "signature": "s"}, CALL, {**CALL, "id": "t2"})
    results = user(a_text("go on"), a_result("t2", "two"), a_result("t1", [a_text("one"), a_text("more")]))
    prompt = prompt_of(order_of(messages=[USER, calls, results], tools=[TOOL]))
    assert prompt.endswith(
        "<|observation|>\n<tool_response>\none\nmore\n</tool_response>\n<tool_response>\ntwo\n</tool_response>"
        "<|user|>\ngo on<|assistant|>"
    )


def test_a_call_and_its_thought_come_back_as_the_model_wrote_them() -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "of anybody"}
    prompt = prompt_of(order_of(messages=[USER, assistant(thought, CALL), user(a_result("t1", "4"))], tools=[TOOL]))
    assert "<think>hm</think>\n<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>x</arg_value>" in prompt
    assert '<arg_value>[1, "ü"]</arg_value>' in prompt


def test_a_thought_that_nobody_can_read_is_left_out() -> None:
    redacted = {"type": "redacted_thinking", "data": "c2VjcmV0"}
    messages = [USER, assistant(redacted, a_text("ok")), USER]
    assert prompt_of(order_of(messages=messages)) == prompt_of(order_of(messages=[USER, assistant(a_text("ok")), USER]))


def test_think_tags_in_the_text_of_an_answer_are_text() -> None:
    prompt = prompt_of(order_of(messages=[USER, assistant(a_text("<think>a</think>b")), USER]))
    assert "<think></think>\n<think>a</think>b<|user|>" in prompt


@pytest.mark.parametrize(
    ("content", "is_error", "told"),
    [
        ("no such file", True, "Error: no such file"),
        ("Error: 5", True, "Error: 5"),
        ("5", False, "5"),
        (None, None, ""),
    ],
)
def test_a_result_that_is_an_error_says_so(content: Any, is_error: Any, told: str) -> None:
    result = a_result("t1", content, is_error=is_error)
    prompt = prompt_of(order_of(messages=[USER, assistant(CALL), user(result)], tools=[TOOL]))
    assert f"<tool_response>\n{told}\n</tool_response>" in prompt


def test_tools_are_shown_as_functions() -> None:
    shown = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
    order = order_of(tools=[{**TOOL, "type": "custom", **CACHED}])
    assert json.dumps(shown) in prompt_of(order)
    assert set(order.jobs[0].tools) == {"f"}


def test_tools_are_offered_unless_the_choice_is_none() -> None:
    assert prompt_of(order_of(tools=[TOOL], tool_choice={"type": "none"})) == prompt_of(order_of())
    offered = prompt_of(order_of(tools=[TOOL]))
    assert prompt_of(order_of(tools=[TOOL], tool_choice={"type": "auto"})) == offered


@pytest.mark.parametrize(
    ("choice", "meant", "is_parallel"),
    [
        (None, "auto", True),
        ({"type": "auto"}, "auto", True),
        ({"type": "any"}, "required", True),
        ({"type": "tool", "name": "f"}, Named("f"), True),
        ({"type": "none"}, "none", True),
        ({"type": "auto", "disable_parallel_tool_use": True}, "auto", False),
        ({"type": "any", "disable_parallel_tool_use": True}, "required", False),
        ({"type": "tool", "name": "f", "disable_parallel_tool_use": False}, Named("f"), True),
    ],
)
def test_a_choice_of_tools_is_what_it_is_everywhere(choice: Any, meant: Any, is_parallel: bool) -> None:
    conversation = a_conversation(tools=[TOOL], tool_choice=choice)
    assert (conversation.tool_choice, conversation.parallel_calls) == (meant, is_parallel)


def test_a_strict_tool_is_one_whose_arguments_validate() -> None:
    strict, other = a_conversation(tools=[{**TOOL, "strict": True}, {**TOOL, "name": "g"}]).tools
    assert (strict.is_strict, strict.param) == (True, "tools[0].input_schema")
    assert (other.is_strict, other.param) == (False, "tools[1].input_schema")


def test_a_schema_binds_the_answer_by_its_newer_and_its_older_name() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    of = {"type": "json_schema", "schema": schema}
    newer = a_conversation(output_config={"format": of}).content
    older = a_conversation(output_format=of).content
    assert newer == older == JsonSchema(schema, "")
    assert isinstance(newer, JsonSchema)
    assert isinstance(older, JsonSchema)
    assert (newer.param, older.param) == ("output_config.format.schema", "output_format.schema")
    assert a_conversation(output_format=of, output_config={"format": of}).content == newer
    other = {"type": "json_schema", "schema": {"type": "object"}}
    assert refusal(output_format=of, output_config={"format": other}).param == "output_format"


def test_sampling_and_stops_are_the_requests() -> None:
    order = order_of(temperature=0.5, top_p=0.9, top_k=7, stop_sequences=["\n\nHuman:"], stream=True)
    (job,) = order.jobs
    assert (job.sampling.temperature, job.sampling.top_p, job.sampling.top_k) == (0.5, 0.9, 7)
    assert (job.stops.strings, job.max_tokens, order.stream) == (("\n\nHuman:",), 100, True)


def test_an_answer_longer_than_the_room_ends_where_that_does() -> None:
    (job,) = order_of(room=50).jobs
    assert job.max_tokens is None
    assert job.engine_request(Room(50)).max_tokens == 50 - len(job.prompt_token_ids)
    (job,) = order_of(room=len(job.prompt_token_ids) + 100).jobs
    assert job.max_tokens == 100


@pytest.mark.parametrize(
    ("thinking", "told"),
    [
        ({"type": "enabled", "budget_tokens": 50}, "enabled; by=request; budget=50"),
        ({"type": "enabled", "budget_tokens": 1}, "enabled; by=request; budget=1"),
        ({"type": "enabled"}, "enabled; by=request"),
        ({"type": "disabled"}, "disabled; by=request"),
        (None, "enabled; by=template"),
    ],
)
def test_thinking_is_what_the_request_says(thinking: Any, told: str) -> None:
    assert order_of(thinking=thinking).headers["x-glm-thinking"] == told


def test_adaptive_thinking_is_decided_by_a_score() -> None:
    assert "by=auto; score=" in order_of(thinking={"type": "adaptive"}).headers["x-glm-thinking"]


def test_effort_bounds_and_does_not_switch() -> None:
    bounded = order_of(output_config={"effort": "low"}, thinking={"type": "adaptive"})
    assert "by=auto" in bounded.headers["x-glm-thinking"]
    assert order_of(output_config={"effort": "max"}).headers["x-glm-thinking"].startswith("enabled; by=template")


def test_a_budget_leaves_room_for_the_answer_unless_it_is_for_several() -> None:
    thinking = {"type": "enabled", "budget_tokens": 100}
    assert refusal(thinking=thinking).param == "thinking.budget_tokens"
    several = {"anthropic-beta": "files-api-2025-04-14,interleaved-thinking-2025-05-14"}
    assert "budget=100" in order_of(thinking=thinking, headers=several).headers["x-glm-thinking"]


@pytest.mark.parametrize("type_", ["enabled", "adaptive"])
def test_a_thought_can_be_hidden(type_: str) -> None:
    assert not order_of(thinking={"type": type_, "display": "omitted"}).shows_reasoning
    assert order_of(thinking={"type": type_, "display": "summarized"}).shows_reasoning


def test_a_switch_in_the_text_that_says_otherwise_has_no_effect() -> None:
    order = order_of(messages=[user(a_text("hi /nothink"))], thinking={"type": "enabled"})
    assert order.headers["x-glm-thinking"] == "enabled; by=request"
    assert order.headers["x-glm-ignored"] == "messages"


def test_the_beginning_of_an_answer_is_continued() -> None:
    order = order_of(messages=[USER, assistant(a_text("The answer is ("))], thinking={"type": "disabled"})
    assert prompt_of(order).endswith("The answer is (")
    assert not order.jobs[0].thinking


def test_an_empty_text_is_no_line() -> None:
    assert prompt_of(order_of(messages=[user(a_text("hi"), a_text(""))])) == prompt_of(order_of())


def test_an_empty_beginning_is_none() -> None:
    empty = {"role": "assistant", "content": ""}
    assert prompt_of(order_of(messages=[empty])) == "[gMASK]<sop><|assistant|>"
    assert prompt_of(order_of(messages=[USER, empty])) == prompt_of(order_of())


@pytest.mark.parametrize("blocks", [[CALL], [{"type": "thinking", "thinking": "hm"}]])
def test_only_text_can_be_continued(blocks: list[Any]) -> None:
    error = refusal(messages=[USER, assistant(*blocks)], tools=[TOOL])
    assert error.param == "messages[1]"
    assert "messages[1]" in error.message


def test_what_has_no_effect_is_told() -> None:
    result = user(a_result("t1", [a_text("x", **CACHED)]))
    assert order_of(messages=[USER, assistant(CALL), result], tools=[TOOL]).ignored == ("cache_control",)
    for where in (
        {"system": [a_text("a", **CACHED)]},
        {"tools": [{**TOOL, **CACHED}]},
        {"messages": [user(a_text("a", **CACHED))]},
        {"cache_control": {"type": "ephemeral"}},
    ):
        assert order_of(**where).headers["x-glm-ignored"] == "cache_control"
    said: dict[str, Any] = {"metadata": {"user_id": "u"}, "service_tier": "auto", "diagnostics": {}}
    assert order_of(**said).headers["x-glm-ignored"] == "metadata, service_tier, diagnostics"
    assert order_of(tools=[{**TOOL, "input_examples": [{"a": 1}]}]).ignored == ("tools.input_examples",)
    assert "x-glm-ignored" not in order_of(tools=[{**TOOL, "eager_input_streaming": True}]).headers


def test_edits_of_the_context_are_ignored_and_a_wish_to_keep_thoughts_is_the_templates_to_honour() -> None:
    edit = {"type": "clear_tool_uses_20250919", "trigger": {"type": "input_tokens", "value": 5}}
    assert order_of(context_management={"edits": [edit]}).ignored == ("context_management",)
    keep = {"type": "clear_thinking_20251015", "keep": "all"}
    assert order_of(context_management={"edits": [keep]}).ignored == ("context_management.edits",)
    assert refusal(context_management={"edits": [{"type": "forget"}]}).param == "context_management.edits[0].type"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": ""}]}, "messages[0].role"),
        ({"messages": [user({"type": "image", "source": {}})]}, "messages[0].content[0].type"),
        ({"messages": [user({"type": "document", "source": {}})]}, "messages[0].content[0].type"),
        ({"messages": [user(CALL)]}, "messages[0].content[0].type"),
        ({"messages": [assistant(a_result("t", "x"))]}, "messages[0].content[0].type"),
        ({"messages": [user(a_text("a", bogus=1))]}, "messages[0].content[0].bogus"),
        ({"messages": [user({"type": "text"})]}, "messages[0].content[0].text"),
        ({"messages": [user(a_result("t", [{"type": "image"}]))]}, "messages[0].content[0].content[0].type"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 5}]}, "tools[0].type"),
        ({"tools": [TOOL, {"type": "bash_20250124", "name": "bash"}]}, "tools[1].type"),
        ({"tools": [{**TOOL, "defer_loading": True}]}, "tools[0].defer_loading"),
        ({"tools": [{**TOOL, "name": "a b"}]}, "tools[0].name"),
        ({"tools": [TOOL, TOOL]}, "tools[1].name"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "g"}}, "tool_choice.name"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"thinking": {"type": "between_tools"}}, "thinking.type"),
        ({"thinking": {"type": "enabled", "budget_tokens": 0}}, "thinking.budget_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": None}, "max_tokens"),
        ({"temperature": 2.5}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"stop_sequences": [""]}, "stop_sequences"),
        ({"stop_sequences": ["a"] * 17}, "stop_sequences"),
        ({"mcp_servers": [{"type": "url"}]}, "mcp_servers"),
        ({"container": "c"}, "container"),
        ({"thread": {"type": "create"}}, "thread"),
        ({"speed": "fast"}, "speed"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"bogus": 1}, "bogus"),
        ({"output_config": {"bogus": 1}}, "output_config.bogus"),
        ({"model": "claude-sonnet-4-5"}, "model"),
    ],
)
def test_what_cannot_be_served_is_refused_by_its_name(fields: dict[str, Any], param: str) -> None:
    error = refusal(**fields)
    assert error.param == param
    assert param.rpartition(".")[2] in error.message


@pytest.mark.parametrize("kind", ["web_search_20250305", "bash_20250124", "text_editor_20250728", "mcp_toolset"])
def test_a_tool_that_the_vendor_runs_is_refused_by_its_kind(kind: str) -> None:
    error = refusal(tools=[{"type": kind, "name": "x"}])
    assert (error.param, error.code) == ("tools[0].type", "invalid_value")
    assert error.message.startswith(f"tools[0].type is '{kind}'; allowed: 'custom'; this server runs no tools")


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [user(a_text("canary", bogus=1))]},
        {"messages": [user({"type": "text", "text": ["canary"]})]},
        {"messages": [{"role": "user", "content": {"canary": 1}}]},
        {"messages": [USER, assistant({**CALL, "input": "canary"})]},
        {"system": ["canary"]},
        {"system": {"text": "canary"}},
        {"tools": [{**TOOL, "description": ["canary"]}]},
        {"tools": [{**TOOL, "name": "canary"}, {**TOOL, "name": "canary"}]},
        {"tools": [{**TOOL, "name": "canary"}], "tool_choice": {"type": "tool", "name": "other"}},
        {"stop_sequences": ["canary" * 1000]},
        {"metadata": {"user_id": ["canary"]}},
        {"messages": [USER, assistant(a_text("canary"), CALL)]},
    ],
)
def test_a_refusal_tells_back_nothing_of_the_prompt(fields: dict[str, Any]) -> None:
    assert "canary" not in refusal(**fields).message


def test_the_names_of_the_vendors_models_mean_the_one_served_where_that_is_so() -> None:
    assert order_of(intake=Intake(any_model=True), model="claude-sonnet-4-5").jobs
    with pytest.raises(RequestRefused) as caught:
        order_of(intake=Intake(any_model=True), model="gpt-5")
    assert caught.value.status == 404


def test_a_count_is_of_the_prompt_that_the_message_would_have() -> None:
    fields: dict[str, Any] = {"system": "a", "tools": [TOOL], "thinking": {"type": "disabled"}}
    body = {"model": "glm-nano", "messages": [USER], **fields}
    counted = Intake().prompt(json.dumps(body).encode(), a_context())
    assert counted.num_prompt_tokens == order_of(**fields).num_prompt_tokens


def test_a_prompt_that_leaves_no_room_for_an_answer_is_counted() -> None:
    (job,) = order_of().jobs
    long = "hi " * (2048 - len(job.prompt_token_ids))
    body = {"model": "glm-nano", "messages": [user(a_text(long))]}
    assert Intake().prompt(json.dumps(body).encode(), a_context()).num_prompt_tokens >= 2048
