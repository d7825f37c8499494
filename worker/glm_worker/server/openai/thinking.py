"""The spellings of thinking that chats have, and the one wish in them."""

from typing import Annotated, Any, Literal

from pydantic import Field

from glm_worker.messages import Effort
from glm_worker.server.fields import Strict, between
from glm_worker.server.openai.bounds import MAX_INT
from glm_worker.server.thinking.wish import (
    ThinkingWish,
    budget,
    combine,
    include_reasoning,
    openai_effort,
    openrouter_reasoning,
    separate_reasoning,
    template_arguments,
    zai_thinking,
)

EffortName = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Tokens = Annotated[int | None, between(0, MAX_INT)]


class Thinking(Strict):
    """Z.ai's switch, with `auto`, a budget and a threshold."""

    type: Literal["enabled", "disabled", "auto"] | None = Field(None, description="auto: decided for each request.")
    clear_thinking: bool | None = Field(None, description="Whether thoughts of earlier turns are left out.")
    budget_tokens: Tokens = Field(None, description="Most tokens of thought. 0: no thinking.")
    threshold: Annotated[float | None, between(0, 1)] = Field(None, description="The score from which auto thinks.")


class TemplateArguments(Strict):
    """The switch of vLLM and SGLang."""

    enable_thinking: bool | None = None
    clear_thinking: bool | None = None


class Reasoning(Strict):
    """OpenRouter's switch."""

    enabled: bool | None = None
    effort: EffortName | None = None
    max_tokens: Tokens = Field(None, description="Most tokens of thought.")
    exclude: bool | None = Field(None, description="Whether the thought is not told.")


class ThinkingFields(Strict):
    """All of them; those that contradict each other are refused."""

    thinking: Thinking | None = None
    chat_template_kwargs: TemplateArguments | None = None
    reasoning_effort: EffortName | None = Field(
        None, description="none: no thinking; high and above ask for it; all bound its length as the deployment says."
    )
    reasoning: Reasoning | None = None
    thinking_token_budget: Tokens = Field(None, description="vLLM's name of thinking.budget_tokens.")
    include_reasoning: bool | None = Field(None, description="Whether the thought is told.")
    separate_reasoning: bool | None = Field(None, description="SGLang's. Only true: reasoning is always told apart.")

    def thinking_wish(self) -> ThinkingWish:
        """Return the one wish. Raises RequestRefused when two spellings contradict each other."""
        reasoning = _said(self.reasoning)
        return combine(
            (
                zai_thinking(**_said(self.thinking)),
                template_arguments(**_said(self.chat_template_kwargs)),
                openai_effort(_effort(self.reasoning_effort)),
                openrouter_reasoning(**{**reasoning, "effort": _effort(reasoning.get("effort"))}),
                budget(self.thinking_token_budget),
                include_reasoning(self.include_reasoning),
                separate_reasoning(self.separate_reasoning),
            )
        )


def _said(fields: Strict | None) -> dict[str, Any]:
    return {} if fields is None else dict(fields)


def _effort(name: EffortName | None) -> Effort | Literal["none"] | None:
    """Return the effort that is meant. `max`, which GLM's own API and others have, is our highest."""
    return "xhigh" if name == "max" else name
