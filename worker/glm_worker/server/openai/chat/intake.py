"""From the body of a chat to its order. No I/O, any thread. Raises RequestRefused."""

import secrets

from glm_worker.server.jobs.accept import accept_chat, check_model
from glm_worker.server.jobs.context import Context
from glm_worker.server.jobs.conversation import Conversation
from glm_worker.server.jobs.order import Order
from glm_worker.server.jobs.wishes import ParamNames, Wishes
from glm_worker.server.openai.chat.messages import turns_of
from glm_worker.server.openai.chat.request import ChatCompletionRequest
from glm_worker.server.openai.chat.tools import choice_of, offered
from glm_worker.server.openai.generation import wishes_of
from glm_worker.server.refusals import parse
from glm_worker.server.thinking.wish import THRESHOLD_HEADER, combine, threshold_header


def chat_order(body: bytes, context: Context) -> Order:
    """Return the order of a /v1/chat/completions body."""
    return order_of(parse(ChatCompletionRequest, body), context)


def order_of(request: ChatCompletionRequest, context: Context, wishes: Wishes | None = None) -> Order:
    """Return the order of a chat. wishes: where a dialect says them in another way."""
    check_model(request.model, context)
    return accept_chat(
        conversation_of(request, context),
        wishes or wishes_of(request, context.checkpoint),
        context,
        order_id=context.order_id(f"chatcmpl-{secrets.token_hex(16)}"),
    )


def conversation_of(request: ChatCompletionRequest, context: Context) -> Conversation:
    header = threshold_header(context.caller.headers.get(THRESHOLD_HEADER))
    return Conversation(
        turns=turns_of(request.messages),
        tools=offered(request.tools or ()),
        tool_choice=choice_of(request.tool_choice),
        parallel_calls=request.parallel_tool_calls is not False,
        thinking=combine([request.thinking_wish(), header]),
        content=request.content(),
        goes_on=request.goes_on,
        params=ParamNames(max_tokens=request.max_tokens_name, answer_format=request.format_name),
    )
