"""Nobody passes a limit however many ask at once, and who waits as long as told is let in."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_gateway.limits.counters import Bucket, Counters
from glm_gateway.limits.limit import Budget, Limits, Measure, Unit
from glm_gateway.limits.reserve import Granted, Refusal, Reservation, Scope, release, reserve, settle
from glm_gateway.limits.tokens import PICO, Prices, Usage

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC).timestamp()
USAGE = Usage(prompt=100, answer=50)


def one(**limits: object) -> Scope:
    return Scope("key", Limits(**limits))  # type: ignore[arg-type]


def granted(found: Granted | Refusal) -> Granted:
    assert isinstance(found, Granted), found
    return found


def refused(found: Granted | Refusal) -> Refusal:
    assert isinstance(found, Refusal), found
    return found


def test_a_caller_without_limits_is_let_in() -> None:
    found = granted(reserve([one()], {}, USAGE, NOW))
    assert found.counters["key"].num_running == 1


def test_requests_that_come_at_once_share_a_minute() -> None:
    scope, counters = one(per_minute={Measure.REQUESTS: 3}), {}
    for _ in range(3):
        counters = dict(granted(reserve([scope], counters, USAGE, NOW)).counters)
    assert refused(reserve([scope], counters, USAGE, NOW)) == Refusal(
        scope="key", limit="requests", most=3, asked=1.0, left=0.0, retry_after_s=20.0
    )


def test_prompt_tokens_that_were_there_before_count_by_their_weight() -> None:
    scope = one(per_minute={Measure.PROMPT_TOKENS: 1000}, cached_weight=0.25)
    held = granted(reserve([scope], {}, Usage(prompt=800), NOW))
    after = settle(held.reservation, held.counters, Usage(prompt=800, cached=400), NOW)
    assert after["key"].level(Measure.PROMPT_TOKENS, scope.limits, NOW) == 1000 - 400 - 100


def test_what_was_not_used_is_given_back() -> None:
    scope = one(per_minute={Measure.ANSWER_TOKENS: 1000})
    held = granted(reserve([scope], {}, Usage(answer=900), NOW))
    assert isinstance(reserve([scope], held.counters, Usage(answer=200), NOW), Refusal)
    after = settle(held.reservation, held.counters, Usage(answer=10), NOW)
    assert isinstance(reserve([scope], after, Usage(answer=900), NOW), Granted)


def test_what_was_used_beyond_the_reservation_is_owed() -> None:
    scope = one(per_minute={Measure.ANSWER_TOKENS: 60})
    held = granted(reserve([scope], {}, Usage(answer=10), NOW))
    after = settle(held.reservation, held.counters, Usage(answer=90), NOW)
    assert refused(reserve([scope], after, Usage(answer=1), NOW)).retry_after_s == pytest.approx(31.0)


def test_a_request_larger_than_a_minute_is_told_that_it_never_fits() -> None:
    scope = one(per_minute={Measure.PROMPT_TOKENS: 99})
    assert refused(reserve([scope], {}, USAGE, NOW)).retry_after_s is None


def test_the_context_of_one_request_is_bounded_with_its_answer() -> None:
    assert isinstance(reserve([one(context_tokens=150)], {}, USAGE, NOW), Granted)
    assert refused(reserve([one(context_tokens=149)], {}, USAGE, NOW)).limit == "context"


def test_as_many_run_at_once_as_may() -> None:
    scope = one(concurrency=1)
    held = granted(reserve([scope], {}, USAGE, NOW))
    assert refused(reserve([scope], held.counters, USAGE, NOW)).limit == "concurrency"
    after = settle(held.reservation, held.counters, USAGE, NOW)
    assert isinstance(reserve([scope], after, USAGE, NOW), Granted)


def test_a_budget_is_never_passed_by_requests_that_run_at_once() -> None:
    scope, counters = one(budget=Budget(400, Unit.TOKENS)), {}
    for _ in range(2):
        counters = dict(granted(reserve([scope], counters, USAGE, NOW)).counters)
    found = refused(reserve([scope], counters, USAGE, NOW))
    assert (found.limit, found.left) == ("budget", 100)
    assert found.retry_after_s == datetime(2026, 12, 1, tzinfo=UTC).timestamp() - NOW


def test_a_budget_of_money_has_the_price_of_each_kind_of_token() -> None:
    prices = Prices(prompt=PICO, cached=PICO // 10, answer=2 * PICO, thinking=3 * PICO)  # for a million
    used = Usage(prompt=1_000_000, cached=500_000, answer=100_000, thinking=10_000)
    assert prices.cost(used) == PICO // 2 + PICO // 20 + PICO // 5 + 3 * PICO // 100
    scope = one(budget=Budget(PICO // 2, Unit.MONEY), prices=prices)
    assert refused(reserve([scope], {}, used, NOW)).retry_after_s is None
    assert isinstance(reserve([scope], {}, Usage(prompt=400_000), NOW), Granted)


def test_no_token_that_has_a_price_is_free() -> None:
    assert Prices(prompt=1).cost(Usage(prompt=1)) == 1


def test_a_month_begins_at_nothing_and_an_expense_stays_in_its_own() -> None:
    scope = one(budget=Budget(200, Unit.TOKENS))
    held = granted(reserve([scope], {}, USAGE, NOW))
    december = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    later = granted(reserve([scope], held.counters, USAGE, december))
    assert later.counters["key"].spent_in("2026-12") == 150
    after = settle(held.reservation, later.counters, Usage(prompt=1), december + 1)
    assert after["key"].spent_in("2026-12") == 150


def test_a_request_that_outlives_its_month_leaves_the_next_one_alone() -> None:
    scope = one(budget=Budget(2000, Unit.TOKENS))
    old = granted(reserve([scope], {}, USAGE, NOW))
    december = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    later = granted(reserve([scope], old.counters, USAGE, december))
    for used in (USAGE, Usage(prompt=900), Usage()):
        after = settle(old.reservation, later.counters, used, december + 1)
        assert after["key"].spent_in("2026-12") == 150


def test_a_limit_of_nothing_owes_nothing_and_lets_in_who_asks_for_nothing() -> None:
    scope = one(per_minute={Measure.THINKING_TOKENS: 0})
    held = granted(reserve([scope], {}, USAGE, NOW))
    after = settle(held.reservation, held.counters, Usage(thinking=5), NOW)
    assert isinstance(reserve([scope], after, USAGE, NOW), Granted)
    assert refused(reserve([scope], after, Usage(thinking=1), NOW)).retry_after_s is None


def test_a_group_of_keys_shares_its_limits_and_all_count_or_none() -> None:
    group = Scope("team", Limits(per_minute={Measure.REQUESTS: 1}))
    first = granted(reserve([Scope("a", Limits()), group], {}, USAGE, NOW))
    found = refused(reserve([Scope("b", Limits(concurrency=5)), group], first.counters, USAGE, NOW))
    assert (found.scope, found.limit) == ("team", "requests")


def test_the_limit_that_holds_up_longest_is_told() -> None:
    scope = one(per_minute={Measure.REQUESTS: 1, Measure.ANSWER_TOKENS: 60})
    held = granted(reserve([scope], {}, Usage(answer=60), NOW))
    found = refused(reserve([scope], held.counters, Usage(answer=30), NOW))
    assert (found.limit, found.retry_after_s) == ("requests", 60.0)


def test_a_scope_that_only_counts_lets_in_and_says_what_it_would_have_refused() -> None:
    scope = one(per_minute={Measure.REQUESTS: 1}, only_counts=True)
    held = granted(reserve([scope], {}, USAGE, NOW))
    again = granted(reserve([scope], held.counters, USAGE, NOW))
    assert [each.limit for each in again.overlooked] == ["requests"]


def test_a_request_that_was_refused_further_on_leaves_nothing() -> None:
    scope = one(per_minute={Measure.REQUESTS: 2, Measure.PROMPT_TOKENS: 500}, budget=Budget(500, Unit.TOKENS))
    held = granted(reserve([scope], {}, USAGE, NOW))
    after = release(held.reservation, held.counters, NOW)["key"]
    assert (after.num_running, after.spent) == (0, 0)
    assert after.level(Measure.REQUESTS, scope.limits, NOW) == 2
    assert after.level(Measure.PROMPT_TOKENS, scope.limits, NOW) == 500


def test_a_clock_that_goes_back_gives_nothing() -> None:
    assert Bucket(5.0, NOW).level_at(NOW - 100, 60) == 5.0


amounts = st.builds(Usage, prompt=st.integers(0, 400), answer=st.integers(0, 400), thinking=st.integers(0, 400))
moments = st.lists(st.tuples(st.floats(0, 30), amounts, amounts), max_size=30)


@given(moments, st.integers(1, 500), st.integers(1, 2000), st.integers(1, 5))
def test_limits_hold_over_any_schedule(
    steps: list[tuple[float, Usage, Usage]], per_minute: int, budget: int, concurrency: int
) -> None:
    """Nobody uses more than was reserved here, so no bucket goes below nothing and no budget is passed."""
    scope = one(
        per_minute=dict.fromkeys(Measure, per_minute), budget=Budget(budget, Unit.TOKENS), concurrency=concurrency
    )
    counters: dict[str, Counters] = {}
    running: list[Reservation] = []
    now = NOW
    for pause, asked, used in steps:
        now += pause
        found = reserve([scope], counters, asked, now)
        if isinstance(found, Granted):
            counters = dict(found.counters)
            running.append(found.reservation)
        elif running:
            least = running.pop(0)
            capped = Usage(
                prompt=min(used.prompt, least.usage.prompt),
                answer=min(used.answer, least.usage.answer),
                thinking=min(used.thinking, least.usage.thinking),
            )
            counters = settle(least, counters, capped, now)
        known = counters.get("key", Counters())
        assert known.num_running == len(running) <= concurrency
        assert known.spent <= budget
        for measure in Measure:
            assert -1e-6 <= known.level(measure, scope.limits, now) <= per_minute


@given(moments, st.integers(1, 500) | st.integers(10**5, 10**9))
def test_who_waits_as_long_as_told_is_let_in(steps: list[tuple[float, Usage, Usage]], per_minute: int) -> None:
    scope = one(per_minute=dict.fromkeys(Measure, per_minute))
    counters: dict[str, Counters] = {}
    now = NOW
    for pause, asked, _ in steps:
        now += pause
        found = reserve([scope], counters, asked, now)
        if isinstance(found, Refusal):
            if found.retry_after_s is None:
                continue
            now += found.retry_after_s
            found = reserve([scope], counters, asked, now)
        counters = dict(granted(found).counters)


@given(moments)
def test_everything_is_given_back_when_all_is_released(steps: list[tuple[float, Usage, Usage]]) -> None:
    scope = one(per_minute=dict.fromkeys(Measure, 10**6), budget=Budget(10**9, Unit.TOKENS))
    counters: dict[str, Counters] = {}
    running = []
    for _, asked, _ in steps:
        found = granted(reserve([scope], counters, asked, NOW))
        counters = dict(found.counters)
        running.append(found.reservation)
    for reservation in running:
        counters = release(reservation, counters, NOW)
    known = counters.get("key", Counters())
    assert (known.num_running, known.spent) == (0, 0)
    assert all(known.level(measure, scope.limits, NOW) == pytest.approx(10**6) for measure in Measure)
