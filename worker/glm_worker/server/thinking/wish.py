"""What a request says about thinking: one form for the spellings of all clients.

Each function below reads one spelling. `combine` makes one wish of all that a request has, or raises Conflict. None is
"not said" everywhere; what is said by nobody is the deployment's to decide (resolve.py).

Effort bounds, it does not switch, with two exceptions: `none` is off, and OpenAI's `high` and `xhigh`, which no client
sends unasked, also ask for thinking. So an effort below them never makes a request think that would not have thought
without it: `medium` is what clients send by default.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from glm_worker.errors import RequestRefused
from glm_worker.messages import Effort
from glm_worker.server.text.control_tokens import NO_THINKING

Mode = Literal["enabled", "disabled", "auto"]
"""auto: decided for each request, from a score of its conversation."""

Firmness = Literal["hint", "switch", "text"]
"""How a mode was said: by a level of effort, by a switch of the API, or by the user at the end of the message."""

THRESHOLD_HEADER = "x-glm-auto-threshold"
_MODES: tuple[Mode, ...] = ("enabled", "disabled", "auto")
_LONGEST_END = 256  # characters of a text that are read for what it ends with
_ASKING: tuple[Effort, ...] = ("high", "xhigh")


@dataclass(frozen=True, kw_only=True)
class ThinkingWish:
    """What one spelling says, or all of a request together.

    spelled: for each field that is said, where and how the client wrote it, as in `thinking.type: disabled`.
    """

    mode: Mode | None = None
    budget_tokens: int | None = None  # most tokens of thought; 0 comes with mode disabled
    effort: Effort | None = None
    threshold: float | None = None  # of `auto`, in [0, 1]
    keeps_history: bool | None = None  # whether the model reads its thoughts of earlier turns again
    shows: bool | None = None  # whether the client wants to read the thought
    firmness: Firmness = "switch"  # of the mode
    overruled: tuple[str, ...] = ()  # parameters whose mode does not count, for another says the opposite
    spelled: dict[str, str] = field(default_factory=dict)

    def param(self, name: str) -> str | None:
        """Return the client's own name of the parameter that said this field."""
        said = self.spelled.get(name)
        return None if said is None else said.partition(":")[0]


class Conflict(RequestRefused):
    """Two spellings of one request contradict each other. spellings: both, with what each says."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(
            f"{first} and {second} contradict each other; give one of them",
            param=first.partition(":")[0],
            code="invalid_value",
        )
        self.spellings = (first, second)


def combine(wishes: Iterable[ThinkingWish]) -> ThinkingWish:
    """Return the one wish behind all of a request. Raises Conflict when two of them do not go together.

    A mode at the end of the user's message decides where the request says none, or `auto`: a switch is the
    application's, that text its user's. An effort that asks for thinking leaves it at `auto`. Budget and effort go
    together: the lower bound counts.
    """
    said = list(wishes)
    decisive = _mode_of(said)
    merged: dict[str, Any] = {}
    spelled: dict[str, str] = {}
    for name in ("budget_tokens", "effort", "threshold", "keeps_history", "shows"):
        for wish in said:
            value = getattr(wish, name)
            if value is None:
                continue
            if name in merged and merged[name] != value:
                raise Conflict(spelled[name], wish.spelled[name])
            if name not in merged:
                merged[name], spelled[name] = value, wish.spelled[name]
    if decisive is not None:
        merged |= {"mode": decisive.mode, "firmness": decisive.firmness}
        spelled["mode"] = decisive.spelled["mode"]
    overruled = [name for wish in said for name in wish.overruled]
    overruled += [
        wish.param("mode") or "mode"
        for wish in said
        if decisive is not None and wish.firmness == "text" and wish.mode not in (None, decisive.mode)
    ]
    return ThinkingWish(**merged, overruled=tuple(dict.fromkeys(overruled)), spelled=spelled)


def _mode_of(wishes: list[ThinkingWish]) -> ThinkingWish | None:
    """Return the wish whose mode counts."""

    def first(mode: Mode, *firmness: Firmness) -> ThinkingWish | None:
        return next((each for each in wishes if each.mode == mode and each.firmness in firmness), None)

    on, off, auto = (first(mode, "switch", "hint") for mode in _MODES)
    if on is not None and off is not None:
        raise _conflict_of_modes(wishes, on, off)
    switch = first("enabled", "switch") or off
    if auto is not None and switch is not None:
        raise _conflict_of_modes(wishes, auto, switch)
    text = next((each for each in wishes if each.mode is not None and each.firmness == "text"), None)
    return switch or (text or auto if auto is not None else on or text)


def _conflict_of_modes(wishes: list[ThinkingWish], one: ThinkingWish, other: ThinkingWish) -> Conflict:
    """Return the conflict of two wishes, named in the order in which they were said."""
    first = next(each for each in wishes if each is one or each is other)
    second = other if first is one else one
    return Conflict(first.spelled["mode"], second.spelled["mode"])


def zai_thinking(
    *,
    type: Mode | None = None,  # noqa: A002 - the name of the field
    clear_thinking: bool | None = None,
    budget_tokens: int | None = None,
    threshold: float | None = None,
    param: str = "thinking",
) -> ThinkingWish:
    """Read Z.ai's `thinking`, with our `auto`, budget_tokens and threshold."""
    return combine(
        (
            _said("mode", type, f"{param}.type", type),
            _clears(clear_thinking, f"{param}.clear_thinking"),
            budget(budget_tokens, f"{param}.budget_tokens"),
            threshold_of_auto(threshold, f"{param}.threshold"),
        )
    )


