"""The tools of a chat, and which of them may or must be called."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from glm_worker.server.fields import Items, Strict
from glm_worker.server.jobs.conversation import Named, OfferedTool
from glm_worker.server.jobs.conversation import ToolChoice as Choice
from glm_worker.server.openai.bounds import MAX_NAME_CHARS, MAX_TOOLS
from glm_worker.server.openai.chat.messages import CacheControl

FunctionName = Annotated[str, Field(pattern=rf"^[a-zA-Z0-9_.-]{{1,{MAX_NAME_CHARS}}}$")]


class Function(Strict):
    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = Field(None, description="A JSON schema of an object.")
    strict: bool | None = Field(None, description="Calls validate against the schema, or the schema is refused.")


class Tool(Strict):
    type: Literal["function"]
    function: Function
    cache_control: CacheControl = None


Tools = Annotated[Items[Tool] | None, Field(max_length=MAX_TOOLS)]


class NamedFunction(Strict):
    name: FunctionName


class NamedChoice(Strict):
    type: Literal["function"]
    function: NamedFunction


ToolChoice = Literal["auto", "none", "required"] | NamedChoice | None


def offered(tools: Sequence[Tool]) -> tuple[OfferedTool, ...]:
    """Return the tools as they are offered. The template shows what says something to the model."""
    return tuple(
        OfferedTool(
            name=tool.function.name,
            schema=tool.function.parameters,
            as_rendered=tool.model_dump(exclude_unset=True, exclude={"cache_control": True, "function": {"strict"}}),
            is_strict=bool(tool.function.strict),
            param=f"tools[{index}].function.parameters",
        )
        for index, tool in enumerate(tools)
    )


def choice_of(choice: ToolChoice) -> Choice:
    return Named(choice.function.name) if isinstance(choice, NamedChoice) else choice or "auto"


def ignored_in(tools: Sequence[Tool]) -> Iterator[str]:
    """Give the names of what is said in these tools and changes nothing."""
    if any(tool.cache_control is not None for tool in tools):
        yield "tools[].cache_control"
