"""From what a request says and what the deployment wants to how the request is answered.

    request's mode -> else the deployment's default -> else the template's
    `auto`, whoever says it: enabled from a score of the threshold on
    budget: the least of the request's, the deployment's maximum and the bound of the effort (the deployment's, or ours)

A budget above the maximum is lowered, not refused. A bound of 0 is thinking off: of the request by the request, of the
deployment by the deployment, whatever the request says.

An overloaded deployment has one more bound, and answers what is `auto` without thinking; who asks for it keeps it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from glm_worker.messages import Effort, ReasoningPolicy
from glm_worker.server.thinking.features import Features
from glm_worker.server.thinking.history import kept_history
from glm_worker.server.thinking.overload import NO_OVERLOAD, Overload
from glm_worker.server.thinking.score import score_of
from glm_worker.server.thinking.traits import TemplateTraits
from glm_worker.server.thinking.wish import ThinkingWish

EFFORT_TOKENS: Mapping[Effort, int] = {"minimal": 256, "low": 1024, "medium": 8192, "high": 32768}
"""Most tokens of a thought by effort, where the deployment names none for it. xhigh has no bound of its own."""

MAX_BUDGET = 2**30
"""More than any context holds, and what every message holds: some surfaces bound a budget from below only."""

DecidedBy = Literal["request", "policy", "template", "auto", "overload"]
"""overload: it would have been another one's to decide, and that one was not asked, or not heard."""

HEADER = "x-glm-thinking"
IGNORED_HEADER = "x-glm-ignored"


@dataclass(frozen=True, kw_only=True)
class Thinking:
    """How a request is answered.

    ignored: parameters of the request that have no effect, by the names the client gave them, for `x-glm-ignored`.
    """

    enabled: bool
    by: DecidedBy
    budget_tokens: int | None = None  # most tokens of thought; None: no bound but the answer's own, or no thought
    score: float | None = None  # of `auto`
    threshold: float | None = None  # that the score was held against
    reasons: tuple[str, ...] = ()  # names of the features that weighed most
    keeps_history: bool | None = None  # what the template is told; None: nothing
    ignored: tuple[str, ...] = field(default=())

    @property
    def header(self) -> str:
        """Return the value of `x-glm-thinking`."""
        parts = ["enabled" if self.enabled else "disabled", f"by={self.by}"]
        if self.score is not None and self.threshold is not None:
            parts += [f"score={self.score:.2f}", f"threshold={_digits(self.threshold)}"]
        if self.budget_tokens is not None:
            parts.append(f"budget={self.budget_tokens}")
        return "; ".join(parts)

    @property
    def template_variables(self) -> dict[str, bool]:
        """Return what the chat template is told. What it decides itself it is not told."""
        said: dict[str, bool] = {}
        if self.by != "template":
            said["enable_thinking"] = self.enabled
        if self.keeps_history is not None:
            said["clear_thinking"] = not self.keeps_history
        return said


def resolve(
    wish: ThinkingWish,
    features: Callable[[], Features],
    policy: ReasoningPolicy,
    template: TemplateTraits,
    overload: Overload = NO_OVERLOAD,
) -> Thinking:
    """Return how to answer. features: asked for only when `auto` decides."""
    thinking = _mode(wish, features, policy, template, overload)
    keeps_history, ignored = kept_history(wish, template)
    if wish.threshold is not None and thinking.score is None and thinking.by != "overload":
        ignored = (*ignored, wish.param("threshold") or "threshold")
    ignored = (*thinking.ignored, *wish.overruled, *ignored)
    thinking = replace(thinking, keeps_history=keeps_history, ignored=ignored)
    if thinking.enabled:
        thinking = _bounded(thinking, wish, policy, template, overload)
    if thinking.enabled or thinking.by in ("auto", "overload"):  # it may think the next time: then they count
        return thinking
    return replace(thinking, ignored=_together(thinking.ignored, _params(wish, "budget_tokens", "effort")))


def behind_thought(wish: ThinkingWish, template: TemplateTraits) -> Thinking:
    """Return how an answer goes on that has begun: behind its thought, so there is none, whatever anybody wishes."""
    keeps_history, ignored = kept_history(wish, template)
    is_heard = wish.mode == "disabled"
    unheard = _params(wish, *(() if is_heard else ("mode",)), "budget_tokens", "effort", "threshold")
    return Thinking(
        enabled=False,
        by="request" if is_heard else "template",
        keeps_history=keeps_history,
        ignored=_together(unheard, (*wish.overruled, *ignored)),
    )


def _params(wish: ThinkingWish, *names: str) -> tuple[str, ...]:
    """Return the parameters that said these fields, those that were said."""
    said = (name for name in names if getattr(wish, name) is not None)
    return tuple(wish.param(name) or name for name in said if name != "budget_tokens" or wish.budget_tokens)


def _together(first: tuple[str, ...], more: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *more)))


def _mode(
    wish: ThinkingWish,
    features: Callable[[], Features],
    policy: ReasoningPolicy,
    template: TemplateTraits,
    overload: Overload,
) -> Thinking:
    if not template.has_switch:
        is_unheard = wish.mode not in (None, "enabled" if template.thinks_by_default else "disabled")
        ignored = (wish.param("mode") or "mode",) if is_unheard else ()
        return Thinking(enabled=template.thinks_by_default, by="template", ignored=ignored)
    mode = policy.default if wish.mode is None else wish.mode
    if mode == "template":
        return Thinking(enabled=template.thinks_by_default, by="template")
    if mode == "auto" and not overload.auto_thinks:
        return Thinking(enabled=False, by="overload")
    if mode == "auto":
        threshold = policy.auto_threshold if wish.threshold is None else wish.threshold
        score = score_of(features())
        return Thinking(
            enabled=score.value >= threshold,
            by="auto",
            score=score.value,
            threshold=threshold,
            reasons=score.reasons,
        )
    return Thinking(enabled=mode == "enabled", by="policy" if wish.mode is None else "request")


def _bounded(
    thinking: Thinking, wish: ThinkingWish, policy: ReasoningPolicy, template: TemplateTraits, overload: Overload
) -> Thinking:
    """Return a thinking answer with its budget, or none of it where the deployment leaves no token for thoughts."""
    effort = wish.effort
    effort_tokens = None if effort is None else policy.effort_tokens.get(effort, EFFORT_TOKENS.get(effort))
    # 0 was a switch, and is told as one where the template has none
    asked = min(wish.budget_tokens, MAX_BUDGET) if wish.budget_tokens else None
    usual = _least(asked, policy.max_thinking_tokens, effort_tokens)
    budget = _least(usual, overload.max_thinking_tokens)
    if budget == 0 and template.has_switch:
        return replace(thinking, enabled=False, by="policy" if usual == 0 else "overload")
    return replace(thinking, budget_tokens=budget)


def _least(*bounds: int | None) -> int | None:
    return min((bound for bound in bounds if bound is not None), default=None)


def _digits(threshold: float) -> str:
    """Return a threshold with two digits, or more where it has more."""
    short = f"{threshold:.2f}"
    return short if float(short) == threshold else f"{threshold:g}"
