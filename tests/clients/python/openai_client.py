"""The openai package: chats, streams, pydantic tools, parse(), responses, and a loop of tools on both surfaces.

python openai_client.py http://127.0.0.1:8000 [--key KEY] [--only CASE,CASE]
"""

import json
from typing import Any

import openai
from openai import OpenAI
from pydantic import BaseModel, Field
from report import MODEL, key, report, server_url
from tools import MAX_STEPS, QUESTION, TOOLS

client = OpenAI(base_url=f"{server_url()}/v1", api_key=key(), max_retries=0)


class GetWeather(BaseModel):
    """Get the current weather for a city."""

    city: str = Field(description="The city")


class Calculator(BaseModel):
    """Calculate an arithmetic expression."""

    expression: str = Field(description="The expression to calculate")


class Person(BaseModel):
    name: str
    age: int


TOOLS_OF_CHAT = [
    openai.pydantic_function_tool(GetWeather, name="get_weather"),
    openai.pydantic_function_tool(Calculator, name="calculator"),
]
TOOLS_OF_RESPONSES: list[Any] = [{"type": "function", **tool["function"], "strict": True} for tool in TOOLS_OF_CHAT]


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def chat() -> dict[str, Any]:
    completion = client.chat.completions.create(model=MODEL, messages=user("What is 12+30?"))
    message = completion.choices[0].message
    assert completion.usage is not None
    assert completion.usage.completion_tokens_details is not None
    return {
        "text": message.content,
        "reasoning": message.reasoning_content,  # type: ignore[attr-defined]
        "tokens": completion.usage.completion_tokens,
        "reasoning_tokens": completion.usage.completion_tokens_details.reasoning_tokens,
    }


def chat_without_thinking() -> dict[str, Any]:
    completion = client.chat.completions.create(
        model=MODEL, messages=user("What is the capital of France?"), reasoning_effort="none"
    )
    message = completion.choices[0].message
    return {"text": message.content, "reasoning": getattr(message, "reasoning_content", None)}


def stream() -> dict[str, Any]:
    text, reasoning, num_chunks, tokens = "", "", 0, None
    with client.chat.completions.create(
        model=MODEL, messages=user("What is 12+30?"), stream=True, stream_options={"include_usage": True}
    ) as chunks:
        for chunk in chunks:
            num_chunks += 1
            for choice in chunk.choices:
                text += choice.delta.content or ""
                reasoning += getattr(choice.delta, "reasoning_content", None) or ""
            tokens = chunk.usage.completion_tokens if chunk.usage else tokens
    return {"text": text, "reasoning": reasoning, "num_chunks": num_chunks, "tokens": tokens}


def tools() -> dict[str, Any]:
    """Stream a call through the package's own accumulator, which validates the arguments with pydantic."""
    with client.chat.completions.stream(
        model=MODEL, messages=user("What is the weather in Paris?"), tools=TOOLS_OF_CHAT
    ) as events:
        for _ in events:
            pass
        message = events.get_final_completion().choices[0].message
    (call,) = message.tool_calls or []
    assert isinstance(call.function.parsed_arguments, GetWeather)
    return {"name": call.function.name, "arguments": call.function.parsed_arguments.model_dump()}


def loop() -> dict[str, Any]:
    messages, calls = user(QUESTION), []
    for _ in range(MAX_STEPS):
        message = client.chat.completions.parse(model=MODEL, messages=messages, tools=TOOLS_OF_CHAT).choices[0].message
        if not message.tool_calls:
            return {"answer": message.content, "calls": calls}
        messages.append(message)
        for call in message.tool_calls:
            arguments = call.function.parsed_arguments.model_dump()  # type: ignore[union-attr]
            calls.append([call.function.name, arguments])
            result = TOOLS[call.function.name](**arguments)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    return {"answer": None, "calls": calls}


def parse() -> dict[str, Any]:
    completion = client.chat.completions.parse(
        model=MODEL, messages=user('Give me JSON with name "Ada" and age 36.'), response_format=Person
    )
    person = completion.choices[0].message.parsed
    assert isinstance(person, Person)
    return person.model_dump()


