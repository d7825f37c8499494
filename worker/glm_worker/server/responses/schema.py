"""The body of POST /v1/responses, field by field. Everything else is refused by name; null means "not given"."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from glm_worker.server.fields import Items, Strict, between, conflict, only
from glm_worker.server.responses.items import MAX_ITEMS, Id, InputItem, Never, type_of

Json = dict[str, Any]

MAX_METADATA, MAX_METADATA_KEY, MAX_METADATA_VALUE = 16, 64, 512  # the vendor's
MAX_LABEL = 512  # of a caller, of a cache key
MAX_TOOLS = 512  # OpenAI takes 128; agents with several servers of tools have more

_LOGPROBS: Literal["message.output_text.logprobs"] = "message.output_text.logprobs"
_ENCRYPTED: Literal["reasoning.encrypted_content"] = "reasoning.encrypted_content"

Includable = Literal[
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]
"""The first two have a meaning here. The others are about tools that a vendor runs; clients send them unasked."""

FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")]


class FunctionTool(Strict):
    type: Literal["function"]
    name: FunctionName
    description: str | None = None
    parameters: Json | None = None
    strict: bool | None = Field(None, description="Whether the arguments must follow the schema. Default: false.")
    output_schema: Annotated[Json | None, only()] = None
    allowed_callers: Annotated[list[str] | None, only(["direct"])] = None
    defer_loading: Annotated[bool | None, only(False)] = None


class OtherTool(BaseModel):
    """Never made: its type is what is wrong with it."""

    model_config = ConfigDict(extra="ignore")

    type: Annotated[Literal["function"], Never()]


Tool = Annotated[
    Annotated[FunctionTool, Tag("function")] | Annotated[OtherTool, Tag("other")],
    Discriminator(lambda value: "function" if type_of(value) == "function" else "other"),
]


class ChosenFunction(Strict):
    """The one function that must be called, or one of those that may be."""

    type: Literal["function"]
    name: FunctionName


class OtherChoice(BaseModel):
    """Never made: its type is what is wrong with it."""

    model_config = ConfigDict(extra="ignore")

    type: Annotated[Literal["function", "allowed_tools"], Never()]


class AllowedTools(Strict):
    """Only these of the tools are on offer."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Items[
        Annotated[
            Annotated[ChosenFunction, Tag("function")] | Annotated[OtherTool, Tag("other")],
            Discriminator(lambda value: "function" if type_of(value) == "function" else "other"),
        ]
    ] = Field(min_length=1, max_length=MAX_TOOLS)


def _kind_of_choice(value: object) -> str:
    if isinstance(value, str):
        return "option"
    kind = type_of(value)
    return kind if isinstance(kind, str) and kind in {"function", "allowed_tools"} else "other"


ToolChoice = Annotated[
    Annotated[Literal["auto", "none", "required"], Tag("option")]
    | Annotated[ChosenFunction, Tag("function")]
    | Annotated[AllowedTools, Tag("allowed_tools")]
    | Annotated[OtherChoice, Tag("other")],
    Discriminator(_kind_of_choice),
]


class AnyFormat(Strict):
    type: Literal["text", "json_object"]


class SchemaFormat(Strict):
    model_config = ConfigDict(populate_by_name=True)

    type: Literal["json_schema"]
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    json_schema: Json = Field(alias="schema")
    description: str | None = None
    strict: bool | None = Field(None, description="Every schema is kept to, or refused: this says nothing more.")


class OtherFormat(BaseModel):
    """Never made: its type is what is wrong with it."""

    model_config = ConfigDict(extra="ignore")

    type: Annotated[Literal["text", "json_object", "json_schema"], Never()]


def _kind_of_format(value: object) -> str:
    match type_of(value):
        case "text" | "json_object":
            return "any"
        case "json_schema":
            return "schema"
        case _:
            return "other"


