"""Valid bodies of every endpoint that reads one. The fuzz makes hostile ones of them."""

from dataclasses import dataclass
from typing import Any

from glm_worker.server.openai import examples

Json = dict[str, Any]

CANARY = "kumquat-7731-zephyr"  # is in all that is prompt, and must be in no error
_ASK = {"role": "user", "content": f"What is 12 + 30? {CANARY}"}
_PARAMETERS: Json = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": CANARY, "pattern": "^[A-Z][a-z]+$"},
        "days": {"type": ["integer", "null"], "minimum": 1, "maximum": 14},
        "unit": {"anyOf": [{"enum": ["c", "f"]}, {"$ref": "#/$defs/unit"}]},
    },
    "required": ["city"],
    "$defs": {"unit": {"type": "string", "maxLength": 8}},
}
_TOOL: Json = {
    "type": "function",
    "function": {"name": "get_weather", "description": CANARY, "parameters": _PARAMETERS, "strict": False},
}
_CALL: Json = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": f'{{"city": "{CANARY}"}}'},
}


@dataclass(frozen=True)
class Seed:
    """A body that is answered."""

    path: str
    body: Json


def seeds(model: str) -> list[Seed]:
    """Return bodies for every endpoint, several for those that take much."""
    chats = [_chat(model), _agent(model), _structured(model), *examples.chats(model).values()]
    completions = [_completion(model), *examples.completions(model).values()]
    messages, count = [_message(model), _message_loop(model)], _count(model)
    responses = [_response(model), _response_loop(model)]
    of_path: dict[str, list[Json]] = {
        "/v1/chat/completions": chats,
        "/v1/completions": completions,
        "/v1/messages": messages,
        "/v1/messages/count_tokens": [count],
        "/api/anthropic/v1/messages": messages,
        "/api/anthropic/v1/messages/count_tokens": [count],
        "/v1/responses": responses,
        "/api/paas/v4/chat/completions": [*examples.zai_chats(model).values(), _agent(model)],
        "/api/coding/paas/v4/chat/completions": [_chat(model)],
        "/tokenize": [*examples.texts(model).values()],
        "/detokenize": [{"model": model, "tokens": [5, 6, 7]}],
    }
    return [Seed(path, body) for path, bodies in of_path.items() for body in bodies]


def _chat(model: str) -> Json:
    return {
        "model": model,
        "messages": [{"role": "system", "content": f"Be short. {CANARY}"}, _ASK],
        "max_tokens": 64,
        "temperature": 0.7,
        "top_p": 0.9,
        "n": 2,
        "seed": 7,
        "stop": [CANARY, "###"],
        "logit_bias": {"5": -1.5},
        "logprobs": True,
        "top_logprobs": 2,
        "presence_penalty": 0.1,
        "frequency_penalty": -0.1,
        "stream": True,
        "stream_options": {"include_usage": True},
        "user": CANARY,
        "metadata": {"trace": CANARY},
    }


def _agent(model: str) -> Json:
    return {
        "model": model,
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": CANARY}, {"type": "text", "text": "weather?"}]},
            {"role": "assistant", "content": None, "reasoning_content": CANARY, "tool_calls": [_CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": f'{{"temperature": 21, "said": "{CANARY}"}}'},
        ],
        "tools": [_TOOL],
        "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
        "parallel_tool_calls": False,
        "max_completion_tokens": 64,
        "reasoning_effort": "low",
    }


def _structured(model: str) -> Json:
    return {
        "model": model,
        "messages": [_ASK],
        "thinking": {"type": "enabled", "budget_tokens": 20},
        "bad_words": [CANARY],
        "stop_token_ids": [3],
        "min_tokens": 1,
        "max_tokens": 50,
        "repetition_penalty": 1.1,
        "top_k": 40,
        "min_p": 0.05,
        "priority": 1,
        "deadline_s": 30.0,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "place", "strict": True, "schema": _PARAMETERS},
        },
    }


def _completion(model: str) -> Json:
    return {
        "model": model,
        "prompt": [CANARY, "4 5 6"],
        "max_tokens": 8,
        "logprobs": 2,
        "n": 2,
        "best_of": 2,
        "stop": CANARY,
        "stream": False,
    }


_ANTHROPIC_TOOL: Json = {"name": "get_weather", "description": CANARY, "input_schema": _PARAMETERS}


def _count(model: str) -> Json:
    return {"model": model, "system": CANARY, "messages": [_ASK], "tools": [_ANTHROPIC_TOOL]}


def _message(model: str) -> Json:
    return {
        "model": model,
        "max_tokens": 64,
        "system": [{"type": "text", "text": CANARY, "cache_control": {"type": "ephemeral"}}],
        "messages": [_ASK],
        "stop_sequences": [CANARY],
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "stream": True,
        "metadata": {"user_id": CANARY},
    }


def _message_loop(model: str) -> Json:
    return {
        "model": model,
        "max_tokens": 64,
        "thinking": {"type": "enabled", "budget_tokens": 32},
        "tools": [_ANTHROPIC_TOOL],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "messages": [
            _ASK,
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": CANARY, "signature": "x"},
                    {"type": "text", "text": CANARY},
                    {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": CANARY}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": CANARY}]},
                    {"type": "text", "text": CANARY},
                ],
            },
        ],
    }


_RESPONSE_TOOL: Json = {
    "type": "function",
    "name": "get_weather",
    "description": CANARY,
    "parameters": _PARAMETERS,
    "strict": False,
}


def _response(model: str) -> Json:
    return {
        "model": model,
        "input": CANARY,
        "instructions": CANARY,
        "max_output_tokens": 64,
        "temperature": 0.5,
        "store": True,
        "metadata": {"trace": CANARY},
        "reasoning": {"effort": "low", "summary": "auto"},
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
    }


def _response_loop(model: str) -> Json:
    return {
        "model": model,
        "stream": True,
        "store": False,
        "tools": [_RESPONSE_TOOL],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "include": ["reasoning.encrypted_content"],
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": CANARY}]},
            {
                "type": "function_call",
                "call_id": "call_1",
                "name": "get_weather",
                "arguments": f'{{"city":"{CANARY}"}}',
            },
            {"type": "function_call_output", "call_id": "call_1", "output": CANARY},
        ],
    }
