"""What a checkpoint's chat template can do about thinking, found out by rendering it.

| template | switch | thinks by default | thoughts of earlier turns |
|---|---|---|---|
| GLM-4.5, 4.6, glm-nano | `enable_thinking` | yes | only of turns after the user's last message |
| GLM-4.7 and later | `enable_thinking` | yes | the same, or all with `clear_thinking: false` |
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glm_worker.errors import RequestRefused

Render = Callable[[Sequence[dict[str, Any]], Mapping[str, bool]], str]
"""(messages, template variables) -> the prompt up to where the assistant goes on; raises RequestRefused."""

_THINK, _END_THINK = "<think>", "</think>"
_MARK = "7f3a"  # a thought that no template has in it already


@dataclass(frozen=True, kw_only=True)
class TemplateTraits:
    """Facts about a template."""

    thinks_by_default: bool = True
    has_switch: bool = True  # whether enable_thinking changes anything
    keeps_history: bool = False  # whether thoughts before the user's last message stay, when nothing is said
    can_keep_history: bool = False  # whether clear_thinking: false makes them stay
    can_clear_history: bool = True  # whether they are gone by themselves, or with clear_thinking: true
    before_end: str = ""  # what it writes between a thought and its `</think>`


def traits_of(render: Render) -> TemplateTraits:
    """Find out what a template does. One that wants more than a question is taken for GLM's."""
    question = {"role": "user", "content": "?"}
    thoughtful = {"role": "assistant", "reasoning_content": _MARK, "content": "!"}
    try:
        plain, off = render([question], {}), render([question], {"enable_thinking": False})
        past = [question, thoughtful, question]
        keeps = _MARK in render(past, {})
        can_keep = keeps or _MARK in render(past, {"clear_thinking": False})
        can_clear = not keeps or _MARK not in render(past, {"clear_thinking": True})
        told = render([question, thoughtful], {})
    except RequestRefused:
        return TemplateTraits()
    has_switch = plain != off
    return TemplateTraits(
        thinks_by_default=has_switch or plain.rstrip().endswith(_THINK),
        has_switch=has_switch,
        keeps_history=keeps,
        can_keep_history=can_keep,
        can_clear_history=can_clear,
        before_end=_between(told, _MARK, _END_THINK),
    )


def _between(text: str, before: str, after: str) -> str:
    """Return the white space between two parts of a text that are next to each other; empty where they are not."""
    between = text.partition(before)[2].partition(after)
    return between[0] if between[1] and not between[0].strip() else ""
