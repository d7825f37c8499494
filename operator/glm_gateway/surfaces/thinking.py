"""Which mode of thinking a body asks for, in the spellings of all clients, and what a reply says of the default. Pure.

Only what surely decides counts. What contradicts itself, or leaves it to a score of the conversation, is `auto`: nobody
but a worker knows what becomes of it.
"""

from collections.abc import Iterable
from typing import Literal

Mode = Literal["enabled", "disabled", "auto"]

OFF_BY_USER = "/nothink"
REPLY_HEADER = "x-glm-thinking"
_EFFORTS_THAT_ASK = ("high", "xhigh", "max")
_LONGEST_END = 256


def mode_of(
    *,
    thinking: object = None,
    template_arguments: object = None,
    effort: object = None,
    reasoning: object = None,
    budget: object = None,
    turns: object = None,
) -> Mode | None:
    """Return the mode that a body asks for; None: it says nothing, and has what its deployment has by default.

    thinking: the objects of Z.ai and Anthropic. template_arguments: `chat_template_kwargs`. effort: `reasoning_effort`.
    reasoning: the objects of OpenRouter and of responses. budget: `thinking_token_budget`. turns: of the conversation,
    for what its user says at the end of it.
    """
    if _field(thinking, "type") in ("auto", "adaptive"):
        return "auto"
    switches = {
        said
        for said in (
            {"enabled": True, "disabled": False}.get(str(_field(thinking, "type"))),
            _off_by_zero(_field(thinking, "budget_tokens")),
            _bool(_field(template_arguments, "enable_thinking")),
            _bool(_field(reasoning, "enabled")),
            _off_by_zero(_field(reasoning, "max_tokens")),
            _off_by_zero(budget),
            _off_by_none(effort),
            _off_by_none(_field(reasoning, "effort")),
        )
        if said is not None
    }
    if len(switches) > 1:
        return "auto"
    if switches:
        return "enabled" if switches.pop() else "disabled"
    if effort in _EFFORTS_THAT_ASK or _field(reasoning, "effort") in _EFFORTS_THAT_ASK:
        return "enabled"
    return "disabled" if _ends_with_off(turns) else None


def default_in(header: str) -> Mode | None:
    """Return the default of a deployment that a reply gives away; None: it does not. header: x-glm-thinking."""
    mode, *rest = (part.strip() for part in header.split(";"))
    if mode not in ("enabled", "disabled") or not {"by=template", "by=policy"}.intersection(rest):
        return None
    return "enabled" if mode == "enabled" else "disabled"


def _field(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, dict) else None


def _bool(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _off_by_zero(value: object) -> bool | None:
    return False if value == 0 and not isinstance(value, bool) else None


def _off_by_none(effort: object) -> bool | None:
    return False if effort == "none" else None


def _ends_with_off(turns: object) -> bool:
    if isinstance(turns, list):
        last = turns[-1] if turns else None
        if _field(last, "role") != "user":
            return False
        content = _field(last, "content")
        if isinstance(content, list):
            content = next((text for text in _texts(reversed(content))), None)
    else:
        content = turns
    return isinstance(content, str) and content[-_LONGEST_END:].rstrip().endswith(OFF_BY_USER)


def _texts(parts: Iterable[object]) -> Iterable[str]:
    for part in parts:
        text = _field(part, "text")
        if isinstance(text, str):
            yield text
