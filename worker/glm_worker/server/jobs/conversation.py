"""What was said so far, and what may be called, in nobody's words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from glm_worker.server.jobs.wishes import CHAT_NAMES, ParamNames
from glm_worker.server.structured.formats import AnyText, Content
from glm_worker.server.thinking.wish import ThinkingWish


@dataclass(frozen=True, kw_only=True)
class Said:
    """A turn of plain text."""

    role: Literal["system", "user"]
    text: str


@dataclass(frozen=True, kw_only=True)
class PastCall:
    """A call that the assistant made. arguments: the object; parsed already."""

    name: str
    arguments: Mapping[str, Any]
    id: str | None = None


@dataclass(frozen=True, kw_only=True)
class AssistantTurn:
    """A turn of the assistant. reasoning None: not told, and it may stand inside the text, between think tags."""

    text: str = ""
    reasoning: str | None = None
    calls: tuple[PastCall, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ToolResult:
    """What a tool said. call_id: of the call it answers, where the client tells it."""

    text: str
    call_id: str | None = None


NO_WISH = ThinkingWish()
ANY_TEXT = AnyText()

Turn = Said | AssistantTurn | ToolResult


@dataclass(frozen=True, kw_only=True)
class OfferedTool:
    """A function that the model may call. as_rendered: what the chat template shows of it, in OpenAI's form."""

    name: str
    schema: Mapping[str, Any] | None
    as_rendered: Mapping[str, Any]
    is_strict: bool = False
    param: str = "tools"  # where the schema stands in the request


@dataclass(frozen=True)
class Named:
    """The one tool that must be called."""

    name: str


ToolChoice = Literal["auto", "none", "required"] | Named


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """A chat to go on with.

    goes_on: the last turn is the assistant's, and the answer continues it. content: what the answer must look like,
    where it is not a call.
    """

    turns: tuple[Turn, ...]
    tools: tuple[OfferedTool, ...] = ()
    tool_choice: ToolChoice = "auto"
    parallel_calls: bool = True
    thinking: ThinkingWish = NO_WISH
    content: Content = ANY_TEXT
    goes_on: bool = False
    params: ParamNames = CHAT_NAMES
