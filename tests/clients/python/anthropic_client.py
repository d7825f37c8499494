"""The anthropic package: messages, streams, tools, thinking, counted tokens, and its own runner of tools.

python anthropic_client.py http://127.0.0.1:8000 [--key KEY] [--only CASE,CASE]
"""

import json
from typing import Any

import anthropic
from anthropic import Anthropic, beta_tool
from pydantic import BaseModel
from report import MODEL, key, report, server_url
from tools import MAX_STEPS, QUESTION
from tools import calculator as calculated
from tools import get_weather as looked_up

client = Anthropic(base_url=server_url(), api_key=key(), max_retries=0)

WEATHER: Any = {
    "name": "get_weather",
    "description": "Get the current weather for a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "The city"}},
        "required": ["city"],
    },
}


class Person(BaseModel):
    name: str
    age: int


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def facts(message: anthropic.types.Message) -> dict[str, Any]:
    blocks: dict[str, str] = {"text": "", "thinking": ""}
    for block in message.content:
        if block.type in blocks:
            blocks[block.type] += getattr(block, block.type)
    return {
        "text": blocks["text"],
        "reasoning": blocks["thinking"],
        "tokens": message.usage.output_tokens,
        "stop_reason": message.stop_reason,
    }


def chat() -> dict[str, Any]:
    return facts(client.messages.create(model=MODEL, max_tokens=200, messages=user("What is 12+30?")))


def chat_without_thinking() -> dict[str, Any]:
    question = user("What is the capital of France?")
    return facts(client.messages.create(model=MODEL, max_tokens=200, messages=question, thinking={"type": "disabled"}))


def thinking() -> dict[str, Any]:
    """With a budget that is too small for the thought: it is closed, and the answer follows."""
    message = client.messages.create(
        model=MODEL,
        max_tokens=200,
        messages=user("What is 12+30?"),
        thinking={"type": "enabled", "budget_tokens": 5},
    )
    details = message.usage.output_tokens_details
    return {**facts(message), "thinking_tokens": details.thinking_tokens if details else None}


def stream() -> dict[str, Any]:
    num_chunks, text = 0, ""
    with client.messages.stream(model=MODEL, max_tokens=200, messages=user("What is 12+30?")) as events:
        for event in events:
            num_chunks += 1
            text += event.text if event.type == "text" else ""
        message = events.get_final_message()
    told = facts(message)
    assert told["text"] == text
    return {**told, "num_chunks": num_chunks}


def tools() -> dict[str, Any]:
    with client.messages.stream(
        model=MODEL, max_tokens=200, messages=user("What is the weather in Paris?"), tools=[WEATHER]
    ) as events:
        message = events.get_final_message()
    (call,) = (block for block in message.content if block.type == "tool_use")
    return {"name": call.name, "arguments": call.input, "stop_reason": message.stop_reason}


def loop() -> dict[str, Any]:
    """Leave the loop to the package. It asks for a beta of messages, with `?beta=true` and a header."""
    calls: list[Any] = []

    @beta_tool
    def get_weather(city: str) -> str:
        """Get the current weather for a city.

        Args:
            city: The city
        """
        calls.append(["get_weather", {"city": city}])
        return looked_up(city)

    @beta_tool
    def calculator(expression: str) -> str:
        """Calculate an arithmetic expression.

        Args:
            expression: The expression to calculate
        """
        calls.append(["calculator", {"expression": expression}])
        return calculated(expression)

    runner = client.beta.messages.tool_runner(
        model=MODEL,
        max_tokens=300,
        messages=user(QUESTION),
        tools=[get_weather, calculator],
        max_iterations=MAX_STEPS,
    )
    last = runner.until_done()
    return {"answer": "".join(block.text for block in last.content if block.type == "text"), "calls": calls}


def parse() -> dict[str, Any]:
    message = client.messages.parse(
        model=MODEL,
        max_tokens=200,
        messages=user('Give me JSON with name "Ada" and age 36.'),
        output_format=Person,
    )
    assert isinstance(message.parsed_output, Person)
    return message.parsed_output.model_dump()


def count_tokens() -> dict[str, Any]:
    """What is counted is what a message is then billed."""
    question = user("What is the weather in Paris?")
    counted = client.messages.count_tokens(model=MODEL, messages=question, tools=[WEATHER])
    message = client.messages.create(model=MODEL, max_tokens=1, messages=question, tools=[WEATHER])
    billed = message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0)
    return {"counted": counted.input_tokens, "billed": billed, "stop_reason": message.stop_reason}


def too_long() -> dict[str, Any]:
    """A prompt that cannot fit is refused in the words that agents look for."""
    try:
        client.messages.create(model=MODEL, max_tokens=200, messages=user("many words " * 2000))
    except anthropic.BadRequestError as error:
        return {"status": error.status_code, "body": json.loads(json.dumps(error.body))}
    return {"status": 200}


def models() -> dict[str, Any]:
    return {"ids": [model.id for model in client.models.list()]}


if __name__ == "__main__":
    report(
        "anthropic",
        {
            "chat": chat,
            "chat_without_thinking": chat_without_thinking,
            "thinking": thinking,
            "stream": stream,
            "tools": tools,
            "loop": loop,
            "parse": parse,
            "count_tokens": count_tokens,
            "too_long": too_long,
            "models": models,
        },
    )
