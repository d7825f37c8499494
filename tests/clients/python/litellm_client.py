"""litellm, as an openai-compatible provider and as Anthropic's: chat, stream, tools, parse, a loop; and its responses.

python litellm_client.py http://127.0.0.1:8000 [--key KEY] [--limited KEY] [--only CASE,CASE]
"""

import json
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from report import MODEL, key, limited_key, nearly_used_up, options, report, server_url
from tools import MAX_STEPS, QUESTION, TOOLS

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or the import asks another host for the prices of models

import litellm

URL = server_url()
Ask = Callable[..., Any]

as_openai = partial(litellm.completion, model=f"openai/{MODEL}", api_base=f"{URL}/v1", api_key=key(), num_retries=0)
as_anthropic = partial(
    litellm.completion, model=f"anthropic/{MODEL}", api_base=URL, api_key=key(), max_tokens=300, num_retries=0
)
PROVIDERS: dict[str, Ask] = {"": as_openai, "anthropic_": as_anthropic}

FUNCTIONS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get the current weather for a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "description": "The city"}},
                "required": ["city"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "calculator",
            "description": "Calculate an arithmetic expression.",
            "parameters": {
                "type": "object",
                "properties": {"expression": {"type": "string", "description": "The expression to calculate"}},
                "required": ["expression"],
            },
        },
    },
]


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def facts(response: Any) -> dict[str, Any]:
    message = response.choices[0].message
    return {
        "text": message.content,
        "reasoning": getattr(message, "reasoning_content", None),
        "tokens": response.usage.completion_tokens,
    }


def chat(ask: Ask) -> dict[str, Any]:
    return facts(ask(messages=user("What is 12+30?")))


def chat_without_thinking(ask: Ask) -> dict[str, Any]:
    off = {"thinking": {"type": "disabled"}, "allowed_openai_params": ["thinking"]}
    return facts(ask(messages=user("What is the capital of France?"), **off))


def stream(ask: Ask) -> dict[str, Any]:
    chunks = list(ask(messages=user("What is 12+30?"), stream=True, stream_options={"include_usage": True}))
    return {**facts(litellm.stream_chunk_builder(chunks)), "num_chunks": len(chunks)}


def tools(ask: Ask) -> dict[str, Any]:
    chunks = list(ask(messages=user("What is the weather in Paris?"), tools=FUNCTIONS, stream=True))
    whole: Any = litellm.stream_chunk_builder(chunks)
    (call,) = whole.choices[0].message.tool_calls
    return {"name": call.function.name, "arguments": json.loads(call.function.arguments)}


def loop(ask: Ask) -> dict[str, Any]:
    messages, calls = user(QUESTION), []
    for _ in range(MAX_STEPS):
        message = ask(messages=messages, tools=FUNCTIONS).choices[0].message
        if not message.tool_calls:
            return {"answer": message.content, "calls": calls}
        messages.append(message)
        for call in message.tool_calls:
            arguments = json.loads(call.function.arguments)
            calls.append([call.function.name, arguments])
            result = TOOLS[call.function.name](**arguments)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    return {"answer": None, "calls": calls}


def parse(ask: Ask) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    response = ask(
        messages=user('Give me JSON with name "Ada" and age 36.'),
        response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": schema, "strict": True}},
    )
    return dict(json.loads(response.choices[0].message.content))


def responses() -> dict[str, Any]:
    response: Any = litellm.responses(
        model=f"openai/{MODEL}", api_base=f"{URL}/v1", api_key=key(), input="What is 12+30?"
    )
    parts = [part.text for item in response.output if item.type == "message" for part in item.content]
    return {"text": "".join(parts), "tokens": response.usage.output_tokens}


def cost() -> dict[str, Any]:
    """What litellm makes of usage and headers: a price, and what is left of limits."""
    price = {"input_cost_per_token": 2e-6, "output_cost_per_token": 5e-6, "litellm_provider": "openai", "mode": "chat"}
    litellm.register_model({f"openai/{MODEL}": price})
    response: Any = as_openai(messages=user("What is 12+30?"))
    headers = response._hidden_params["additional_headers"]
    return {
        "cost": litellm.completion_cost(response, model=f"openai/{MODEL}"),
        "prompt_tokens": response.usage.prompt_tokens,
        "tokens": response.usage.completion_tokens,
        "reasoning_tokens": response.usage.completion_tokens_details.reasoning_tokens,
        "headers": {name: value for name, value in headers.items() if "ratelimit" in name},
    }


def retried() -> dict[str, Any]:
    limited = limited_key("retried")
    with nearly_used_up(URL, limited) as asked_s:
        reply = as_openai(messages=user("What is 12+30?"), max_tokens=20, api_key=limited, num_retries=2)
        return {"took_s": time.monotonic() - asked_s, "role": reply.choices[0].message.role}


def retried_by_router() -> dict[str, Any]:
    limited = limited_key("router")
    where = {"model": f"openai/{MODEL}", "api_base": f"{URL}/v1", "api_key": limited, "max_retries": 0}
    router = litellm.Router(model_list=[{"model_name": MODEL, "litellm_params": where}], num_retries=2)
    with nearly_used_up(URL, limited) as asked_s:
        reply: Any = router.completion(model=MODEL, messages=user("What is 12+30?"), max_tokens=20)
        return {"took_s": time.monotonic() - asked_s, "role": reply.choices[0].message.role}


def refused() -> dict[str, Any]:
    """What litellm makes of a refusal."""
    limited = limited_key("refused")
    with nearly_used_up(URL, limited):
        try:
            as_openai(messages=user("What is 12+30?"), max_tokens=20, api_key=limited)
        except litellm.RateLimitError as error:
            return {"status": error.status_code, "retry_after": error.response.headers.get("retry-after")}
    return {"status": 200}


CASES = (chat, chat_without_thinking, stream, tools, loop, parse)

if __name__ == "__main__":
    by_provider = {
        f"{prefix}{case.__name__}": partial(case, ask) for prefix, ask in PROVIDERS.items() for case in CASES
    }
    limits: dict[str, Any] = {
        "cost": cost,
        "retried": retried,
        "retried_by_router": retried_by_router,
        "refused": refused,
    }
    report("litellm", {**by_provider, "responses": responses, **(limits if options().limited else {})})
