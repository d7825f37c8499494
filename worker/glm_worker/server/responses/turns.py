"""From items to the turns of a conversation, and to the form in which items are kept and listed. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic_core import from_json

from glm_worker.errors import RequestRefused
from glm_worker.server.jobs.conversation import AssistantTurn, PastCall, Said, ToolResult, Turn
from glm_worker.server.responses.ids import ItemKind, ResponseId
from glm_worker.server.responses.items import (
    FunctionCallItem,
    FunctionCallOutputItem,
    MessageItem,
    ReadItem,
    ReasoningItem,
    text_of,
)
from glm_worker.server.responses.opaque import unseal
from glm_worker.server.text.argument_json import without_cut

Json = dict[str, Any]


class Placed(NamedTuple):
    """An item, and the field of the request that it came by."""

    item: ReadItem
    param: str


@dataclass
class _Building:
    """A turn of the assistant, as far as its items have come."""

    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[PastCall] = field(default_factory=list)

    def takes(self, item: ReadItem) -> bool:
        """Tell whether an item goes on with this turn. Answers are reasoning, text and calls, in this order mostly.

        A text between calls is a part of the one text that the format has for them.
        """
        match item:
            case ReasoningItem():
                return not self.texts and not self.calls
            case MessageItem():
                return item.role == "assistant" and (not self.texts or bool(self.calls))
            case FunctionCallItem():
                return True
            case _:
                return False

    def turn(self) -> AssistantTurn:
        return AssistantTurn(
            text="".join(self.texts),
            reasoning="".join(self.thoughts) if self.thoughts else None,
            calls=tuple(self.calls),
        )


def turns_of(placed: Sequence[Placed]) -> list[Turn]:
    """Return the turns that items make up. Raises RequestRefused for calls and reasoning that cannot be read."""
    turns: list[Turn] = []
    building: _Building | None = None
    for item, param in placed:
        if building is not None and not building.takes(item):
            turns.append(building.turn())
            building = None
        match item:
            case MessageItem() if item.role != "assistant":
                turns.append(Said(role="user" if item.role == "user" else "system", text=text_of(item.content)))
            case FunctionCallOutputItem():
                turns.append(ToolResult(text=text_of(item.output), call_id=item.call_id))
            case _:
                building = building or _Building()
                _add(building, item, param)
    return turns if building is None else [*turns, building.turn()]


def _add(building: _Building, item: ReadItem, param: str) -> None:
    match item:
        case MessageItem():
            building.texts.append(text_of(item.content))
        case ReasoningItem():
            building.thoughts += _thoughts(item, param)
        case FunctionCallItem():
            arguments = _arguments(item, param)
            building.calls.append(PastCall(name=item.name, id=item.call_id, arguments=arguments))


def _thoughts(item: ReasoningItem, param: str) -> Iterable[str]:
    """Return the reasoning of an item: its content, else what its opaque string stands for, else its summary."""
    if item.content:
        return [part.text for part in item.content]
    if item.encrypted_content is not None:
        reasoning = unseal(item.encrypted_content)
        if reasoning is None:
            raise RequestRefused(
                f"{param}: its encrypted_content was cut, or was not made by this server; leave the item out",
                param=param,
                code="invalid_encrypted_content",
            )
        return [reasoning]
    return [part.text for part in item.summary or ()]


def _arguments(item: FunctionCallItem, param: str) -> Json:
    """Return the arguments of an earlier call, which the API has as JSON text and templates read as an object.

    A call that was cut comes back with its JSON open; the arguments that are whole count.
    """
    what = f"{param}: the arguments of a call"
    cut = None if item.status == "completed" else without_cut(item.arguments)
    try:
        arguments = from_json(cut or item.arguments) if item.arguments.strip() else {}
    except ValueError as error:
        raise RequestRefused(f"{what} are not valid JSON: {error}", param=param, code="invalid_value") from error
    if not isinstance(arguments, dict):
        raise RequestRefused(f"{what} are no JSON object", param=param, code="invalid_value")
    return arguments


def listed(item: ReadItem, id: ResponseId, number: int) -> Json:  # noqa: A002
    """Return an item as it is kept and listed. Without an id of its own it gets one by its place in the input."""

    def head(kind: ItemKind) -> Json:
        return {"id": item.id or id.input_item(kind, number), "type": item.type or "message"}

    match item:
        case MessageItem():
            is_said = item.role != "assistant"
            part: Json = {"type": "input_text" if is_said else "output_text", "text": text_of(item.content)}
            content = [part if is_said else part | {"annotations": [], "logprobs": []}]
            return {**head("msg"), "role": item.role, "status": "completed", "content": content}
        case FunctionCallItem():
            said = {"call_id": item.call_id, "name": item.name, "arguments": item.arguments}
            return {**head("fc"), **said, "status": item.status or "completed"}
        case FunctionCallOutputItem():
            return {**head("fco"), "call_id": item.call_id, "output": text_of(item.output), "status": "completed"}
        case ReasoningItem():
            parts = {
                "summary": [part.model_dump() for part in item.summary or ()],
                "content": [part.model_dump() for part in item.content or ()],
            }
            sealed = {} if item.encrypted_content is None else {"encrypted_content": item.encrypted_content}
            return {**head("rs"), **parts, **sealed}
