"""LangChain's ChatOpenAI: chat, stream, bind_tools, with_structured_output, a loop; on both of OpenAI's surfaces.

python langchain_client.py http://127.0.0.1:8000 [--key KEY] [--limited KEY] [--only CASE,CASE]
"""

import time
from typing import Any

from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel
from report import MODEL, key, limited_key, nearly_used_up, options, report, server_url
from tools import MAX_STEPS, QUESTION
from tools import calculator as calculated
from tools import get_weather as looked_up

model = ChatOpenAI(base_url=f"{server_url()}/v1", api_key=key(), model=MODEL, max_retries=0)  # type: ignore[arg-type]
of_responses = ChatOpenAI(
    base_url=model.openai_api_base,
    api_key=key(),
    model=MODEL,
    max_retries=0,
    use_responses_api=True,  # type: ignore[arg-type]
)


class Person(BaseModel):
    name: str
    age: int


@tool
def get_weather(city: str) -> str:
    """Get the current weather for a city."""
    return looked_up(city)


@tool
def calculator(expression: str) -> str:
    """Calculate an arithmetic expression."""
    return calculated(expression)


TOOLS = {"get_weather": get_weather, "calculator": calculator}


def chat() -> dict[str, Any]:
    message = model.invoke("What is 12+30?")
    assert message.usage_metadata is not None
    return {"text": message.text, "tokens": message.usage_metadata["output_tokens"]}


def chat_without_thinking() -> dict[str, Any]:
    message = model.invoke("What is the capital of France?", reasoning_effort="none")
    details = message.response_metadata["token_usage"]["completion_tokens_details"]
    return {"text": message.text, "reasoning": "" if details["reasoning_tokens"] == 0 else "there is some"}


def stream() -> dict[str, Any]:
    chunks = list(model.stream("What is 12+30?", stream_usage=True))
    usage = next(chunk.usage_metadata for chunk in reversed(chunks) if chunk.usage_metadata)
    return {
        "text": "".join(chunk.text for chunk in chunks),
        "num_chunks": len(chunks),
        "tokens": usage["output_tokens"],
    }


def tools() -> dict[str, Any]:
    whole: Any = None
    for chunk in model.bind_tools(list(TOOLS.values())).stream("What is the weather in Paris?"):
        whole = chunk if whole is None else whole + chunk
    (call,) = whole.tool_calls
    return {"name": call["name"], "arguments": call["args"]}


def _looped(answering: Any) -> dict[str, Any]:
    messages: list[Any] = [HumanMessage(QUESTION)]
    calls: list[Any] = []
    for _ in range(MAX_STEPS):
        message = answering.invoke(messages)
        if not message.tool_calls:
            return {"answer": message.text, "calls": calls}
        messages.append(message)
        for call in message.tool_calls:
            calls.append([call["name"], call["args"]])
            messages.append(TOOLS[call["name"]].invoke(call))
    return {"answer": None, "calls": calls}


def loop() -> dict[str, Any]:
    return _looped(model.bind_tools(list(TOOLS.values())))


def parse() -> dict[str, Any]:
    person = model.with_structured_output(Person).invoke('Give me JSON with name "Ada" and age 36.')
    assert isinstance(person, Person)
    return person.model_dump()


def parse_by_a_call() -> dict[str, Any]:
    """The older way: a tool that must be called."""
    person = model.with_structured_output(Person, method="function_calling").invoke("Ada is 36 years old.")
    assert isinstance(person, Person)
    return person.model_dump()


def responses() -> dict[str, Any]:
    message = of_responses.invoke("What is 12+30?")
    assert message.usage_metadata is not None
    return {"text": message.text, "tokens": message.usage_metadata["output_tokens"]}


def responses_loop() -> dict[str, Any]:
    return _looped(of_responses.bind_tools(list(TOOLS.values())))


def retried() -> dict[str, Any]:
    limited = limited_key("retried")
    patient = ChatOpenAI(
        base_url=model.openai_api_base,
        api_key=limited,  # type: ignore[arg-type]
        model=MODEL,
        max_retries=2,
        max_tokens=20,  # type: ignore[call-arg]
    )
    with nearly_used_up(server_url(), limited) as asked_s:
        message = patient.invoke("What is 12+30?")
        return {"took_s": time.monotonic() - asked_s, "role": "assistant" if message.type == "ai" else message.type}


if __name__ == "__main__":
    report(
        "langchain-openai",
        {
            "chat": chat,
            "chat_without_thinking": chat_without_thinking,
            "stream": stream,
            "tools": tools,
            "loop": loop,
            "parse": parse,
            "parse_by_a_call": parse_by_a_call,
            "responses": responses,
            "responses_loop": responses_loop,
            **({"retried": retried} if options().limited else {}),
        },
    )
