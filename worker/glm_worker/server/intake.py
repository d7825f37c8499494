"""From a request body to a Job: parsed, checked against the checkpoint, rendered and tokenised. No I/O, any thread."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from glm_worker.errors import RequestRefused
from glm_worker.messages import EngineLimits
from glm_worker.request import EngineRequest, SamplingParams
from glm_worker.server import schema
from glm_worker.server.checkpoint import Checkpoint
from glm_worker.server.refusals import model_not_found, parse, shortened
from glm_worker.server.schema import AssistantMessage, ChatCompletionRequest, CompletionRequest, Content
from glm_worker.server.text.argument_types import (
    REQUEST_STEP_BUDGET,
    STEP_BUDGET,
    SchemaTooLarge,
    Steps,
    Tools,
    parameters_of,
)
from glm_worker.server.text.chat import Message, in_call_order
from glm_worker.server.text.control_tokens import as_sent, disarmed
from glm_worker.server.text.lexer import Tag
from glm_worker.server.text.output import OutputGrammar, OutputReader
from glm_worker.server.text.parsing import Grammar, PlainText, State, initial_state
from glm_worker.server.text.tokenizer import Tokenizer

_SEED_MASK = 2**63 - 1


@dataclass(frozen=True)
class Room:
    """How many tokens prompt and answer of one request may have together, and what bounds them."""

    num_tokens: int
    bound: str = "the model's context is"

    def __str__(self) -> str:
        return f"{self.bound} {self.num_tokens} tokens"


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the deployment wants of chats, beside what each of them says."""

    control_tokens_are_text: bool = True  # in what clients send
    any_tool_name: bool = False  # whether a call of a tool that is not on offer is passed on


@dataclass(frozen=True, kw_only=True)
class Job:
    """One accepted request, with all that is needed to run it, and to run it again."""

    id: str
    is_chat: bool
    thinking: bool  # whether the model is to think before it answers
    prompt_token_ids: list[int]
    max_tokens: int | None  # None: what the prompt leaves
    sampling: SamplingParams
    stop_token_ids: tuple[int, ...]
    stop_strings: tuple[str, ...]
    stream: bool
    include_usage: bool
    tokenizer: Tokenizer
    tags: Mapping[int, Tag]
    state: State
    tools: Tools
    any_tool_name: bool = False  # whether a call of a tool that is not on offer is passed on

    def reader(self) -> OutputReader:
        """Return a reader for one run of the job."""

        def grammar() -> OutputGrammar:
            return Grammar(self.state, self.tools, any_name=self.any_tool_name) if self.is_chat else PlainText()

        return OutputReader(
            self.tokenizer,
            self.tags,
            grammar,
            stop_strings=self.stop_strings,
            stop_token_ids=self.stop_token_ids,
        )

    def engine_request(self, room: Room) -> EngineRequest:
        """Return what the engine has to do. Raises RequestRefused when prompt and answer have no room."""
        prompt_len = len(self.prompt_token_ids)
        requested = 1 if self.max_tokens is None else self.max_tokens
        if prompt_len + requested > room.num_tokens:
            wanted = "at least 1 token" if self.max_tokens is None else f"{requested} tokens"
            raise RequestRefused(
                f"{room}; the prompt has {prompt_len} and {wanted} of answer were requested: "
                f"{prompt_len + requested} together",
                param="messages" if self.is_chat else "prompt",
                code="context_length_exceeded",
            )
        return EngineRequest(
            request_id=self.id,
            prompt_token_ids=self.prompt_token_ids,
            max_tokens=room.num_tokens - prompt_len if self.max_tokens is None else self.max_tokens,
            stop_token_ids=list(self.stop_token_ids),
            sampling=self.sampling,
        )


def room_of(limits: EngineLimits) -> Room:
    """Return what a generation can hold of one request: its context, or its smaller cache."""
    cache = Room(limits.num_blocks * limits.block_size, bound="the KV cache of this group holds")
    return min(Room(limits.max_model_len), cache, key=lambda room: room.num_tokens)