def responses() -> dict[str, Any]:
    response = client.responses.create(model=MODEL, input="What is 12+30?")
    assert response.usage is not None
    return {
        "text": response.output_text,
        "reasoning": _reasoning_of(response),
        "tokens": response.usage.output_tokens,
        "reasoning_tokens": response.usage.output_tokens_details.reasoning_tokens,
    }


def _reasoning_of(response: Any) -> str:
    thoughts = [item for item in response.output if item.type == "reasoning"]
    return "".join(part.text for item in thoughts for part in item.content or [])


def responses_stream() -> dict[str, Any]:
    text, num_chunks = "", 0
    with client.responses.stream(model=MODEL, input="What is 12+30?") as events:
        for event in events:
            num_chunks += 1
            text += event.delta if event.type == "response.output_text.delta" else ""
        response = events.get_final_response()
    assert response.output_text == text
    assert response.usage is not None
    return {
        "text": text,
        "reasoning": _reasoning_of(response),
        "num_chunks": num_chunks,
        "tokens": response.usage.output_tokens,
    }


def responses_tools() -> dict[str, Any]:
    response = client.responses.create(model=MODEL, input="What is the weather in Paris?", tools=TOOLS_OF_RESPONSES)
    (call,) = (item for item in response.output if item.type == "function_call")
    return {"name": call.name, "arguments": json.loads(call.arguments)}


def responses_loop() -> dict[str, Any]:
    """Send back every item, as a client does whose server stores nothing."""
    items, calls = user(QUESTION), []
    for _ in range(MAX_STEPS):
        response = client.responses.create(model=MODEL, input=items, tools=TOOLS_OF_RESPONSES, store=False)
        asked = [item for item in response.output if item.type == "function_call"]
        if not asked:
            return {"answer": response.output_text, "calls": calls}
        items += response.output
        for call in asked:
            arguments = json.loads(call.arguments)
            calls.append([call.name, arguments])
            result = TOOLS[call.name](**arguments)
            items.append({"type": "function_call_output", "call_id": call.call_id, "output": result})
    return {"answer": None, "calls": calls}


def responses_stored() -> dict[str, Any]:
    """Go on from a response that the server keeps, look it up, and delete it."""
    first = client.responses.create(model=MODEL, input="What is 12+30?", store=True)
    second = client.responses.create(model=MODEL, input="What is 1+1?", previous_response_id=first.id)
    found = client.responses.retrieve(first.id)
    client.responses.delete(first.id)
    try:
        client.responses.retrieve(first.id)
    except openai.NotFoundError as error:
        return {"text": second.output_text, "found": found.output_text, "then": error.status_code}
    return {"text": second.output_text, "found": found.output_text, "then": 200}


def responses_parse() -> dict[str, Any]:
    response = client.responses.parse(model=MODEL, input='Give me JSON with name "Ada" and age 36.', text_format=Person)
    assert isinstance(response.output_parsed, Person)
    return response.output_parsed.model_dump()


def embeddings() -> dict[str, Any]:
    """A model that writes text has none: the refusal says so."""
    try:
        client.embeddings.create(model=MODEL, input="Paris")
    except openai.APIStatusError as error:
        return {"status": error.status_code, "message": error.body["message"] if isinstance(error.body, dict) else None}
    return {"status": 200}


def models() -> dict[str, Any]:
    return {"ids": [model.id for model in client.models.list()]}


if __name__ == "__main__":
    report(
        "openai",
        {
            "chat": chat,
            "chat_without_thinking": chat_without_thinking,
            "stream": stream,
            "tools": tools,
            "loop": loop,
            "parse": parse,
            "responses": responses,
            "responses_stream": responses_stream,
            "responses_tools": responses_tools,
            "responses_loop": responses_loop,
            "responses_stored": responses_stored,
            "responses_parse": responses_parse,
            "embeddings": embeddings,
            "models": models,
        },
    )