def template_arguments(
    *,
    enable_thinking: bool | None = None,
    clear_thinking: bool | None = None,
    param: str = "chat_template_kwargs",
) -> ThinkingWish:
    """Read what vLLM and SGLang pass on to the chat template."""
    mode: Mode | None = None if enable_thinking is None else "enabled" if enable_thinking else "disabled"
    return combine(
        (
            _said("mode", mode, f"{param}.enable_thinking", enable_thinking),
            _clears(clear_thinking, f"{param}.clear_thinking"),
        )
    )


def openai_effort(effort: Effort | Literal["none"] | None, param: str = "reasoning_effort") -> ThinkingWish:
    """Read OpenAI's effort: of chats, and `reasoning.effort` of responses."""
    if effort is None:
        return ThinkingWish()
    if effort == "none":
        return _said("mode", "disabled", param, effort)
    if effort in _ASKING:
        return ThinkingWish(
            mode="enabled",
            firmness="hint",
            effort=effort,
            spelled=dict.fromkeys(("mode", "effort"), _spelling(param, effort)),
        )
    return _said("effort", effort, param, effort)


def openrouter_reasoning(
    *,
    enabled: bool | None = None,
    effort: Effort | Literal["none"] | None = None,
    max_tokens: int | None = None,
    exclude: bool | None = None,
    param: str = "reasoning",
) -> ThinkingWish:
    """Read OpenRouter's `reasoning`. Without `enabled`, an effort or a maximum asks for thinking: its API says so."""
    said = [
        openai_effort(effort, f"{param}.effort"),
        budget(max_tokens, f"{param}.max_tokens"),
        _said("shows", None if exclude is None else not exclude, f"{param}.exclude", exclude),
    ]
    if enabled is not None:
        said.append(_said("mode", "enabled" if enabled else "disabled", f"{param}.enabled", enabled))
    elif effort is not None and effort != "none":
        said.append(_said("mode", "enabled", f"{param}.effort", effort))
    elif max_tokens and effort is None:
        said.append(_said("mode", "enabled", f"{param}.max_tokens", max_tokens))
    return combine(said)


