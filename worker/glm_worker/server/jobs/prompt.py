"""Prompts: rendered from conversations or taken as they are, in token ids. Raises RequestRefused."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from glm_worker.errors import RequestRefused
from glm_worker.server.checkpoint import Checkpoint
from glm_worker.server.jobs.context import Context
from glm_worker.server.jobs.conversation import AssistantTurn, Conversation, OfferedTool, Said, ToolResult, Turn
from glm_worker.server.jobs.job import Room
from glm_worker.server.refusals import shortened
from glm_worker.server.text.chat import Message, in_call_order
from glm_worker.server.text.control_tokens import as_sent, disarmed, without_switch
from glm_worker.server.text.encoding import TooManyTokens
from glm_worker.server.thinking.resolve import Thinking

Prompt = str | Sequence[int]
"""A text, or token ids."""

_SOME_IDS = 2**18  # are made, packed and hashed in no time; millions would hold the event loop meanwhile


def rendered(
    conversation: Conversation,
    offered: Sequence[OfferedTool],
    thinking: Thinking,
    context: Context,
    *,
    switch_is_text: bool = False,
) -> str:
    """Return the prompt of a conversation, as the checkpoint's template writes it; what clients sent is disarmed.

    switch_is_text: a `/nothink` at the end of the user's last message does not count.
    """
    _check_texts(conversation, context.checkpoint)
    disarm = _Disarm.of(context.checkpoint) if context.rules.control_tokens_are_text else _Disarm()
    messages = [_rendered(turn, disarm) for turn in conversation.turns]
    last_of_user = next((each for each in reversed(messages) if each["role"] == "user"), None)
    if switch_is_text and last_of_user is not None:
        last_of_user["content"] = without_switch(last_of_user["content"])
    return context.checkpoint.template.render(
        in_call_order(messages),
        [disarmed(dict(tool.as_rendered), disarm.text) for tool in offered],
        {**thinking.template_variables, **({"enable_thinking": False} if conversation.goes_on else {})},
        goes_on=conversation.goes_on,
    )


def encoded(prompt: str, param: str, checkpoint: Checkpoint) -> list[int]:
    """Return the token ids of a rendered prompt."""
    _check_length(as_sent(prompt), param, checkpoint)
    return _encoded(partial(checkpoint.tokenizer.encode_prompt, prompt), param, checkpoint)


def ids_of(prompt: Prompt, param: str, checkpoint: Checkpoint) -> list[int]:
    """Return the token ids of a text, special tokens included, or the ids themselves, checked."""
    if isinstance(prompt, str):
        _check_length(prompt, param, checkpoint)
        return _encoded(partial(checkpoint.tokenizer.encode, prompt, add_special_tokens=True), param, checkpoint)
    if len(prompt) > _most_ids(checkpoint):
        raise _too_long(len(prompt), param, checkpoint)
    for token_id in prompt:
        if not 0 <= token_id < checkpoint.vocab_size:
            raise RequestRefused(
                f"{param} has the token id {shortened(str(token_id))}; allowed are 0 to {checkpoint.vocab_size - 1}",
                param=param,
                code="invalid_value",
            )
    return _some(list(prompt), param)


def _check_texts(conversation: Conversation, checkpoint: Checkpoint) -> None:
    """Refuse texts that cannot fit before the work of rendering them. Of an answer a template may leave out a part."""
    texts = [turn.text.strip() for turn in conversation.turns if not isinstance(turn, AssistantTurn)]
    num_tokens = 0
    for text in texts:
        num_tokens += checkpoint.tokenizer.min_tokens(text, max(0, checkpoint.max_model_len - num_tokens))
    _check_fits(num_tokens, conversation.params.prompt, checkpoint)


def _check_length(text: str, param: str, checkpoint: Checkpoint) -> None:
    """Refuse a prompt that cannot fit before the work of encoding it. Encoding looks again."""
    _check_fits(checkpoint.tokenizer.min_tokens(text, checkpoint.max_model_len), param, checkpoint)


def _check_fits(min_tokens: int, param: str, checkpoint: Checkpoint) -> None:
    if min_tokens >= checkpoint.max_model_len:
        raise _too_long(min_tokens, param, checkpoint)


def _too_long(min_tokens: int, param: str, checkpoint: Checkpoint) -> RequestRefused:
    return RequestRefused(
        f"{Room(checkpoint.max_model_len)}; the prompt alone has at least {min_tokens}",
        param=param,
        code="context_length_exceeded",
    )


def _encoded(encode: Callable[..., list[int]], param: str, checkpoint: Checkpoint) -> list[int]:
    """Return what encode makes. What is a little too long is left to engine_request: it names the answer's as well."""
    try:
        return _some(encode(most=_most_ids(checkpoint)), param)
    except TooManyTokens as error:
        raise _too_long(error.num_tokens, param, checkpoint) from error


def _most_ids(checkpoint: Checkpoint) -> int:
    return max(_SOME_IDS, checkpoint.max_model_len)


def _some(token_ids: list[int], param: str) -> list[int]:
    if not token_ids:
        raise RequestRefused(
            f"{param} is empty: there must be at least one token to go on from", param=param, code="invalid_value"
        )
    return token_ids


@dataclass(frozen=True)
class _Disarm:
    """What makes control tokens text. turn: in the content of an assistant that may have its thought in it."""

    text: Callable[[str], str] = str
    turn: Callable[[str], str] = str

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "_Disarm":
        return cls(checkpoint.disarm, checkpoint.disarm_turn)


def _rendered(turn: Turn, disarm: _Disarm) -> Message:
    """Return a turn as chat templates want it."""
    match turn:
        case Said():
            return {"role": turn.role, "content": disarm.text(turn.text)}
        case ToolResult():
            message: Message = {"role": "tool", "content": disarm.text(turn.text)}
            return message if turn.call_id is None else {**message, "tool_call_id": disarm.text(turn.call_id)}
        case AssistantTurn():
            return _rendered_assistant(turn, disarm)


def _rendered_assistant(turn: AssistantTurn, disarm: _Disarm) -> Message:
    rendered: Message = {"role": "assistant"}
    if turn.reasoning is None:
        rendered["content"] = disarm.turn(turn.text)
    else:
        rendered["content"] = disarm.text(turn.text)
        rendered["reasoning_content"] = disarm.text(turn.reasoning)
    if turn.calls:
        rendered["tool_calls"] = [
            {
                "id": None if call.id is None else disarm.text(call.id),
                "type": "function",
                "function": {
                    "name": disarm.text(call.name),
                    "arguments": _disarmed_arguments(call.arguments, disarm),
                },
            }
            for call in turn.calls
        ]
    return rendered


def _disarmed_arguments(arguments: Mapping[str, Any], disarm: _Disarm) -> Any:
    return disarmed(dict(arguments), disarm.text)
