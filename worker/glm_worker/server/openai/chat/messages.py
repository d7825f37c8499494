"""The messages of a chat, field by field. Whatever else they have is refused by name."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from glm_worker.errors import RequestRefused
from glm_worker.server.fields import Items, Strict, conflict, only
from glm_worker.server.jobs.conversation import AssistantTurn, PastCall, Said, ToolResult, Turn
from glm_worker.server.openai.bounds import MAX_CALLS, MAX_PARTS
from glm_worker.server.openai.fields import Id, Name
from glm_worker.server.refusals import json_in
from glm_worker.server.text.argument_json import without_cut

CacheControl = Annotated[dict[str, Any] | None, Field(max_length=8, description="No effect.")]


class TextPart(Strict):
    type: Literal["text"]
    text: str
    cache_control: CacheControl = None


class RefusalPart(Strict):
    type: Literal["refusal"]
    refusal: str

    @property
    def text(self) -> str:
        return self.refusal


Parts = Annotated[Items[TextPart], Field(max_length=MAX_PARTS)]
AssistantParts = Annotated[
    Items[Annotated[TextPart | RefusalPart, Field(discriminator="type")]], Field(max_length=MAX_PARTS)
]
Content = str | Parts


class _Message(Strict):
    name: Name | None = Field(None, description="No effect: the templates of GLM models show no names.")
    cache_control: CacheControl = None


class SystemMessage(_Message):
    role: Literal["system", "developer"]
    content: Content


class UserMessage(_Message):
    role: Literal["user"]
    content: Content


class CalledFunction(Strict):
    name: Id
    arguments: str = Field(description="The JSON text of an object. Of one that was cut, what is whole counts.")
    parsed_arguments: Any = Field(None, description="No effect: the openai package sends back what it read there.")


class MessageToolCall(Strict):
    id: Id | None = None
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None  # streamed calls carry it, and clients send back what they put together


class AssistantMessage(_Message):
    role: Literal["assistant"]
    content: str | AssistantParts | None = None
    reasoning_content: str | None = None
    reasoning: str | None = Field(None, description="Another name of reasoning_content.")
    tool_calls: Annotated[Items[MessageToolCall] | None, Field(max_length=MAX_CALLS)] = None
    parsed: Any = Field(None, description="No effect: the openai package sends back what it read in the content.")
    refusal: Annotated[str | None, only()] = None
    audio: Annotated[dict[str, Any] | None, only()] = None
    function_call: Annotated[dict[str, Any] | None, only()] = None
    annotations: Annotated[list[Any] | None, only([])] = None

    @model_validator(mode="after")
    def _one_reasoning(self) -> "AssistantMessage":
        if self.reasoning is not None and self.reasoning_content not in (None, self.reasoning):
            raise conflict("reasoning", "reasoning and reasoning_content differ; give one of them")
        return self


class ToolMessage(_Message):
    role: Literal["tool"]
    content: Content | None
    tool_call_id: Id | None = None


Message = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


def turns_of(messages: Sequence[Message]) -> tuple[Turn, ...]:
    """Return the turns in these messages. Raises RequestRefused for calls whose arguments are no object."""
    return tuple(_turn(index, message) for index, message in enumerate(messages))


def ignored_in(messages: Sequence[Message]) -> Iterator[str]:
    """Give the names of what is said in these messages and changes nothing.

    The name of a tool is told by the call that it answers.
    """
    if any(message.name is not None and message.role != "tool" for message in messages):
        yield "messages[].name"
    answers = [message for message in messages if isinstance(message, AssistantMessage)]
    if any(message.parsed is not None for message in answers):
        yield "messages[].parsed"
    calls = (call.function for message in answers for call in message.tool_calls or ())
    if any(function.parsed_arguments is not None for function in calls):
        yield "messages[].tool_calls[].function.parsed_arguments"
    if any(message.cache_control is not None for message in messages):
        yield "messages[].cache_control"
    parts = (part for message in messages if isinstance(message.content, list) for part in message.content)
    if any(isinstance(part, TextPart) and part.cache_control is not None for part in parts):
        yield "messages[].content[].cache_control"


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


def _text(content: str | Sequence[TextPart | RefusalPart] | None) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.text for part in content or ())


def _arguments(text: str, where: str) -> dict[str, Any]:
    """Return the arguments of an earlier call, which the API has as JSON text and templates read as an object.

    A call that was cut comes back with its JSON open; the arguments that are whole count.
    """
    param = f"{where}.function.arguments"
    arguments = json_in(without_cut(text) or text, param) if text.strip() else {}
    if not isinstance(arguments, dict):
        raise RequestRefused(f"{param} must be the JSON text of an object", param=param, code="invalid_value")
    return arguments
