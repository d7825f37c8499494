"""The requests of the OpenAI API that this server answers, field by field.

Everything else is refused by name. A field that comes later is listed with the values that ask for nothing, so
that clients which always send it work. Null means "not given" everywhere.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetCoreSchemaHandler, model_validator
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

MAX_STOP_STRINGS = 16


@dataclass(frozen=True)
class _FailFast:
    """Stop at the first item that is wrong: one mistake is told, and a million take half a minute to collect.

    What pydantic.FailFast does, but hashable, as members of unions are.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        assert schema["type"] == "list"
        return {**schema, "fail_fast": True}


Item = TypeVar("Item")
Items = Annotated[list[Item], _FailFast()]


def _only(*allowed: object) -> AfterValidator:
    """Accept null and the allowed values, and say so otherwise."""

    def check(value: object) -> object:
        if value is None or value in allowed:
            return value
        names = ", ".join(repr(each) for each in allowed) or "null"
        raise PydanticCustomError("not_allowed", "allowed: {allowed}", {"allowed": names})

    return AfterValidator(check)


def _between(low: float, high: float, *, without_low: bool = False, without_high: bool = False) -> AfterValidator:
    """Accept null and numbers from low to high, and say so otherwise."""
    allowed = f"{low} to {high}"
    if without_low or without_high:
        allowed += f", without {low if without_low else high}"

    def check(value: float | None) -> float | None:
        if value is None or (
            low <= value <= high and not (without_low and value == low) and not (without_high and value == high)
        ):
            return value
        raise PydanticCustomError("not_allowed", "allowed: {allowed}", {"allowed": allowed})

    return AfterValidator(check)


@dataclass(frozen=True)
class _Otherwise:
    """Say this sentence whatever is wrong with the value."""

    message: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.custom_error_schema(
            handler(source), custom_error_type="not_allowed", custom_error_message=self.message
        )


def _conflict(param: str, message: str) -> PydanticCustomError:
    """Return an error about fields that do not go together; param is the one to name."""
    return PydanticCustomError("conflict", "{message}", {"message": message, "param": param})


class Strict(BaseModel):
    """No coercion, no unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class TextPart(Strict):
    type: Literal["text"]
    text: str


Content = str | Items[TextPart]


class SystemMessage(Strict):
    role: Literal["system", "developer"]
    content: Content
    name: Annotated[str | None, _only()] = None


class UserMessage(Strict):
    role: Literal["user"]
    content: Content
    name: Annotated[str | None, _only()] = None


class CalledFunction(Strict):
    name: str
    arguments: str


class MessageToolCall(Strict):
    id: str | None = None
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None  # streamed calls carry it, and clients send back what they put together


class AssistantMessage(Strict):
    role: Literal["assistant"]
    content: Content | None = None
    reasoning_content: str | None = None
    reasoning: str | None = Field(None, description="Another name of reasoning_content.")
    tool_calls: Items[MessageToolCall] | None = None
    name: Annotated[str | None, _only()] = None
    refusal: Annotated[str | None, _only()] = None
    audio: Annotated[dict[str, Any] | None, _only()] = None
    function_call: Annotated[dict[str, Any] | None, _only()] = None
    annotations: Annotated[list[Any] | None, _only([])] = None

    @model_validator(mode="after")
    def _one_reasoning(self) -> "AssistantMessage":
        if self.reasoning is not None and self.reasoning_content not in (None, self.reasoning):
            raise _conflict("messages", "an assistant message has reasoning and reasoning_content, and they differ")
        return self


class ToolMessage(Strict):
    role: Literal["tool"]
    content: Content
    tool_call_id: str | None = None
    name: str | None = Field(None, description="Told by the call it answers; accepted because clients repeat it.")


Message = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


class Function(Strict):
    name: str = Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: Annotated[bool | None, _only(False)] = None


class Tool(Strict):
    type: Literal["function"]
    function: Function


class Thinking(Strict):
    """The switch of the Z.ai API."""

    type: Literal["enabled", "disabled"]


class TemplateArguments(Strict):
    """The switch of vLLM and SGLang."""

    enable_thinking: bool | None = None


class StreamOptions(Strict):
    include_usage: bool | None = None


class _Generation(Strict):
    """What both endpoints share."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1, description="Default: what the prompt leaves.")
    temperature: Annotated[float | None, _between(0, 2)] = Field(
        None, description="0 is greedy. Default of this and the next three: the checkpoint's."
    )
    top_p: Annotated[float | None, _between(0, 1, without_low=True)] = None
    top_k: Annotated[int | None, _between(-1, 2**31 - 1)] = Field(None, description="0 and -1: off.")
    min_p: Annotated[float | None, _between(0, 1, without_high=True)] = None
    seed: Annotated[int | None, _between(-(2**63), 2**63 - 1)] = None
    stop: str | Items[str] | None = Field(None, description="Looked for in all generated text, reasoning included.")
    ignore_eos: bool | None = Field(None, description="Go on past the end of the turn, for measurements.")
    user: str | None = Field(None, description="A label of the caller; it has no effect on the answer.")

    n: Annotated[int | None, _only(1)] = None
    presence_penalty: Annotated[float | None, _only(0)] = None
    frequency_penalty: Annotated[float | None, _only(0)] = None
    logit_bias: Annotated[dict[str, Any] | None, _only({})] = None

    @model_validator(mode="after")
    def _consistent(self) -> "_Generation":
        if self.stream_options is not None and not self.stream:
            raise _conflict("stream_options", "stream_options is only allowed together with stream: true")
        strings = self.stop_strings
        if len(strings) > MAX_STOP_STRINGS or "" in strings:
            raise _conflict("stop", f"stop must be at most {MAX_STOP_STRINGS} strings, none of them empty")
        return self

    @property
    def stop_strings(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())