class TextOptions(Strict):
    """What the text of the answer must look like."""

    format: (
        Annotated[
            Annotated[AnyFormat, Tag("any")]
            | Annotated[SchemaFormat, Tag("schema")]
            | Annotated[OtherFormat, Tag("other")],
            Discriminator(_kind_of_format),
        ]
        | None
    ) = None
    verbosity: Literal["low", "medium", "high"] | None = Field(None, description="Has no effect.")


class ReasoningOptions(Strict):
    """OpenAI's switches of reasoning, and OpenRouter's `enabled`, `max_tokens` and `exclude`."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = Field(
        None, description="Has no effect: reasoning comes whole."
    )
    generate_summary: Literal["auto", "concise", "detailed"] | None = Field(
        None, description="The older name of summary."
    )
    context: Literal["auto", "current_turn", "all_turns"] | None = Field(
        None, description="Whether the model reads its reasoning of earlier turns again."
    )
    mode: Annotated[str | None, only("standard")] = None
    enabled: bool | None = None
    max_tokens: int | None = Field(None, ge=0, description="Of reasoning. 0: none.")
    exclude: bool | None = Field(None, description="Leave reasoning out of the response.")


class ThinkingOptions(Strict):
    """Z.ai's switch of thinking."""

    type: Literal["enabled", "disabled", "auto"] | None = None
    clear_thinking: bool | None = None
    budget_tokens: int | None = Field(None, ge=0)
    threshold: float | None = Field(None, description="The score from which `auto` thinks, 0 to 1.")


class TemplateArguments(Strict):
    """The switches of vLLM and SGLang."""

    enable_thinking: bool | None = None
    clear_thinking: bool | None = None


class StreamOptions(Strict):
    include_obfuscation: bool | None = Field(None, description="Has no effect: nothing is added to hide lengths.")


