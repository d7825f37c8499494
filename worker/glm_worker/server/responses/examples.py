"""Bodies that show what there is. Each is sent to the server by a test, and answered."""

from typing import Any

Json = dict[str, Any]

_WEATHER: Json = {
    "type": "function",
    "name": "get_weather",
    "description": "Return the weather in a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
_PARIS: Json = {"role": "user", "content": "What is the weather in Paris?"}
_CALL: Json = {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": '{"city": "Paris"}'}
_RESULT: Json = {"type": "function_call_output", "call_id": "call_1", "output": "21 degrees, sunny"}


def responses(model: str) -> dict[str, Json]:
    """Return bodies of /v1/responses by what they show."""

    def response(said: str | list[Json] = "What is 12 + 30?", **fields: Any) -> Json:
        return {"model": model, "input": said, "max_output_tokens": 200, **fields}

    schema = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
    return {
        "a question": response(),
        "without thinking": response(reasoning={"effort": "none"}),
        "a bounded thought": response(reasoning={"max_tokens": 20}),
        "a stream": response(stream=True),
        "a tool": response([_PARIS], tools=[_WEATHER]),
        "the result of a tool": response([_PARIS, _CALL, _RESULT], tools=[_WEATHER]),
        "JSON by a schema": response(
            reasoning={"effort": "none"},
            text={"format": {"type": "json_schema", "name": "sum", "strict": True, "schema": schema}},
        ),
        "kept, to go on from": response(store=True, metadata={"topic": "sums"}),
        "in the background": response(store=True, background=True),
        "reasoning for a client that keeps it": response(include=["reasoning.encrypted_content"]),
    }
