"""Counters of one process: what comes at once shares them, and a month goes on where it is written down."""

import asyncio
from datetime import UTC, datetime

from glm_gateway.limits.config import BudgetConfig, LimitsConfig
from glm_gateway.limits.limit import Measure, Unit
from glm_gateway.limits.memory import MemoryStore
from glm_gateway.limits.reserve import Granted, Refusal, Scope
from glm_gateway.limits.store import Store
from glm_gateway.limits.tokens import PICO, Prices, Usage

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC).timestamp()
PRICES = Prices(prompt=PICO, cached=PICO, answer=PICO, thinking=PICO)  # for a million
USAGE = Usage(prompt=60, answer=40)


def one(**limits: object) -> Scope:
    return Scope("key a", LimitsConfig(**limits).limits(PRICES))  # type: ignore[arg-type]


def spent_before(scope: str, unit: Unit, month: str) -> int:
    known = {("key a", Unit.TOKENS, "2026-11"): 850, ("key a", Unit.MONEY, "2026-11"): 3 * PICO}
    return known.get((scope, unit, month), 0)


def granted(found: Granted | Refusal) -> Granted:
    assert isinstance(found, Granted), found
    return found


async def test_requests_that_come_at_once_take_no_more_than_there_is() -> None:
    store: Store = MemoryStore()
    scope = one(answer_tokens_per_minute=400)
    found = await asyncio.gather(*(store.reserve([scope], USAGE, NOW) for _ in range(50)))
    assert sum(isinstance(each, Granted) for each in found) == 10


async def test_what_is_settled_or_released_is_there_again() -> None:
    store: Store = MemoryStore()
    scope = one(answer_tokens_per_minute=100, concurrency=2)
    first = granted(await store.reserve([scope], USAGE, NOW))
    second = granted(await store.reserve([scope], USAGE, NOW))
    assert isinstance(await store.reserve([scope], Usage(), NOW), Refusal)
    settled = await store.settle(first.reservation, Usage(prompt=60, answer=10), NOW)
    assert settled["key a"].level(Measure.ANSWER_TOKENS, scope.limits, NOW) == 50
    released = await store.release(second.reservation, NOW)
    assert released == await store.counters([scope])
    assert released["key a"].level(Measure.ANSWER_TOKENS, scope.limits, NOW) == 90
    assert released["key a"].num_running == 0


async def test_a_budget_goes_on_where_the_journal_ends() -> None:
    store = MemoryStore(spent_before)
    scope = one(monthly_budget=BudgetConfig(tokens=1000))
    granted(await store.reserve([scope], USAGE, NOW))
    found = await store.reserve([scope], USAGE, NOW)
    assert isinstance(found, Refusal)
    assert (found.limit, found.left) == ("budget", 50)


async def test_a_budget_that_comes_or_changes_its_unit_counts_what_was_spent_before_it() -> None:
    store = MemoryStore(spent_before)
    granted(await store.reserve([one()], USAGE, NOW))
    in_tokens, in_money = one(monthly_budget=BudgetConfig(tokens=900)), one(monthly_budget=BudgetConfig(money="3"))
    assert isinstance(await store.reserve([in_tokens], USAGE, NOW), Refusal)
    assert isinstance(await store.reserve([in_money], USAGE, NOW), Refusal)
    assert (await store.counters([in_money]))["key a"].spent == 3 * PICO


async def test_a_reservation_from_before_a_change_of_units_spoils_no_sum() -> None:
    store = MemoryStore(spent_before)
    in_tokens, in_money = one(monthly_budget=BudgetConfig(tokens=1000)), one(monthly_budget=BudgetConfig(money="4"))
    old = granted(await store.reserve([in_tokens], USAGE, NOW))
    new = granted(await store.reserve([in_money], USAGE, NOW))
    await store.release(new.reservation, NOW)
    after = await store.settle(old.reservation, USAGE, NOW)
    assert (after["key a"].spent, after["key a"].num_running) == (3 * PICO, 0)


async def test_another_month_begins_at_nothing() -> None:
    store = MemoryStore(spent_before)
    scope = one(monthly_budget=BudgetConfig(tokens=900))
    assert isinstance(await store.reserve([scope], USAGE, NOW), Refusal)
    granted(await store.reserve([scope], USAGE, datetime(2026, 12, 1, tzinfo=UTC).timestamp()))


async def test_callers_that_were_here_once_are_forgotten_and_nobody_gains_by_it() -> None:
    store = MemoryStore(max_scopes=10)
    minute = LimitsConfig(requests_per_minute=2, concurrency=1).limits(PRICES)
    budget = LimitsConfig(monthly_budget=BudgetConfig(tokens=100)).limits(PRICES)
    runs, spends, owes = Scope("key runs", minute), Scope("key spends", budget), Scope("key owes", minute)
    granted(await store.reserve([runs], USAGE, NOW))
    await store.settle(granted(await store.reserve([spends], USAGE, NOW)).reservation, USAGE, NOW)
    await store.settle(granted(await store.reserve([owes], USAGE, NOW + 119)).reservation, USAGE, NOW + 119)
    for number in range(100):
        found = granted(await store.reserve([Scope(f"key {number}", minute)], USAGE, NOW + number))
        await store.settle(found.reservation, Usage(), NOW + number)
    granted(await store.reserve([Scope("key last", minute)], USAGE, NOW + 120))
    assert len(store._units) == len(store._counters) < 90
    assert isinstance(await store.reserve([runs], USAGE, NOW + 120), Refusal), "it runs one already"
    assert isinstance(await store.reserve([spends], USAGE, NOW + 120), Refusal), "its budget is spent"
    assert (await store.counters([owes]))["key owes"].level(Measure.REQUESTS, minute, NOW + 119) == 1