class ChatCompletionRequest(_Generation):
    """POST /v1/chat/completions"""

    messages: Items[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1, description="The newer name of max_tokens.")
    tools: Items[Tool] | None = None
    tool_choice: Annotated[str | dict[str, Any] | None, _only("auto", "none")] = None
    parallel_tool_calls: Annotated[bool | None, _only(True)] = None
    thinking: Thinking | None = None
    chat_template_kwargs: TemplateArguments | None = None
    reasoning_effort: Annotated[str | None, _only("none", "medium")] = Field(
        None,
        description="none: no thinking; medium, the default of clients, says nothing. GLM-4.5 has no other levels.",
    )
    response_format: Annotated[dict[str, Any] | None, _only({"type": "text"})] = None
    logprobs: Annotated[bool | None, _only(False)] = None
    top_logprobs: Annotated[int | None, _only(0)] = None
    store: Annotated[bool | None, _only(False)] = None
    metadata: Annotated[dict[str, Any] | None, _only({})] = None
    service_tier: Annotated[str | None, _only("auto", "default")] = None
    modalities: Annotated[Items[str] | None, _only(["text"])] = None

    @model_validator(mode="after")
    def _no_conflict(self) -> "ChatCompletionRequest":
        if self.max_tokens is not None and self.max_completion_tokens not in (None, self.max_tokens):
            raise _conflict("max_tokens", "max_tokens and max_completion_tokens differ; give one of them")
        switches = self._thinking_switches()
        if len(set(switches.values())) > 1:
            said = ", ".join(f"{name} switches it {'on' if is_on else 'off'}" for name, is_on in switches.items())
            raise _conflict(next(iter(switches)), f"thinking: {said}; they contradict each other")
        names: set[str] = set()
        for tool in self.tools or ():
            if tool.function.name in names:
                raise _conflict("tools", f"tools has two functions named {tool.function.name}")
            names.add(tool.function.name)
        return self

    @property
    def answer_tokens(self) -> int | None:
        return self.max_completion_tokens if self.max_tokens is None else self.max_tokens

    @property
    def enable_thinking(self) -> bool | None:
        """The one flag behind the three switches; None when none of them is used."""
        return next(iter(self._thinking_switches().values()), None)

    def _thinking_switches(self) -> dict[str, bool]:
        """Return what each switch that is used says."""
        switches: dict[str, bool] = {}
        if self.thinking is not None:
            switches["thinking"] = self.thinking.type == "enabled"
        if self.chat_template_kwargs is not None and self.chat_template_kwargs.enable_thinking is not None:
            switches["chat_template_kwargs"] = self.chat_template_kwargs.enable_thinking
        if self.reasoning_effort == "none":
            switches["reasoning_effort"] = False
        return switches


class CompletionRequest(_Generation):
    """POST /v1/completions"""

    prompt: Annotated[
        str | Items[int],
        _Otherwise("a list of prompts is not supported; send one string or one list of token ids"),
    ] = Field(description="Text, or token ids.")
    best_of: Annotated[int | None, _only(1)] = None
    echo: Annotated[bool | None, _only(False)] = None
    suffix: Annotated[str | None, _only("")] = None
    logprobs: Annotated[int | None, _only()] = None

    @property
    def answer_tokens(self) -> int | None:
        return self.max_tokens
