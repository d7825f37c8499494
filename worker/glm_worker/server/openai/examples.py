"""Bodies that show what there is. Each is sent to the server by a test, and answered."""

from typing import Any

Json = dict[str, Any]

WEATHER: Json = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Return the weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
_QUESTION: Json = {"role": "user", "content": "What is 12 + 30?"}


def chats(model: str) -> dict[str, Json]:
    """Return bodies of /v1/chat/completions by what they show."""

    def chat(*messages: Json, **fields: Any) -> Json:
        return {"model": model, "messages": list(messages) or [_QUESTION], "max_tokens": 200, **fields}

    weather: Json = {"role": "user", "content": "What is the weather in Paris?"}
    call: Json = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
    }
    return {
        "a question": chat(),
        "with thinking": chat(thinking={"type": "enabled"}),
        "without thinking": chat(thinking={"type": "disabled"}),
        "thinking where it pays": chat(thinking={"type": "auto"}),
        "a bounded thought": chat(thinking={"type": "enabled", "budget_tokens": 20}),
        "by effort": chat(reasoning_effort="none"),
        "a stream": chat(stream=True, stream_options={"include_usage": True}),
        "a tool": chat(weather, tools=[WEATHER]),
        "a tool that must be called": chat(weather, tools=[WEATHER], tool_choice="required"),
        "the result of a tool": chat(
            weather,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": '{"temperature": 21, "condition": "sunny"}'},
            tools=[WEATHER],
        ),
        "JSON by a schema": chat(
            {"role": "user", "content": "Give me JSON with a city and a number."},
            response_format={
                "type": "json_schema",
                "json_schema": {
                    "name": "place",
                    "strict": True,
                    "schema": {
                        "type": "object",
                        "properties": {"city": {"type": "string"}, "number": {"type": "integer"}},
                        "required": ["city", "number"],
                        "additionalProperties": False,
                    },
                },
            },
        ),
    }


def zai_chats(model: str) -> dict[str, Json]:
    """Return bodies of Z.ai's chats by what they show."""
    chat: Json = {"model": model, "messages": [_QUESTION], "max_tokens": 200}
    return {
        "greedy": {**chat, "do_sample": False, "request_id": "mine-0001"},
        "without thinking": {**chat, "thinking": {"type": "disabled"}},
        "a tool, its arguments in pieces": {**chat, "tools": [WEATHER], "stream": True, "tool_stream": True},
    }


def texts(model: str) -> dict[str, Json]:
    """Return bodies of /tokenize by what they show."""
    return {
        "a text": {"model": model, "prompt": "1 2 3"},
        "a chat": {"model": model, "messages": [_QUESTION], "tools": [WEATHER]},
    }


def completions(model: str) -> dict[str, Json]:
    """Return bodies of /v1/completions by what they show."""
    return {
        "a text": {"model": model, "prompt": "1 2 3", "max_tokens": 8},
        "log probabilities": {"model": model, "prompt": [5, 6, 7], "logprobs": 2, "max_tokens": 8},
        "two texts, two answers each": {"model": model, "prompt": ["1 2 3", "4 5 6"], "n": 2, "max_tokens": 8},
    }
