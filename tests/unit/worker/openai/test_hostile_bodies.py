"""Bodies that nobody means well with: each becomes an order or one refusal, whatever is in it, and soon.

The classes are those of vulnerabilities that other servers of models had; their numbers stand beside them.
"""

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from glm_worker.errors import RequestRefused
from glm_worker.server.jobs.context import Context
from glm_worker.server.jobs.job import Room
from glm_worker.server.jobs.order import Order
from glm_worker.server.openai.chat.intake import chat_order
from glm_worker.server.openai.completions.intake import completion_order
from glm_worker.server.openai.zai.intake import order_of as zai_order_of
from glm_worker.server.openai.zai.request import ZaiChatRequest
from glm_worker.server.refusals import parse
from unit import cpu_time
from unit.worker.orders import a_context

CANARY = "a secret of whoever asks"
USER = {"role": "user", "content": CANARY}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
CHAT: dict[str, Any] = {
    "model": "glm-nano",
    "messages": [
        {"role": "system", "content": [{"type": "text", "text": CANARY, "cache_control": {"type": "ephemeral"}}]},
        {"role": "user", "content": CANARY, "name": "Ann"},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": CANARY,
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}],
        },
        {"role": "tool", "content": CANARY, "tool_call_id": "c"},
        {"role": "user", "content": CANARY},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA, "strict": True}}],
    "tool_choice": "auto",
    "max_tokens": 5,
    "n": 2,
    "temperature": 0.5,
    "logit_bias": {"5": 1},
    "stop": ["END", "STOP"],
    "stop_token_ids": [5],
    "bad_words": ["no"],
    "logprobs": True,
    "top_logprobs": 3,
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}},
    "thinking": {"type": "auto", "threshold": 0.5, "budget_tokens": 5},
    "reasoning": {"exclude": False},
    "chat_template_kwargs": {"clear_thinking": True},
    "stream": True,
    "stream_options": {"include_usage": True},
    "metadata": {"a": "b"},
    "user": "u",
}
TEXT: dict[str, Any] = {
    "model": "glm-nano",
    "prompt": [CANARY, CANARY],
    "max_tokens": 5,
    "n": 2,
    "echo": True,
    "stop": ["END"],
    "logit_bias": {"5": 1},
}
NASTY: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**100, 0.5, -0.0, 1e308, "", "x", "two words", "\x00",
    "\ufeff", "a" * 5000, "<|user|>", "</think>", "{}", "[]", [], {}, [[]], [{}], {"": ""}, {"a": {"a": {"a": None}}},
    [None], ["x"] * 200, [0] * 200, {str(n): n for n in range(200)}, {"$ref": "#"}, {"type": 5, "pattern": "["},
    {"type": "object", "properties": []}, {"anyOf": "x"}, {"enum": 5}, {"type": "function"},
    {"role": "user", "content": "x"}, {"type": "text", "text": "x"}, {"type": "image_url"}, "auto", "required", "none",
]  # fmt: skip

Intake = Callable[[bytes, Context], Order]


def zai_order(body: bytes, context: Context) -> Order:
    return zai_order_of(parse(ZaiChatRequest, body), context)


def paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Give the path of everything in a JSON value."""
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield (*path, key)
        yield from paths(each, (*path, key))


def spoilt(body: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """Return the body with a few things replaced, left out or added anywhere in it."""
    body = copy.deepcopy(body)
    for _ in range(chance.randint(1, 3)):
        path = chance.choice(list(paths(body)))
        at: Any = body
        for part in path[:-1]:
            at = at[part]
        match chance.random():
            case often if often < 0.7:
                at[path[-1]] = copy.deepcopy(chance.choice(NASTY))
            case often if often < 0.85:
                del at[path[-1]]
            case _ if isinstance(at, dict):
                at[chance.choice(["zz", "name", "type", "content", "strict", ""])] = copy.deepcopy(chance.choice(NASTY))
        if not body:
            break
    return body


@pytest.mark.parametrize(
    ("intake", "body"), [(chat_order, CHAT), (completion_order, TEXT), (zai_order, CHAT)], ids=["chat", "text", "zai"]
)
def test_a_spoilt_body_is_an_order_or_one_refusal(intake: Intake, body: dict[str, Any]) -> None:
    chance, num_orders = random.Random(11), 0
    for _ in range(1000):
        text = json.dumps(spoilt(body, chance))
        taken = taken_in(intake, text.encode())
        num_orders += isinstance(taken, Order)
        if isinstance(taken, RequestRefused):
            assert 400 <= taken.status < 500
            assert 0 < len(taken.message) < 1500
            assert CANARY not in taken.message, text
        else:
            assert all(job.prompt_token_ids for job in taken.jobs)
    assert num_orders > 20


def taken_in(intake: Intake, body: bytes) -> Order | RequestRefused:
    try:
        return intake(body, a_context())
    except RequestRefused as error:
        return error


def order_of(**fields: Any) -> Order:
    return chat_order(json.dumps({"model": "glm-nano", "messages": [USER], **fields}).encode(), a_context())


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 10**9},  # CVE-2026-34756
        {"best_of": 10**9},  # CVE-2024-8939
        {"logprobs": True, "top_logprobs": 10**9},
        {"messages": []},  # CVE-2024-8768
        {"chat_template": "{{ ''.__class__ }}"},  # CVE-2025-61620
        {"chat_template_kwargs": {"chat_template": "{{ x }}"}},  # CVE-2025-62426
        {"chat_template_kwargs": {"tokenize": False}},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://10.0.0.1/"}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "file:///etc/passwd"}}]}]},
        {"prompt_embeds": "AAAA"},  # CVE-2025-62164
        {"mm_processor_kwargs": {}},
        {"guided_decoding_backend": "outlines"},
        {"lora_request": {}},
    ],
)  # fmt: skip
def test_what_broke_other_servers_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(RequestRefused):
        order_of(**fields)


@pytest.mark.parametrize(
    "parameters",
    [
        {
            "type": 5,
            "pattern": "[",
            "properties": {"a": {"type": ["string", 5], "pattern": "(a+)+$"}},
        },  # CVE-2025-48944
        {"properties": {"a": {"$ref": "http://10.0.0.1/schema.json"}}},
        {"properties": {"a": {"$ref": "#/properties/a"}}},
        {"properties": "x"},
        {"properties": {"a": None}},
        {"type": "object", "properties": {"a": {"enum": [{}]}}},
    ],
)
def test_schemas_of_tools_that_make_no_sense_cost_nothing(parameters: dict[str, Any]) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    with cpu_time.at_most(1):
        order_of(tools=[tool]).jobs[0].reader()


def test_what_is_in_no_field_is_not_in_the_prompt() -> None:
    """What the template may read is what the API has: nothing of a request gets there past the schema."""
    with pytest.raises(RequestRefused):
        order_of(documents=[{"text": "x"}])


def test_the_longest_answers_have_no_more_room_than_the_model() -> None:
    order = order_of(max_tokens=2**31 - 1)
    with pytest.raises(RequestRefused, match="2048 tokens"):
        order.jobs[0].engine_request(Room(2048))