def chat_job(body: bytes, checkpoint: Checkpoint, rules: Rules = Rules()) -> Job:
    """Return the job of a /v1/chat/completions body. Raises RequestRefused."""
    request = parse(ChatCompletionRequest, body)
    _check_model(request.model, checkpoint)
    offered = [] if request.tool_choice == "none" else request.tools or []
    tools = _tools(offered)
    disarm = _Disarm.of(checkpoint) if rules.control_tokens_are_text else _Disarm()
    prompt = checkpoint.template.render(
        in_call_order([_rendered(index, message, disarm) for index, message in enumerate(request.messages)]),
        [disarmed(tool.model_dump(exclude_unset=True), disarm.text) for tool in offered],
        enable_thinking=request.enable_thinking,
    )
    return Job(
        id=f"chatcmpl-{secrets.token_hex(16)}",
        is_chat=True,
        thinking=checkpoint.template.thinks_by_default if request.enable_thinking is None else request.enable_thinking,
        prompt_token_ids=_encoded_prompt(prompt, checkpoint),
        max_tokens=request.answer_tokens,
        tags=checkpoint.think_tags | checkpoint.tool_tags if offered else checkpoint.think_tags,
        state=initial_state(prompt),
        tools=tools,
        any_tool_name=rules.any_tool_name,
        **_shared(request, checkpoint),
    )


def completion_job(body: bytes, checkpoint: Checkpoint) -> Job:
    """Return the job of a /v1/completions body. Raises RequestRefused."""
    request = parse(CompletionRequest, body)
    _check_model(request.model, checkpoint)
    if isinstance(request.prompt, str):
        token_ids = _encoded(request.prompt, "prompt", checkpoint, add_special_tokens=True)
    else:
        token_ids = _checked_ids(request.prompt, "prompt")
        for token_id in token_ids:
            if not 0 <= token_id < checkpoint.vocab_size:
                raise RequestRefused(
                    f"prompt has the token id {shortened(str(token_id))}; allowed are 0 to {checkpoint.vocab_size - 1}",
                    param="prompt",
                )
    return Job(
        id=f"cmpl-{secrets.token_hex(16)}",
        is_chat=False,
        thinking=False,  # no template, and nothing that would read thoughts out of the text
        prompt_token_ids=token_ids,
        max_tokens=request.answer_tokens,
        tags={},
        state=State.CONTENT,
        tools={},
        **_shared(request, checkpoint),
    )


def _shared(request: ChatCompletionRequest | CompletionRequest, checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "sampling": _sampling(request, checkpoint),
        "stop_token_ids": () if request.ignore_eos else checkpoint.stop_token_ids,
        "stop_strings": tuple(request.stop_strings),
        "stream": bool(request.stream),
        "include_usage": bool(request.stream_options and request.stream_options.include_usage),
        "tokenizer": checkpoint.tokenizer,
    }


def _sampling(request: ChatCompletionRequest | CompletionRequest, checkpoint: Checkpoint) -> SamplingParams:
    defaults = checkpoint.defaults
    temperature = defaults.temperature if defaults.do_sample else 0.0
    top_k = defaults.top_k if request.top_k is None else request.top_k
    return SamplingParams(
        temperature=temperature if request.temperature is None else request.temperature,
        top_p=defaults.top_p if request.top_p is None else request.top_p,
        top_k=max(top_k, 0),
        min_p=defaults.min_p if request.min_p is None else request.min_p,
        seed=secrets.randbits(63) if request.seed is None else request.seed & _SEED_MASK,
    )


def _check_model(model: str, checkpoint: Checkpoint) -> None:
    if model != checkpoint.name:
        raise model_not_found(model, checkpoint.name)


def _encoded_prompt(prompt: str, checkpoint: Checkpoint) -> list[int]:
    """Return the token ids of a rendered chat."""
    _check_length(as_sent(prompt), "messages", checkpoint)
    return _checked_ids(checkpoint.tokenizer.encode_prompt(prompt), "messages")