def anthropic_thinking(
    *,
    type: Literal["enabled", "disabled", "adaptive"] | None = None,  # noqa: A002 - the name of the field
    budget_tokens: int | None = None,
    display: Literal["summarized", "omitted"] | None = None,
    param: str = "thinking",
) -> ThinkingWish:
    """Read Anthropic's `thinking`. adaptive is auto. A thought that is shown is shown whole: we summarize nothing."""
    mode: Mode | None = "auto" if type == "adaptive" else type
    return combine(
        (
            _said("mode", mode, f"{param}.type", type),
            budget(budget_tokens, f"{param}.budget_tokens"),
            _said("shows", None if display is None else display != "omitted", f"{param}.display", display),
        )
    )


def anthropic_effort(
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None, param: str = "output_config.effort"
) -> ThinkingWish:
    """Read Anthropic's effort. It only bounds: `high` is what that API takes without being told. max is xhigh."""
    return _said("effort", "xhigh" if effort == "max" else effort, param, effort)


def budget(tokens: int | None, param: str = "thinking_token_budget") -> ThinkingWish:
    """Read a bound in tokens, vLLM's by default. 0 switches thinking off."""
    said = _said("budget_tokens", tokens, param, tokens)
    return combine((_said("mode", "disabled", param, 0), said)) if tokens == 0 else said


def include_reasoning(value: bool | None, param: str = "include_reasoning") -> ThinkingWish:
    """Read vLLM's and OpenRouter's older switch of visibility."""
    return _said("shows", value, param, value)


def separate_reasoning(value: bool | None, param: str = "separate_reasoning") -> ThinkingWish:
    """Read SGLang's switch. Raises RequestRefused on false, which would leave the thought in the content."""
    if value is False:
        raise RequestRefused(
            f"{param} is false; allowed: true. Reasoning never comes inside the content; include_reasoning: false"
            " leaves it out",
            param=param,
            code="invalid_value",
        )
    return ThinkingWish()


def threshold_of_auto(value: float | None, param: str = "thinking.threshold") -> ThinkingWish:
    """Read the score from which `auto` thinks. Raises RequestRefused outside of [0, 1]."""
    if value is not None and not 0 <= value <= 1:
        raise _no_threshold(param, f"{value:g}")
    return _said("threshold", value, param, value)


def threshold_header(value: str | None, param: str = THRESHOLD_HEADER) -> ThinkingWish:
    """Read the same from a header. Raises RequestRefused on what is no number from 0 to 1."""
    if value is None:
        return ThinkingWish()
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise _no_threshold(param, f"'{value[:32]}'")
    return _said("threshold", number, param, value)


def text_switch(text: str, param: str = "messages") -> ThinkingWish:
    """Read `/nothink` at the end of the last message of the user: a token of GLM models, as in their templates."""
    if not text[-_LONGEST_END:].rstrip().endswith(NO_THINKING):
        return ThinkingWish()
    return ThinkingWish(mode="disabled", firmness="text", spelled={"mode": _spelling(param, f"... {NO_THINKING}")})


def spellings(wish: ThinkingWish) -> Iterator[str]:
    """Give the names of all parameters that say something about thinking."""
    yield from dict.fromkeys(said.partition(":")[0] for said in wish.spelled.values())


def _said(name: str, value: object, param: str, shown: object) -> ThinkingWish:
    """Return the wish that says one thing, or nothing when value is None."""
    if value is None:
        return ThinkingWish()
    fields: dict[str, Any] = {name: value}
    return ThinkingWish(**fields, spelled={name: _spelling(param, shown)})


def _clears(clear_thinking: bool | None, param: str) -> ThinkingWish:
    return _said("keeps_history", None if clear_thinking is None else not clear_thinking, param, clear_thinking)


def _spelling(param: str, value: object) -> str:
    shown = str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else value
    return f"{param}: {shown}"


def _no_threshold(param: str, shown: str) -> RequestRefused:
    return RequestRefused(f"{param} is {shown}; allowed: a number from 0 to 1", param=param, code="invalid_value")
