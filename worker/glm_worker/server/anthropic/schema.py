"""The requests of Anthropic's messages API that this server answers, field by field.

Everything else is refused by name. What stock clients always send, and nothing here can honour, is accepted and told as
ignored (`ignored`).
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import ConfigDict, Field, model_validator

from glm_worker.server.fields import Items, Strict, conflict, only

MAX_MESSAGES = 4096  # the longest loops of agents have hundreds
MAX_BLOCKS = 4096  # of one content: a message can answer hundreds of calls
MAX_TOOLS = 512
MAX_STOP_SEQUENCES = 16  # each is looked for in the text of every token
MAX_STOP_CHARS = 1024  # as much text may be held back from a stream
MAX_ID_CHARS = 256
MAX_LABEL_CHARS = 512
_NO_OTHER_TOOLS = "; this server runs no tools, and the model knows only those that a request describes"


Id = Annotated[str, Field(max_length=MAX_ID_CHARS)]
Block = TypeVar("Block")
Blocks = Annotated[Items[Block], Field(max_length=MAX_BLOCKS)]


class CacheControl(Strict):
    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class _Cacheable(Strict):
    cache_control: CacheControl | None = Field(None, description="Ignored.")


class TextBlock(_Cacheable):
    type: Literal["text"]
    text: str
    citations: Items[dict[str, Any]] | None = Field(None, description="Of earlier answers; ignored.")


class ThinkingBlock(Strict):
    type: Literal["thinking"]
    thinking: str
    signature: str | None = Field(None, description="Taken as it is, verified by nobody.")


class RedactedThinkingBlock(Strict):
    type: Literal["redacted_thinking"]
    data: str = Field(description="Nobody here can read it: the thought is left out.")


class DirectCaller(Strict):
    type: Literal["direct"]


class ToolUseBlock(_Cacheable):
    type: Literal["tool_use"]
    id: Id
    name: Id
    input: dict[str, Any]
    caller: DirectCaller | None = None


class ToolResultBlock(_Cacheable):
    type: Literal["tool_result"]
    tool_use_id: Id
    content: str | Blocks[TextBlock] | None = None
    is_error: bool | None = None


UserBlock = Annotated[TextBlock | ToolResultBlock, Field(discriminator="type")]
AssistantBlock = Annotated[
    TextBlock | ThinkingBlock | RedactedThinkingBlock | ToolUseBlock, Field(discriminator="type")
]


class UserMessage(Strict):
    role: Literal["user"]
    content: str | Blocks[UserBlock]


class AssistantMessage(Strict):
    role: Literal["assistant"]
    content: str | Blocks[AssistantBlock]


class SystemMessage(Strict):
    role: Literal["system"]
    content: str | Blocks[TextBlock]


Message = Annotated[UserMessage | AssistantMessage | SystemMessage, Field(discriminator="role")]


class Tool(_Cacheable):
    type: Annotated[str | None, only("custom", because=_NO_OTHER_TOOLS)] = None
    name: str = Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")
    description: str | None = None
    input_schema: dict[str, Any]
    strict: bool | None = None
    input_examples: Items[dict[str, Any]] | None = Field(None, description="Ignored.")
    eager_input_streaming: bool | None = Field(None, description="Inputs always stream as they come.")
    defer_loading: Annotated[bool | None, only(False)] = None
    allowed_callers: Annotated[Items[str] | None, only(["direct"])] = None


class ChoiceAuto(Strict):
    type: Literal["auto"]
    disable_parallel_tool_use: bool | None = None


class ChoiceAny(Strict):
    type: Literal["any"]
    disable_parallel_tool_use: bool | None = None


class ChoiceTool(Strict):
    type: Literal["tool"]
    name: str
    disable_parallel_tool_use: bool | None = None


class ChoiceNone(Strict):
    type: Literal["none"]


ToolChoice = Annotated[ChoiceAuto | ChoiceAny | ChoiceTool | ChoiceNone, Field(discriminator="type")]
Display = Literal["summarized", "omitted"]


class ThinkingEnabled(Strict):
    type: Literal["enabled"]
    budget_tokens: int | None = Field(None, ge=1, description="Most tokens of thought; less than max_tokens.")
    display: Display | None = None


class ThinkingDisabled(Strict):
    type: Literal["disabled"]


class ThinkingAdaptive(Strict):
    type: Literal["adaptive"]
    display: Display | None = None


Thinking = Annotated[ThinkingEnabled | ThinkingDisabled | ThinkingAdaptive, Field(discriminator="type")]


class OutputFormat(Strict):
    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(Strict):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


class Metadata(Strict):
    user_id: Annotated[str, Field(max_length=MAX_LABEL_CHARS)] | None = None


class ContextEdit(Strict):
    """What to leave out of a long context. Only a wish to keep all thoughts is honoured: nothing here is left out."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    type: Literal["clear_thinking_20251015", "clear_tool_uses_20250919", "compact_20260112"]
    keep: Any = None

    @property
    def keeps_thoughts(self) -> bool:
        return self.type == "clear_thinking_20251015" and self.keep == "all"