def _encoded(text: str, param: str, checkpoint: Checkpoint, *, add_special_tokens: bool = False) -> list[int]:
    _check_length(text, param, checkpoint)
    return _checked_ids(checkpoint.tokenizer.encode(text, add_special_tokens=add_special_tokens), param)


def _check_length(text: str, param: str, checkpoint: Checkpoint) -> None:
    """Refuse a prompt that cannot fit before the work of encoding it; engine_request is exact."""
    min_tokens = checkpoint.tokenizer.min_tokens(text)
    if min_tokens >= checkpoint.max_model_len:
        raise RequestRefused(
            f"{Room(checkpoint.max_model_len)}; the prompt alone has at least {min_tokens}",
            param=param,
            code="context_length_exceeded",
        )


def _checked_ids(token_ids: list[int], param: str) -> list[int]:
    if not token_ids:
        raise RequestRefused(f"{param} is empty: there must be at least one token to go on from", param=param)
    return token_ids


def _tools(offered: Sequence[schema.Tool]) -> Tools:
    """Return the types of the arguments of each tool. Raises RequestRefused for schemas that take too long."""
    tools = {}
    together = Steps(REQUEST_STEP_BUDGET)
    for index, tool in enumerate(offered):
        try:
            tools[tool.function.name] = parameters_of(tool.function.parameters, Steps(STEP_BUDGET, within=together))
        except SchemaTooLarge as error:
            param = f"tools[{index}].function.parameters"
            what = (
                f"the schema of the tool {tool.function.name} takes more than {error.budget} steps to read,"
                " which is what this server spends on one"
                if error.budget == STEP_BUDGET
                else f"the schemas of the tools up to {tool.function.name} take more than {error.budget} steps to read,"
                " which is what this server spends on those of a request"
            )
            raise RequestRefused(
                f"{param}: {what}; declare fewer arguments, references and alternatives",
                param=param,
                code="schema_too_large",
            ) from error
    return tools


@dataclass(frozen=True)
class _Disarm:
    """What makes control tokens text. turn: in the content of an assistant that may have its thought in it."""

    text: Callable[[str], str] = str
    turn: Callable[[str], str] = str

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "_Disarm":
        return cls(checkpoint.disarm, checkpoint.disarm_turn)


def _rendered(index: int, message: schema.Message, disarm: _Disarm) -> Message:
    """Return a message as chat templates want it: text joined, system instead of developer, arguments as objects."""
    content = _text(message.content)
    rendered: Message = {
        "role": "system" if message.role == "developer" else message.role,
        "content": disarm.text(content),
    }
    if isinstance(message, AssistantMessage):
        reasoning = message.reasoning if message.reasoning_content is None else message.reasoning_content
        if reasoning is None:
            rendered["content"] = disarm.turn(content)
        else:
            rendered["reasoning_content"] = disarm.text(reasoning)
        if message.tool_calls:
            rendered["tool_calls"] = [
                {
                    "id": None if call.id is None else disarm.text(call.id),
                    "type": "function",
                    "function": {
                        "name": disarm.text(call.function.name),
                        "arguments": disarmed(
                            _arguments(call.function.arguments, f"messages[{index}].tool_calls[{number}]"), disarm.text
                        ),
                    },
                }
                for number, call in enumerate(message.tool_calls)
            ]
    elif message.role == "tool" and message.tool_call_id is not None:
        rendered["tool_call_id"] = disarm.text(message.tool_call_id)
    return rendered


def _text(content: Content | None) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.text for part in content or ())


def _arguments(text: str, where: str) -> dict[str, Any]:
    """Return the arguments of an earlier call, which the API has as JSON text and templates read as an object."""
    param = f"{where}.function.arguments"
    try:
        arguments = from_json(text) if text.strip() else {}
    except ValueError as error:
        raise RequestRefused(f"{param} is not valid JSON: {error}", param=param) from error
    if not isinstance(arguments, dict):
        raise RequestRefused(f"{param} must be a JSON object, got {text[:80]}", param=param)
    return arguments
