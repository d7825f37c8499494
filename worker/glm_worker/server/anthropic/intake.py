"""From the bodies of Anthropic's endpoints to orders. No I/O, any thread. Raises RequestRefused.

Blocks are joined by line breaks, consecutive messages of one role are one, and the results of tools go before what the
user says beside them.
"""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, TypeVar

from glm_worker.errors import RequestRefused
from glm_worker.server.anthropic.schema import (
    AssistantMessage,
    ChoiceAny,
    ChoiceNone,
    ChoiceTool,
    CountRequest,
    Message,
    MessagesRequest,
    TextBlock,
    ThinkingAdaptive,
    ThinkingBlock,
    ThinkingEnabled,
    Tool,
    ToolResultBlock,
    ToolUseBlock,
    UserMessage,
)
from glm_worker.server.jobs.accept import accept_chat, check_model
from glm_worker.server.jobs.context import Context
from glm_worker.server.jobs.conversation import (
    ANY_TEXT,
    AssistantTurn,
    Conversation,
    Named,
    OfferedTool,
    PastCall,
    Said,
    ToolChoice,
    ToolResult,
    Turn,
)
from glm_worker.server.jobs.job import Room
from glm_worker.server.jobs.order import Order
from glm_worker.server.jobs.wishes import ParamNames, Wishes
from glm_worker.server.refusals import parse
from glm_worker.server.structured.formats import Content, JsonSchema
from glm_worker.server.thinking.wish import ThinkingWish, anthropic_effort, anthropic_thinking, combine

_NAMES = ParamNames(answer_format="output_config.format")
_VENDORS_MODELS = "claude-"
_INTERLEAVED = "interleaved-thinking"

Request = TypeVar("Request", bound=CountRequest)


@dataclass(frozen=True)
class Intake:
    """Reads bodies for one endpoint. any_model: whether names of Anthropic's models mean the one that is served."""

    any_model: bool = False

    def message(self, body: bytes, context: Context, room: Room) -> Order:
        """Return the order of a /v1/messages body. room: what its answer has to fit in."""
        request = self._read(MessagesRequest, body, context)
        _check_budget(request, context)
        wishes = Wishes(
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            top_k=request.top_k,
            stop_strings=tuple(request.stop_sequences or ()),
            ignored=request.ignored,
            stream=bool(request.stream),
        )
        order = accept_chat(
            conversation_of(request), wishes, context, order_id=context.order_id(f"msg_{secrets.token_hex(12)}")
        )
        return _fitted(order, room)

    def prompt(self, body: bytes, context: Context) -> Order:
        """Return the order of a /v1/messages/count_tokens body: nobody runs it, its prompt is what counts."""
        request = self._read(CountRequest, body, context)
        return accept_chat(conversation_of(request), Wishes(ignored=request.ignored), context, order_id="count")

    def _read(self, kind: type[Request], body: bytes, context: Context) -> Request:
        request = parse(kind, body)
        if context.caller.model or not (self.any_model and request.model.startswith(_VENDORS_MODELS)):
            check_model(request.model, context)
        if request.thread is not None:
            raise RequestRefused(
                "thread is not supported: this server holds no conversations; send all messages, without thread",
                param="thread",
                code="thread_unsupported_request",  # at which Anthropic's packages do that
            )
        return request


def _fitted(order: Order, room: Room) -> Order:
    """Leave an answer that may be longer than what the prompt leaves to end there: agents ask for 32,000 tokens."""
    (job,) = order.jobs
    assert job.max_tokens is not None
    fits = len(job.prompt_token_ids) + job.max_tokens <= room.num_tokens
    return order if fits else replace(order, jobs=(replace(job, max_tokens=None),))


def _check_budget(request: MessagesRequest, context: Context) -> None:
    """Refuse a budget that leaves no token for the answer, unless it is one for several answers between tools."""
    if not isinstance(request.thinking, ThinkingEnabled) or request.thinking.budget_tokens is None:
        return
    budget = request.thinking.budget_tokens
    if budget >= request.max_tokens and _INTERLEAVED not in context.caller.headers.get("anthropic-beta", ""):
        raise RequestRefused(
            f"thinking.budget_tokens is {budget}; allowed: less than max_tokens, which is {request.max_tokens}",
            param="thinking.budget_tokens",
            code="invalid_value",
        )