class ContextManagement(Strict):
    edits: Items[ContextEdit] | None = None


class Diagnostics(Strict):
    previous_message_id: Id | None = None


_REFUSED = {
    "container": "this server runs no code and keeps no files",
    "inference_geo": "a deployment is in one place, which no request changes",
    "fallbacks": "this server has one model",
    "compaction": "this server makes no prompt shorter",
    "anthropic_version": "it is a header here, anthropic-version",
    "anthropic_beta": "it is a header here, anthropic-beta",
    "betas": "it is an argument of clients, which send it as the header anthropic-beta",
    "prompt": "it is of an older API; send messages",
    "max_tokens_to_sample": "it is of an older API; send max_tokens",
}


class CountRequest(Strict):
    """POST /v1/messages/count_tokens, and what /v1/messages has in common with it."""

    refused: ClassVar[Mapping[str, str]] = _REFUSED

    model: str
    messages: Items[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    system: str | Blocks[TextBlock] | None = None
    tools: Annotated[Items[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = Field(None, description="The older name of output_config.format.")
    cache_control: CacheControl | None = Field(None, description="Ignored.")
    context_management: ContextManagement | None = Field(
        None, description="Ignored, except that all thoughts are to be kept."
    )
    mcp_servers: Annotated[Items[dict[str, Any]] | None, only([])] = None
    speed: Annotated[str | None, only("standard")] = None
    thread: dict[str, Any] | None = Field(None, description="Refused: clients then send the whole conversation.")

    @model_validator(mode="after")
    def _consistent(self) -> "CountRequest":
        first_of: dict[str, int] = {}
        for index, tool in enumerate(self.tools or ()):
            first = first_of.setdefault(tool.name, index)
            if first != index:
                raise conflict(f"tools[{index}].name", f"tools[{index}].name is also the name of tools[{first}]")
        if isinstance(self.tool_choice, ChoiceTool) and self.tool_choice.name not in first_of:
            raise conflict("tool_choice.name", "tool_choice.name is the name of none of the tools")
        if isinstance(self.tool_choice, ChoiceAny) and not first_of:
            raise conflict("tool_choice", "tool_choice asks for a call of any tool, and tools has none")
        of_config = self.output_config and self.output_config.format
        if self.output_format is not None and of_config is not None and self.output_format != of_config:
            raise conflict("output_format", "output_format and output_config.format differ; give one of them")
        return self

    @property
    def ignored(self) -> tuple[str, ...]:
        """Names of what was sent and has no effect."""
        names = [name for name in _IGNORED if getattr(self, name, None) is not None]
        if self.context_management is not None and any(
            not edit.keeps_thoughts for edit in self.context_management.edits or ()
        ):
            names.append("context_management")
        if any(tool.input_examples for tool in self.tools or ()):
            names.append("tools.input_examples")
        if "cache_control" not in names and any(each.cache_control is not None for each in self._cacheable()):
            names.append("cache_control")
        return tuple(names)

    def _cacheable(self) -> Iterator[_Cacheable]:
        """Give everything that can have a cache_control."""
        yield from self.tools or ()
        blocks = [self.system, *(message.content for message in self.messages)]
        for content in blocks:
            for block in () if content is None or isinstance(content, str) else content:
                if isinstance(block, _Cacheable):
                    yield block
                if isinstance(block, ToolResultBlock) and isinstance(block.content, list):
                    yield from block.content


_IGNORED = ("cache_control", "metadata", "service_tier", "diagnostics")


class MessagesRequest(CountRequest):
    """POST /v1/messages"""

    max_tokens: int = Field(ge=1, description="Most tokens of thought and answer. Lowered to what the prompt leaves.")
    stream: bool | None = None
    temperature: float | None = Field(None, ge=0, le=2, description="0 is greedy. Default: the checkpoint's.")
    top_p: float | None = Field(None, gt=0, le=1, description="Default: the checkpoint's.")
    top_k: int | None = Field(None, ge=0, le=2**31 - 1, description="0: off. Default: the checkpoint's.")
    stop_sequences: Items[str] | None = Field(
        None, description="Looked for in all generated text, thoughts and calls included."
    )
    metadata: Metadata | None = Field(None, description="Ignored.")
    service_tier: Literal["auto", "standard_only"] | None = Field(None, description="Ignored.")
    diagnostics: Diagnostics | None = Field(None, description="Ignored.")

    @model_validator(mode="after")
    def _stops(self) -> "MessagesRequest":
        stops = self.stop_sequences or ()
        if len(stops) > MAX_STOP_SEQUENCES or not all(0 < len(stop) <= MAX_STOP_CHARS for stop in stops):
            raise conflict(
                "stop_sequences",
                f"stop_sequences must be at most {MAX_STOP_SEQUENCES} texts of 1 to {MAX_STOP_CHARS} characters",
            )
        return self