class ResponseRequest(Strict):
    """POST /v1/responses"""

    model: str
    input: str | Annotated[Items[InputItem], Field(max_length=MAX_ITEMS)] = Field(
        description="A user's text, or the items of a conversation."
    )
    instructions: str | None = Field(None, description="A system message before all of it, for this response only.")
    previous_response_id: Id | None = Field(None, description="A stored response to go on from.")
    tools: Annotated[Items[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: int | None = Field(
        None, ge=1, description="Reasoning included. Default: what the prompt leaves."
    )
    max_tool_calls: int | None = Field(None, ge=1, description="Of tools that a vendor runs: has no effect.")
    temperature: Annotated[float | None, between(0, 2)] = Field(
        None, description="0 is greedy. Default of this and the next three: the checkpoint's."
    )
    top_p: Annotated[float | None, between(0, 1, without_low=True)] = None
    top_k: Annotated[int | None, between(-1, 2**31 - 1)] = Field(None, description="0 and -1: off.")
    min_p: Annotated[float | None, between(0, 1, without_high=True)] = None
    seed: Annotated[int | None, between(-(2**63), 2**63 - 1)] = None
    priority: Annotated[int | None, between(-(2**31 - 1), 2**31 - 1)] = Field(None, description="Lower goes first.")
    deadline_s: Annotated[float | None, between(0, 86_400, without_low=True)] = Field(
        None, description="Seconds from arrival; then the request is ended."
    )
    top_logprobs: Annotated[int | None, between(0, 20)] = None
    include: Annotated[Items[Includable], Field(max_length=32)] | None = None
    reasoning: ReasoningOptions | None = None
    thinking: ThinkingOptions | None = None
    chat_template_kwargs: TemplateArguments | None = None
    text: TextOptions | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    store: bool | None = Field(None, description="Keep the response for a while. Default: false.")
    background: bool | None = Field(None, description="Answer at once, and go on without the client.")
    metadata: dict[str, str] | None = None
    user: Annotated[str | None, Field(max_length=MAX_LABEL)] = None
    safety_identifier: Annotated[str | None, Field(max_length=MAX_LABEL)] = None
    prompt_cache_key: Annotated[str | None, Field(max_length=MAX_LABEL)] = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    prompt_cache_options: Json | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"] | None = None
    truncation: Annotated[
        str | None,
        only("disabled", because="; what is too long is refused, leave out what the model need not read"),
    ] = None
    conversation: Annotated[
        Any, only(because="; conversations are not kept here; send the items, or previous_response_id")
    ] = None
    prompt: Annotated[Any, only(because="; no templates of prompts are kept here; send the input itself")] = None
    moderation: Annotated[Any, only()] = None
    context_management: Annotated[Any, only([])] = None

    @model_validator(mode="after")
    def _consistent(self) -> "ResponseRequest":
        if self.stream_options is not None and not self.stream:
            raise conflict("stream_options", "stream_options is only allowed together with stream: true")
        if self.background and not self.store:
            raise conflict(
                "background", "background: true needs store: true, or there would be nothing to ask for later"
            )
        if isinstance(self.input, list) and not self.input and self.previous_response_id is None:
            raise conflict("input", "input is empty: there must be something to answer")
        self._check_metadata()
        self._check_tools()
        return self

    def _check_metadata(self) -> None:
        metadata = self.metadata or {}
        if len(metadata) > MAX_METADATA:
            raise conflict("metadata", f"metadata has {len(metadata)} entries; at most {MAX_METADATA} are allowed")
        if any(len(key) > MAX_METADATA_KEY or len(value) > MAX_METADATA_VALUE for key, value in metadata.items()):
            raise conflict(
                "metadata",
                f"metadata has keys of at most {MAX_METADATA_KEY} characters and values of at most"
                f" {MAX_METADATA_VALUE}",
            )

    def _check_tools(self) -> None:
        names: dict[str, int] = {}
        for number, tool in enumerate(self.functions):
            if tool.name in names:
                raise conflict(
                    f"tools[{number}].name", f"tools[{number}] has the same name as tools[{names[tool.name]}]"
                )
            names[tool.name] = number
        if any(chosen not in names for chosen in self.chosen):
            raise conflict("tool_choice", "tool_choice names a function that is not among the tools")
        if self.tool_choice == "required" and not names:
            raise conflict("tool_choice", "tool_choice asks for a call, and there are no tools to call")

    @property
    def functions(self) -> list[FunctionTool]:
        return [tool for tool in self.tools or () if isinstance(tool, FunctionTool)]

    @property
    def chosen(self) -> list[str]:
        """The functions that tool_choice names: the one to call, or those on offer."""
        match self.tool_choice:
            case ChosenFunction():
                return [self.tool_choice.name]
            case AllowedTools():
                return [tool.name for tool in self.tool_choice.tools if isinstance(tool, ChosenFunction)]
            case _:
                return []

    @property
    def num_logprobs(self) -> int | None:
        """None: none are asked for."""
        return self.top_logprobs or (0 if _LOGPROBS in (self.include or ()) else None)

    @property
    def includes_encrypted(self) -> bool:
        return _ENCRYPTED in (self.include or ())

    def ignored(self) -> Iterator[str]:
        """Give the names of what was asked for and has no effect here. A label of the caller asks for nothing."""
        reasoning, text, stream = self.reasoning, self.text, self.stream_options
        said = {
            "max_tool_calls": self.max_tool_calls is not None,
            "reasoning.summary": reasoning is not None and reasoning.summary is not None,
            "reasoning.generate_summary": reasoning is not None and reasoning.generate_summary is not None,
            "text.verbosity": text is not None and text.verbosity is not None,
            "include": any(each not in (_LOGPROBS, _ENCRYPTED) for each in self.include or ()),
            "stream_options.include_obfuscation": bool(stream and stream.include_obfuscation),
            "service_tier": self.service_tier not in (None, "auto", "default"),
            "prompt_cache_key": self.prompt_cache_key is not None,
            "prompt_cache_retention": self.prompt_cache_retention is not None,
            "prompt_cache_options": self.prompt_cache_options is not None,
            "safety_identifier": self.safety_identifier is not None,
        }
        return (name for name, is_said in said.items() if is_said)
