"""What a deployment says of limits and prices, and the Scopes of a caller that come of it. Pure, exact.

An entry stands for itself: a key that has its own gets nothing of `default`. The limits of a group of keys count beside
those of each of its keys. Money is text: no number of JSON is exact enough.
"""

import re
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)
from pydantic.alias_generators import to_camel

from glm_gateway.access.who import MAX_NAME, ROLE
from glm_gateway.limits.limit import Budget, Limits, Measure, Unit
from glm_gateway.limits.reserve import Scope
from glm_gateway.limits.tokens import PICO, Prices, Usage

MAX_COUNT = 10**12
"""Of tokens or requests in a limit: floats count them exactly."""

MAX_KEPT = 10_000
"""Of keys and models whose limits are kept as they were made."""

_MONEY = re.compile(r"[0-9]{1,9}(\.[0-9]{1,12})?")

K = TypeVar("K")
V = TypeVar("V")

Count = Annotated[int, Field(ge=0, le=MAX_COUNT, strict=True)]


def money(text: str) -> int:
    """Return an amount of money in PICO, exact. Raises ValueError for what is no such text."""
    if _MONEY.fullmatch(text) is None:
        raise ValueError("must be an amount as in '12' or '0.11': at most 9 digits, and 12 behind the point")
    return int(Decimal(text) * PICO)


def _is_text(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("must be text in quotes, as in '0.11': a number would not be exact")
    return value


def _is_money(value: str) -> str:
    money(value)
    return value


Money = Annotated[str, BeforeValidator(_is_text), AfterValidator(_is_money)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class PricesConfig(_Model):
    """For a million tokens. cached: of prompt tokens that were there before; as prompt where it is not said.

    thinking: as answer where it is not said.
    """

    prompt: Money = "0"
    answer: Money = "0"
    cached: Money | None = None
    thinking: Money | None = None

    @model_validator(mode="after")
    def _cached_is_no_dearer(self) -> Self:
        if self.cached is not None and money(self.cached) > money(self.prompt):
            raise ValueError(
                f"cached {self.cached} is more than prompt {self.prompt}: a request reserves its prompt as not cached"
            )
        return self

    def prices(self) -> Prices:
        return Prices(
            prompt=money(self.prompt),
            cached=money(self.prompt if self.cached is None else self.cached),
            answer=money(self.answer),
            thinking=money(self.answer if self.thinking is None else self.thinking),
        )


class BudgetConfig(_Model):
    """Of a calendar month in UTC: tokens, or money in the unit of the prices."""

    tokens: Count | None = None
    money: Money | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.tokens is None) == (self.money is None):
            raise ValueError("a budget has either tokens or money")
        return self

    def budget(self) -> Budget:
        if self.money is not None:
            return Budget(money(self.money), Unit.MONEY)
        assert self.tokens is not None
        return Budget(self.tokens, Unit.TOKENS)


class LimitsConfig(_Model):
    """Of one key or of one group of keys. What is not said has no limit; 0 allows nothing.

    context_tokens: of one request. cached_weight: how much of a prompt token counts that was there before.
    shadow: refuse nothing, and count what would have been refused.
    """

    requests_per_minute: Count | None = None
    prompt_tokens_per_minute: Count | None = None
    answer_tokens_per_minute: Count | None = None
    thinking_tokens_per_minute: Count | None = None
    concurrency: Count | None = None
    context_tokens: Annotated[int, Field(ge=1, le=MAX_COUNT, strict=True)] | None = None
    monthly_budget: BudgetConfig | None = None
    cached_weight: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.1
    shadow: bool = False

    def limits(self, prices: Prices) -> Limits:
        said = {
            Measure.REQUESTS: self.requests_per_minute,
            Measure.PROMPT_TOKENS: self.prompt_tokens_per_minute,
            Measure.ANSWER_TOKENS: self.answer_tokens_per_minute,
            Measure.THINKING_TOKENS: self.thinking_tokens_per_minute,
        }
        return Limits(
            per_minute={measure: most for measure, most in said.items() if most is not None},
            concurrency=self.concurrency,
            context_tokens=self.context_tokens,
            budget=None if self.monthly_budget is None else self.monthly_budget.budget(),
            cached_weight=self.cached_weight,
            prices=prices,
            only_counts=self.shadow,
        )


def _is_printable(name: str) -> str:
    if not name.isprintable():
        raise ValueError("a name has printable characters only")
    return name


CallerName = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME), AfterValidator(_is_printable)]
GroupName = Annotated[str, StringConstraints(pattern=f"^{ROLE.pattern}$")]
"""As an issuer or a judge may say them; names of keys are among them."""


class QuotasConfig(_Model):
    """All that a deployment says of limits. prices: of every model that has none in prices_by_model."""

    default: LimitsConfig = LimitsConfig()
    keys: dict[CallerName, LimitsConfig] = Field(default_factory=dict)
    groups: dict[GroupName, LimitsConfig] = Field(default_factory=dict)
    prices: PricesConfig | None = None
    prices_by_model: dict[str, PricesConfig] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _money_has_prices(self) -> Self:
        if any(
            any(vars(prices.prices()).values()) for prices in (self.prices, *self.prices_by_model.values()) if prices
        ):
            return self
        named = {"default": self.default} | {f"keys.{name}": each for name, each in self.keys.items()}
        named |= {f"groups.{name}": each for name, each in self.groups.items()}
        for name, each in named.items():
            if each.monthly_budget is not None and each.monthly_budget.money is not None:
                raise ValueError(f"{name}.monthlyBudget is money, and prices say that nothing costs any")
        return self

    @cached_property
    def _scopes(self) -> dict[tuple[str, str | None, str], tuple[Scope, ...]]:
        return {}

    @cached_property
    def _prices(self) -> dict[str, Prices]:
        return {}

    def prices_of(self, model: str) -> Prices:
        found = self._prices.get(model)
        if found is None:
            said = self.prices_by_model.get(model, self.prices)
            found = _kept(self._prices, model, Prices() if said is None else said.prices())
        return found

    def cost(self, model: str, used: Usage) -> int:
        """Return what a request costs, in PICO."""
        return self.prices_of(model).cost(used)

    def scopes(self, key: str, group: str | None, model: str) -> tuple[Scope, ...]:
        """Return whose limits a request counts against: its key's, and its group's where that has any."""
        found = self._scopes.get((key, group, model))
        return found if found is not None else _kept(self._scopes, (key, group, model), self._made(key, group, model))

    def _made(self, key: str, group: str | None, model: str) -> tuple[Scope, ...]:
        prices = self.prices_of(model)
        own = Scope(key_scope(key), self.keys.get(key, self.default).limits(prices))
        if group is None or group not in self.groups:
            return (own,)
        return own, Scope(group_scope(group), self.groups[group].limits(prices))


def _kept(known: dict[K, V], name: K, value: V) -> V:
    """Keep a value that every request would make again; all are forgotten when they are too many."""
    if len(known) >= MAX_KEPT:
        known.clear()
    known[name] = value
    return value


def key_scope(key: str) -> str:
    """Return the name of a key's scope: no group of the same name is meant."""
    return f"key {key}"


def group_scope(group: str) -> str:
    """Return the name of a group's scope."""
    return f"group {group}"
