"""What a deployment says of limits is taken exactly, or refused by name."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from glm_gateway.limits.config import QuotasConfig, money
from glm_gateway.limits.limit import Budget, Limits, Measure, Unit
from glm_gateway.limits.reserve import Scope
from glm_gateway.limits.tokens import PICO, Prices, Usage

SAID: dict[str, Any] = {
    "default": {"requestsPerMinute": 60},
    "keys": {"alice": {"concurrency": 4, "monthlyBudget": {"money": "12.50"}, "shadow": True}},
    "groups": {"team": {"promptTokensPerMinute": 1000, "cachedWeight": 0.25, "monthlyBudget": {"tokens": 10_000}}},
    "prices": {"prompt": "0.6", "cached": "0.11", "answer": "2.2"},
    "pricesByModel": {"small": {"prompt": "0.000000000001", "answer": "0"}},
}
DEAR = Prices(prompt=6 * PICO // 10, cached=11 * PICO // 100, answer=22 * PICO // 10, thinking=22 * PICO // 10)


def said(**fields: Any) -> QuotasConfig:
    return QuotasConfig.model_validate({**SAID, **fields})


def test_a_key_has_its_own_limits_and_those_of_its_group() -> None:
    own = Limits(concurrency=4, budget=Budget(125 * PICO // 10, Unit.MONEY), prices=DEAR, only_counts=True)
    team = Limits(
        per_minute={Measure.PROMPT_TOKENS: 1000}, cached_weight=0.25, budget=Budget(10_000, Unit.TOKENS), prices=DEAR
    )
    assert said().scopes("alice", "team", "m") == (Scope("key alice", own), Scope("group team", team))


def test_a_key_that_is_not_named_has_the_default_and_a_group_that_is_not_named_has_none() -> None:
    scope = Scope("key bob", Limits(per_minute={Measure.REQUESTS: 60}, prices=DEAR))
    assert said().scopes("bob", None, "m") == said().scopes("bob", "others", "m") == (scope,)


def test_a_group_and_a_key_of_the_same_name_are_two() -> None:
    names = [scope.name for scope in said().scopes("team", "team", "m")]
    assert len(set(names)) == 2


def test_a_model_has_its_own_prices_whole() -> None:
    assert said().prices_of("small") == Prices(prompt=1, cached=1)
    assert said().cost("m", Usage(prompt=1_000_000, cached=1_000_000)) == 11 * PICO // 100


def test_nothing_said_limits_nothing_and_costs_nothing() -> None:
    assert QuotasConfig().scopes("a", "t", "m") == (Scope("key a", Limits()),)
    assert QuotasConfig().cost("m", Usage(prompt=5)) == 0


@given(st.decimals(0, 10**9 - 1, places=12, allow_nan=False))
def test_money_is_exact(amount: Decimal) -> None:
    assert Decimal(money(f"{amount:f}")) / PICO == amount


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"prices": {"prompt": 0.1}}, r"prices\.prompt\s.*must be text in quotes"),
        ({"prices": {"prompt": "-1"}}, r"prices\.prompt\s.*must be an amount"),
        ({"prices": {"prompt": "1e3"}}, r"prices\.prompt\s.*must be an amount"),
        ({"prices": {"prompt": "NaN"}}, r"prices\.prompt\s.*must be an amount"),
        ({"prices": {"prompt": "0.0000000000001"}}, r"prices\.prompt\s.*must be an amount"),
        ({"prices": {"prompt": "٣"}}, r"prices\.prompt\s.*must be an amount"),
        ({"prices": {"prompt": "0.1", "cached": "0.2"}}, r"prices\s.*cached 0\.2 is more than prompt 0\.1"),
        ({"default": {"requestsPerMinute": -1}}, r"default\.requestsPerMinute"),
        ({"default": {"requestsPerMinute": 1.5}}, r"default\.requestsPerMinute"),
        ({"default": {"requestsPerMinute": True}}, r"default\.requestsPerMinute"),
        ({"default": {"requestsPerMinute": "60"}}, r"default\.requestsPerMinute"),
        ({"default": {"requestPerMinute": 60}}, r"default\.requestPerMinute\s.*not permitted"),
        ({"default": {"contextTokens": 0}}, r"default\.contextTokens"),
        ({"default": {"cachedWeight": 1.01}}, r"default\.cachedWeight"),
        ({"default": {"cachedWeight": float("nan")}}, r"default\.cachedWeight"),
        ({"default": {"monthlyBudget": {}}}, r"default\.monthlyBudget\s.*either tokens or money"),
        ({"default": {"monthlyBudget": {"tokens": 1, "money": "1"}}}, r"default\.monthlyBudget\s.*either"),
        ({"keys": {"a\nb": {}}}, r"printable characters only"),
        ({"keys": {"": {}}}, r"at least 1 character"),
        ({"keys": {"x" * 256: {}}}, r"at most 255 characters"),
        ({"groups": {"a b": {}}}, r"groups\.a b"),
        ({"groups": {"x" * 65: {}}}, r"groups\.x"),
        ({"prices": None, "pricesByModel": {}}, r"keys\.alice\.monthlyBudget is money"),
    ],
)
def test_nonsense_is_refused_by_name(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=f"(?s){sentence}"):
        said(**fields)
