"""What may be limited, and what of a request counts against it."""

from dataclasses import dataclass, field
from enum import StrEnum

from glm_gateway.limits.tokens import Prices, Usage


class Measure(StrEnum):
    """What flows within a minute."""

    REQUESTS = "requests"
    PROMPT_TOKENS = "prompt_tokens"
    ANSWER_TOKENS = "answer_tokens"
    THINKING_TOKENS = "thinking_tokens"

    __hash__ = str.__hash__  # the one of enums is Python, and a request looks a hundred of these up


class Unit(StrEnum):
    """What a budget is counted in."""

    TOKENS = "tokens"
    MONEY = "money"


@dataclass(frozen=True)
class Budget:
    """What may be used in a calendar month, UTC. amount: tokens, or money in PICO."""

    amount: int
    unit: Unit


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of one key, or of a group of keys together. What is not there has no limit.

    per_minute: a bucket for each measure: what was not used in the last minute may be used at once. cached_weight: how
    much of a prompt token that was there before counts.
    """

    per_minute: dict[Measure, int] = field(default_factory=dict)
    concurrency: int | None = None
    context_tokens: int | None = None  # of one request: prompt, and what may be answered
    budget: Budget | None = None
    cached_weight: float = 0.1
    prices: Prices = field(default_factory=Prices)
    only_counts: bool = False  # what would be refused is counted as such, and let through

    def amounts(self, usage: Usage) -> dict[Measure, float]:
        """Return what a request counts against each limit of a minute."""
        all_amounts = {
            Measure.REQUESTS: 1.0,
            Measure.PROMPT_TOKENS: usage.prompt - usage.cached * (1 - self.cached_weight),
            Measure.ANSWER_TOKENS: float(usage.answer),
            Measure.THINKING_TOKENS: float(usage.thinking),
        }
        return {measure: all_amounts[measure] for measure in self.per_minute}

    def expense(self, usage: Usage) -> int:
        """Return what a request counts against the budget."""
        if self.budget is None:
            return 0
        return usage.total if self.budget.unit is Unit.TOKENS else self.prices.cost(usage)
