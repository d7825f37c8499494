"""The body of a chat, field by field. Everything else is refused by name."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from glm_worker.server.fields import Items, between, conflict, only
from glm_worker.server.openai.bounds import MAX_INT, MAX_MESSAGES, MAX_TOP_LOGPROBS
from glm_worker.server.openai.chat.messages import AssistantMessage, Message
from glm_worker.server.openai.chat.messages import ignored_in as ignored_in_messages
from glm_worker.server.openai.chat.tools import NamedChoice, ToolChoice, Tools
from glm_worker.server.openai.chat.tools import ignored_in as ignored_in_tools
from glm_worker.server.openai.fields import Label
from glm_worker.server.openai.formats import FormatFields
from glm_worker.server.openai.generation import GenerationRequest
from glm_worker.server.openai.thinking import ThinkingFields


class ChatCompletionRequest(GenerationRequest, ThinkingFields, FormatFields):
    """POST /v1/chat/completions"""

    has_no_effect: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **GenerationRequest.has_no_effect,
        "verbosity": ("medium",),
    }
    refused: ClassVar[Mapping[str, str]] = {
        **GenerationRequest.refused,
        "functions": "use tools",
        "function_call": "use tool_choice",
        "enable_thinking": "use thinking.type or chat_template_kwargs.enable_thinking",
        "echo": "completions have it",
        "audio": "this model writes text only",
        "web_search_options": "this server searches nothing; offer a tool",
    }

    messages: Annotated[Items[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Annotated[int | None, between(1, MAX_INT)] = Field(
        None, description="The newer name of max_tokens."
    )
    tools: Tools = None
    tool_choice: ToolChoice = None
    parallel_tool_calls: bool | None = Field(None, description="false: at most one call.")
    logprobs: bool | None = Field(None, description="Log probabilities of the tokens of the content.")
    top_logprobs: Annotated[int | None, between(0, MAX_TOP_LOGPROBS)] = None
    continue_final_message: bool | None = Field(None, description="Go on with the last message, the assistant's.")
    add_generation_prompt: bool | None = Field(None, description="false: as continue_final_message.")
    verbosity: Label | None = Field(None, description="No effect.")
    modalities: Annotated[Items[str] | None, only(["text"])] = None

    @model_validator(mode="after")
    def _no_conflict(self) -> "ChatCompletionRequest":
        if self.max_tokens is not None and self.max_completion_tokens not in (None, self.max_tokens):
            raise conflict("max_tokens", "max_tokens and max_completion_tokens differ; give one of them")
        if self.top_logprobs and not self.logprobs:
            raise conflict("top_logprobs", "top_logprobs is only allowed together with logprobs: true")
        self._check_tools()
        self._check_going_on()
        return self

    def _check_tools(self) -> None:
        names: set[str] = set()
        for tool in self.tools or ():
            if tool.function.name in names:
                raise conflict("tools", f"tools has two functions named {tool.function.name}")
            names.add(tool.function.name)
        if self.tool_choice == "required" and not names:
            raise conflict("tool_choice", "tool_choice is 'required', but there are no tools")
        if isinstance(self.tool_choice, NamedChoice) and self.tool_choice.function.name not in names:
            name = self.tool_choice.function.name
            raise conflict("tool_choice", f"tool_choice names the function {name}, which is not among the tools")

    def _check_going_on(self) -> None:
        if self.continue_final_message and self.add_generation_prompt:
            raise conflict(
                "continue_final_message", "continue_final_message and add_generation_prompt cannot both be true"
            )
        name = "continue_final_message" if self.continue_final_message else "add_generation_prompt"
        last = self.messages[-1]
        if self.goes_on and (not isinstance(last, AssistantMessage) or last.tool_calls):
            raise conflict(
                name,
                f"{name} asks to go on with the last message; that must be the assistant's, without calls of tools",
            )

    @property
    def goes_on(self) -> bool:
        return bool(self.continue_final_message) or self.add_generation_prompt is False

    @property
    def answer_tokens(self) -> int | None:
        return self.max_completion_tokens if self.max_tokens is None else self.max_tokens

    @property
    def max_tokens_name(self) -> str:
        is_newer = self.max_tokens is None and self.max_completion_tokens is not None
        return "max_completion_tokens" if is_newer else "max_tokens"

    @property
    def num_logprobs(self) -> int | None:
        return self.top_logprobs or 0 if self.logprobs else None

    def ignored(self) -> Iterator[str]:
        yield from super().ignored()
        yield from ignored_in_messages(self.messages)
        yield from ignored_in_tools(self.tools or ())
