"""Bodies that show what there is. Each is sent to the server by a test, and answered."""

from typing import Any

Json = dict[str, Any]

WEATHER: Json = {
    "name": "get_weather",
    "description": "Return the weather in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
_QUESTION: Json = {"role": "user", "content": "What is 12 + 30?"}
_PLACE: Json = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "number": {"type": "integer"}},
    "required": ["city", "number"],
    "additionalProperties": False,
}


def messages(model: str) -> dict[str, Json]:
    """Return bodies of /v1/messages by what they show."""

    def message(*turns: Json, **fields: Any) -> Json:
        return {"model": model, "max_tokens": 200, "messages": list(turns) or [_QUESTION], **fields}

    weather: Json = {"role": "user", "content": "What is the weather in Paris?"}
    call: Json = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Paris"}}
    result: Json = {"type": "tool_result", "tool_use_id": "toolu_1", "content": '{"temperature": 21}'}
    return {
        "a question": message(system="Be brief."),
        "with thinking": message(thinking={"type": "enabled", "budget_tokens": 100}),
        "without thinking": message(thinking={"type": "disabled"}),
        "thinking where it pays": message(thinking={"type": "adaptive"}),
        "a stream": message(stream=True),
        "a tool": message(weather, tools=[WEATHER]),
        "a tool that must be called": message(weather, tools=[WEATHER], tool_choice={"type": "any"}),
        "the result of a tool": message(
            weather,
            {"role": "assistant", "content": [call]},
            {"role": "user", "content": [result]},
            tools=[WEATHER],
        ),
        "the beginning of the answer": message(_QUESTION, {"role": "assistant", "content": "12 + 30 ="}),
        "JSON by a schema": message(
            {"role": "user", "content": "Give me JSON with a city and a number."},
            output_config={"format": {"type": "json_schema", "schema": _PLACE}},
        ),
    }


def counts(model: str) -> dict[str, Json]:
    """Return bodies of /v1/messages/count_tokens by what they show."""
    return {"a question with a tool": {"model": model, "messages": [_QUESTION], "tools": [WEATHER]}}
