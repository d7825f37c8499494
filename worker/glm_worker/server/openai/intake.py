"""From the bodies of OpenAI's endpoints to orders. No I/O, any thread. Raises RequestRefused."""

import secrets
from typing import Any

from pydantic_core import from_json

from glm_worker.errors import RequestRefused
from glm_worker.server.jobs.accept import accept_chat, accept_text, check_model
from glm_worker.server.jobs.context import Context
from glm_worker.server.jobs.conversation import (
    AssistantTurn,
    Conversation,
    OfferedTool,
    PastCall,
    Said,
    ToolResult,
    Turn,
)
from glm_worker.server.jobs.order import Order
from glm_worker.server.jobs.wishes import ParamNames, Wishes
from glm_worker.server.openai.schema import (
    AssistantMessage,
    ChatCompletionRequest,
    CompletionRequest,
    Content,
    Message,
    Tool,
    ToolMessage,
)
from glm_worker.server.refusals import parse
from glm_worker.server.thinking.wish import ThinkingWish

_COMPLETION_NAMES = ParamNames(prompt="prompt")


def chat_order(body: bytes, context: Context) -> Order:
    """Return the order of a /v1/chat/completions body."""
    request = parse(ChatCompletionRequest, body)
    check_model(request.model, context.checkpoint)
    conversation = Conversation(
        turns=tuple(_turn(index, message) for index, message in enumerate(request.messages)),
        tools=tuple(_offered(index, tool) for index, tool in enumerate(request.tools or ())),
        tool_choice="none" if request.tool_choice == "none" else "auto",
        thinking=ThinkingWish(
            mode={None: None, True: "enabled", False: "disabled"}[request.enable_thinking], spelled={"mode": "thinking"}
        ),
    )
    return accept_chat(conversation, _wishes(request), context, order_id=f"chatcmpl-{secrets.token_hex(16)}")


def completion_order(body: bytes, context: Context) -> Order:
    """Return the order of a /v1/completions body."""
    request = parse(CompletionRequest, body)
    check_model(request.model, context.checkpoint)
    return accept_text(
        [request.prompt],
        _wishes(request),
        context,
        order_id=f"cmpl-{secrets.token_hex(16)}",
        params=_COMPLETION_NAMES,
    )


def _wishes(request: ChatCompletionRequest | CompletionRequest) -> Wishes:
    return Wishes(
        max_tokens=request.answer_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        min_p=request.min_p,
        seed=request.seed,
        stop_strings=tuple(request.stop_strings),
        ignore_eos=bool(request.ignore_eos),
        stream=bool(request.stream),
        include_usage=bool(request.stream_options and request.stream_options.include_usage),
    )


def _offered(index: int, tool: Tool) -> OfferedTool:
    return OfferedTool(
        name=tool.function.name,
        schema=tool.function.parameters,
        as_rendered=tool.model_dump(exclude_unset=True),
        param=f"tools[{index}].function.parameters",
    )


def _turn(index: int, message: Message) -> Turn:
    text = _text(message.content)
    match message:
        case AssistantMessage():
            return AssistantTurn(
                text=text,
                reasoning=message.reasoning if message.reasoning_content is None else message.reasoning_content,
                calls=tuple(
                    PastCall(
                        name=call.function.name,
                        id=call.id,
                        arguments=_arguments(call.function.arguments, f"messages[{index}].tool_calls[{number}]"),
                    )
                    for number, call in enumerate(message.tool_calls or ())
                ),
            )
        case ToolMessage():
            return ToolResult(text=text, call_id=message.tool_call_id)
        case _:
            return Said(role="user" if message.role == "user" else "system", text=text)


def _text(content: Content | None) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.text for part in content or ())


def _arguments(text: str, where: str) -> dict[str, Any]:
    """Return the arguments of an earlier call, which the API has as JSON text and templates read as an object."""
    param = f"{where}.function.arguments"
    try:
        arguments = from_json(text) if text.strip() else {}
    except ValueError as error:
        raise RequestRefused(f"{param} is not valid JSON: {error}", param=param) from error
    if not isinstance(arguments, dict):
        raise RequestRefused(f"{param} must be a JSON object, got {text[:80]}", param=param)
    return arguments