def conversation_of(request: CountRequest) -> Conversation:
    """Return what a request says, in nobody's words. Raises RequestRefused for an answer that cannot be continued."""
    system = _text(request.system)
    turns: list[Turn] = [] if not system else [Said(role="system", text=system)]
    for _, messages in groupby(request.messages, lambda message: message.role):
        turns += _turns(list(messages))
    goes_on = isinstance(turns[-1], AssistantTurn) if turns else False
    if goes_on and turns[-1] == AssistantTurn(reasoning=""):  # an empty beginning is none
        turns, goes_on = turns[:-1], False
    if goes_on:
        _check_continued(turns[-1], len(request.messages) - 1)
    return Conversation(
        turns=tuple(turns),
        tools=tuple(_offered(index, tool) for index, tool in enumerate(request.tools or ())),
        tool_choice=_choice(request),
        parallel_calls=not getattr(request.tool_choice, "disable_parallel_tool_use", None),
        thinking=_thinking(request),
        content=_content(request),
        goes_on=goes_on,
        params=_NAMES,
    )


def _turns(messages: Sequence[Message]) -> Iterator[Turn]:
    """Give the turns of consecutive messages of one role."""
    blocks = [block for message in messages for block in _blocks(message)]
    text = _text([block for block in blocks if isinstance(block, TextBlock)])
    match messages[0]:
        case UserMessage():
            results = [block for block in blocks if isinstance(block, ToolResultBlock)]
            yield from (ToolResult(text=_told(result), call_id=result.tool_use_id) for result in results)
            if text or not results:
                yield Said(role="user", text=text)
        case AssistantMessage():
            thoughts = [block.thinking for block in blocks if isinstance(block, ThinkingBlock)]
            calls = [block for block in blocks if isinstance(block, ToolUseBlock)]
            yield AssistantTurn(
                text=text,
                reasoning="\n".join(thoughts),
                calls=tuple(PastCall(name=call.name, arguments=call.input, id=call.id) for call in calls),
            )
        case _:
            yield Said(role="system", text=text)


def _blocks(message: Message) -> Sequence[Any]:
    content = message.content
    if isinstance(content, str):
        return [TextBlock(type="text", text=content, cache_control=None, citations=None)]
    return content


def _check_continued(turn: Turn, index: int) -> None:
    assert isinstance(turn, AssistantTurn)
    if turn.calls:
        raise RequestRefused(
            f"messages[{index}] is the last one and has a tool_use; the tool_result must follow in a user message",
            param=f"messages[{index}]",
            code="invalid_value",
        )
    if not turn.text:
        raise RequestRefused(
            f"messages[{index}] is the last one and has only thinking; only text can be continued",
            param=f"messages[{index}]",
            code="invalid_value",
        )


def _told(result: ToolResultBlock) -> str:
    """Return what a tool said. GLM's format has no mark for errors, so the text says it."""
    text = _text(result.content)
    return f"Error: {text}" if result.is_error and not text.lower().startswith("error") else text


def _text(content: str | Sequence[TextBlock] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(block.text for block in content if block.text)


def _offered(index: int, tool: Tool) -> OfferedTool:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.input_schema}
    if tool.description is None:
        del function["description"]
    return OfferedTool(
        name=tool.name,
        schema=tool.input_schema,
        as_rendered={"type": "function", "function": function},
        is_strict=bool(tool.strict),
        param=f"tools[{index}].input_schema",
    )


def _choice(request: CountRequest) -> ToolChoice:
    match request.tool_choice:
        case ChoiceNone():
            return "none"
        case ChoiceAny():
            return "required"
        case ChoiceTool(name=name):
            return Named(name)
        case _:
            return "auto"


def _thinking(request: CountRequest) -> ThinkingWish:
    wishes = [anthropic_effort(request.output_config.effort if request.output_config else None)]
    if request.thinking is not None:
        thinking = request.thinking
        wishes.append(
            anthropic_thinking(
                type=thinking.type,
                budget_tokens=thinking.budget_tokens if isinstance(thinking, ThinkingEnabled) else None,
                display=thinking.display if isinstance(thinking, ThinkingEnabled | ThinkingAdaptive) else None,
            )
        )
    edits = (request.context_management.edits if request.context_management else None) or ()
    if any(edit.keeps_thoughts for edit in edits):
        wishes.append(
            ThinkingWish(keeps_history=True, spelled={"keeps_history": "context_management.edits: keep all thinking"})
        )
    return combine(wishes)


def _content(request: CountRequest) -> Content:
    if request.output_config is not None and request.output_config.format is not None:
        return JsonSchema(request.output_config.format.schema_, "output_config.format.schema")
    if request.output_format is not None:
        return JsonSchema(request.output_format.schema_, "output_format.schema")
    return ANY_TEXT
