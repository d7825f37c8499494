"""What a gateway reads of a body: which model, how much at most, and what prefixes are made of.

Nothing is refused here but what is no JSON object: a field of the wrong kind is as if it were not there, and the
worker, who knows the API, says what is wrong with it.
"""

from typing import Any

import msgspec

from glm_gateway.surfaces.thinking import Mode, mode_of

MAX_ANSWERS = 128
"""To one prompt that are reserved for: more is refused by workers."""

MAX_DEADLINE_S = 86_400.0
"""A longer one is none."""


class _Body(msgspec.Struct):
    """Only the fields that are read; the rest is skipped without being made into objects."""

    model: Any = None
    stream: Any = None
    priority: Any = None
    n: Any = None
    background: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None
    previous_response_id: Any = None
    deadline_s: Any = None
    thinking: Any = None
    chat_template_kwargs: Any = None
    reasoning_effort: Any = None
    reasoning: Any = None
    thinking_token_budget: Any = None
    tools: msgspec.Raw = msgspec.Raw()
    system: Any = None
    instructions: Any = None
    messages: Any = None
    input: Any = None
    prompt: Any = None


_decode = msgspec.json.Decoder(_Body).decode


class NoJson(ValueError):
    """The body is no JSON object. Workers say what is wrong with it."""


class Ask(msgspec.Struct, frozen=True):
    """max_tokens: that each answer may have, thinking included; None: the request does not say.

    num_prompts: each gets answers of its own. num_answers: to all of them together. head: what comes before the turns:
    tools, system prompt. turns: of a conversation, or one text. Both as they were decoded, of any shape. previous: the
    response that it goes on from. deadline_s: from its arrival. mode: of thinking; None: it has its deployment's.
    """

    model: str | None
    streams: bool
    priority: int | None
    num_answers: int
    max_tokens: int | None
    in_background: bool
    previous: str | None
    head: tuple[object, ...]
    turns: tuple[object, ...]
    num_bytes: int
    deadline_s: float | None = None
    mode: Mode | None = None
    num_prompts: int = 1


def read(body: bytes) -> Ask:
    """Return what a body asks for. Raises NoJson."""
    try:
        found = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NoJson(str(error)) from error
    text: Any = next((each for each in (found.messages, found.input, found.prompt) if each is not None), [])
    given = (found.max_completion_tokens, found.max_output_tokens, found.max_tokens)
    num_prompts = _num_prompts(found.prompt)
    return Ask(
        model=found.model if isinstance(found.model, str) else None,
        streams=found.stream is True,
        priority=_whole(found.priority),
        num_answers=min(max(_whole(found.n) or 1, 1), MAX_ANSWERS) * num_prompts,
        max_tokens=next((number for each in given if (number := _whole(each)) is not None and number > 0), None),
        in_background=found.background is True,
        previous=found.previous_response_id if isinstance(found.previous_response_id, str) else None,
        head=tuple(each for each in (bytes(found.tools) or None, found.system, found.instructions) if each is not None),
        turns=tuple(text) if isinstance(text, list) else (text,),
        num_bytes=len(body),
        deadline_s=_seconds(found.deadline_s),
        mode=_mode(found),
        num_prompts=num_prompts,
    )


def _num_prompts(prompt: object) -> int:
    """Return how many prompts a completion has: a list of token ids is one, one of texts or of such lists several."""
    return max(1, sum(isinstance(each, str | list) for each in prompt)) if isinstance(prompt, list) else 1


def _mode(found: _Body) -> Mode | None:
    if found.messages is None and found.input is None and found.prompt is not None:
        return "disabled"  # a text that is gone on with
    return mode_of(
        thinking=found.thinking,
        template_arguments=found.chat_template_kwargs,
        effort=found.reasoning_effort,
        reasoning=found.reasoning,
        budget=found.thinking_token_budget,
        turns=found.messages if found.messages is not None else found.input,
    )


def _seconds(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 < value <= MAX_DEADLINE_S else None  # type: ignore[arg-type,operator]


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
