"""Limits in a real Valkey or Redis are those of one process, whoever asks them, and whoever dies."""

import asyncio
import contextlib
import itertools
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glm_gateway.limits.counters import Counters, month_of
from glm_gateway.limits.limit import Budget, Limits, Measure, Unit
from glm_gateway.limits.memory import MemoryStore
from glm_gateway.limits.reserve import Granted, Refusal, Reservation, Scope, scopes_of_more_prompt
from glm_gateway.limits.store import StoreGone, nothing_prior
from glm_gateway.limits.tokens import PICO, Prices, Usage
from glm_gateway.limits.valkey.store import Leased, Owed, ValkeyStore
from integration.valkey_world import Valkey

END_OF_MONTH = datetime(2026, 11, 30, 23, 58, tzinfo=UTC).timestamp()
NOW = datetime(2026, 11, 29, 12, tzinfo=UTC).timestamp()
PRICES = Prices(prompt=3 * PICO, cached=PICO, answer=7 * PICO + 1, thinking=9 * PICO)  # for a million
USAGE = Usage(prompt=60, answer=40)
PREFIXES = (f"p{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    with tempfile.TemporaryDirectory(prefix="v") as folder:
        server = Valkey(Path(folder))
        server.begin()
        asyncio.run(server.until_ready())
        yield server
        server.end()


@contextlib.asynccontextmanager
async def a_store(valkey: Valkey, prefix: str = "", **fields: Any) -> AsyncIterator[ValkeyStore]:
    store = ValkeyStore(valkey.client(), prefix=prefix or next(PREFIXES), **{"timeout_s": 5.0, **fields})
    try:
        yield store
    finally:
        await store.close()


def one(**limits: Any) -> Scope:
    return Scope("key a", Limits(**{"prices": PRICES, **limits}))


def granted(found: Granted | Refusal) -> Granted:
    assert isinstance(found, Granted), found
    return found


# A schedule: what is asked of two scopes, when, and what becomes of it.

limits = st.builds(
    Limits,
    per_minute=st.dictionaries(st.sampled_from(Measure), st.integers(0, 3) | st.integers(50, 10**7), max_size=4),
    concurrency=st.none() | st.integers(0, 4),
    context_tokens=st.none() | st.integers(1, 1000),
    budget=st.none()
    | st.builds(Budget, st.integers(0, 5000), st.just(Unit.TOKENS))
    | st.builds(Budget, st.integers(0, 10**10) | st.integers(10**16, 10**21), st.just(Unit.MONEY)),
    cached_weight=st.sampled_from([0.0, 0.1, 0.37, 1.0]),
    prices=st.builds(
        Prices,
        prompt=st.integers(0, 10**21),
        cached=st.just(0),
        answer=st.integers(0, 10**13),
        thinking=st.just(PICO // 3),
    ),
    only_counts=st.booleans(),
)
usages = st.builds(
    Usage,
    prompt=st.integers(0, 600),
    cached=st.just(0),
    answer=st.integers(0, 400),
    thinking=st.integers(0, 400),
)
used_usages = usages.flatmap(
    lambda usage: st.integers(0, usage.prompt).map(lambda cached: replace(usage, cached=cached))
)
steps = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "reserve", "more", "settle", "release"]), st.floats(0, 40), usages, used_usages
    ),
    max_size=25,
)


def comparable(counters: Mapping[str, Counters], now: float) -> dict[str, tuple[object, ...]]:
    month = month_of(now)
    return {name: (dict(each.buckets), each.num_running, each.spent_in(month)) for name, each in counters.items()}


def told(found: Granted | Refusal, now: float) -> object:
    if isinstance(found, Refusal):
        return found
    return comparable(found.counters, now), found.overlooked, found.reservation.month


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(own=limits, shared=limits, schedule=steps)
def test_any_schedule_has_the_results_of_one_process(
    valkey: Valkey, own: Limits, shared: Limits, schedule: list[tuple[str, float, Usage, Usage]]
) -> None:
    """To the bit: over the turn of a month, with sums that no double holds, and with two gateways at one server."""
    scopes = [Scope("key a", own), Scope("group g", shared)]

    async def compare() -> None:
        now = END_OF_MONTH
        memory, prefix = MemoryStore(), next(PREFIXES)
        running: list[tuple[Reservation, Reservation]] = []
        async with (
            a_store(valkey, prefix, clock=lambda: now, lease_s=1e6) as first,
            a_store(valkey, prefix, clock=lambda: now, lease_s=1e6) as second,
        ):
            for number, (what, pause, asked, used) in enumerate(schedule):
                now += pause
                store = first if number % 2 else second
                if what in ("reserve", "more"):
                    each = scopes if what == "reserve" else scopes_of_more_prompt(scopes)
                    ours, theirs = await store.reserve(each, asked, now), await memory.reserve(each, asked, now)
                    assert told(ours, now) == told(theirs, now)
                    if isinstance(ours, Granted) and isinstance(theirs, Granted):
                        running.append((ours.reservation, theirs.reservation))
                elif running:
                    leased, reservation = running.pop(0)
                    if what == "settle":
                        here, there = await store.settle(leased, used, now), await memory.settle(reservation, used, now)
                    else:
                        here, there = await store.release(leased, now), await memory.release(reservation, now)
                    assert comparable(here, now) == comparable(there, now)
            assert comparable(await first.counters(scopes), now) == comparable(await memory.counters(scopes), now)

    asyncio.run(compare())


async def test_months_begin_where_the_calendar_has_them(valkey: Valkey) -> None:
    for year, month in itertools.product((2024, 2026, 2028, 2099, 2100, 2101), range(1, 13)):
        first = datetime(year, month, 1, tzinfo=UTC).timestamp()
        for now in (first - 0.001, first, first + 86_400 * 27.99):
            async with a_store(valkey, clock=lambda now=now: now) as store:
                found = granted(await store.reserve([one()], USAGE, now))
                assert found.reservation.month == month_of(now)


async def test_who_waits_exactly_as_long_as_told_is_let_in_and_nobody_sooner(valkey: Valkey) -> None:
    now, scope = NOW, one(per_minute={Measure.ANSWER_TOKENS: 70})
    async with a_store(valkey, clock=lambda: now) as store:
        granted(await store.reserve([scope], USAGE, now))
        for _ in range(20):
            found = await store.reserve([scope], USAGE, now)
            assert isinstance(found, Refusal)
            assert found.retry_after_s is not None
            now += found.retry_after_s - 0.001
            assert isinstance(await store.reserve([scope], USAGE, now), Refusal)
            now += 0.001
            granted(await store.reserve([scope], USAGE, now))


async def test_gateways_that_ask_at_once_take_no_more_than_there_is(valkey: Valkey) -> None:
    prefix, scope = next(PREFIXES), one(budget=Budget(1000, Unit.TOKENS))
    async with a_store(valkey, prefix) as first, a_store(valkey, prefix) as second:
        found = await asyncio.gather(
            *(store.reserve([scope], USAGE, NOW) for _ in range(20) for store in (first, second))
        )
        assert sum(isinstance(each, Granted) for each in found) == 10


async def test_the_clock_is_the_servers_and_what_is_told_is_by_the_callers(valkey: Valkey) -> None:
    scope = one(per_minute={Measure.ANSWER_TOKENS: 400}, budget=Budget(1000, Unit.TOKENS))
    async with a_store(valkey) as store:
        wrong = 1000.0  # the gateway's clock stands still in 1970
        found = granted(await store.reserve([scope], USAGE, wrong))
        assert found.reservation.month == month_of(time.time())
        assert found.counters["key a"].level(Measure.ANSWER_TOKENS, scope.limits, wrong) == pytest.approx(360)
        settled = (await store.settle(found.reservation, USAGE, wrong))["key a"]
        assert 360 <= settled.level(Measure.ANSWER_TOKENS, scope.limits, wrong) < 400


async def test_what_a_dead_gateway_ran_is_free_again_and_what_a_living_one_runs_is_not(valkey: Valkey) -> None:
    now, prefix = NOW, next(PREFIXES)
    scope = one(concurrency=2)
    async with (
        a_store(valkey, prefix, clock=lambda: now, lease_s=30) as dying,
        a_store(valkey, prefix, clock=lambda: now, lease_s=30) as living,
    ):
        await dying.reserve([scope], USAGE, now)
        granted(await living.reserve([scope], USAGE, now))
        for _ in range(4):
            assert isinstance(await living.reserve([scope], USAGE, now), Refusal)
            now += 9
            await living.renew()
        granted(await living.reserve([scope], USAGE, now))
        assert isinstance(await living.reserve([scope], USAGE, now), Refusal)


@pytest.mark.parametrize("is_more", [False, True])
@pytest.mark.parametrize("unit", Unit)
async def test_what_a_dead_gateway_held_of_a_budget_is_given_back(valkey: Valkey, unit: Unit, is_more: bool) -> None:
    now, prefix = NOW, next(PREFIXES)
    scope = one(budget=Budget(10**6 if unit is Unit.TOKENS else 10**18, unit))
    async with (
        a_store(valkey, prefix, clock=lambda: now) as dying,
        a_store(valkey, prefix, clock=lambda: now) as living,
    ):
        large = Usage(prompt=10**6 - 100)
        asked = scopes_of_more_prompt([scope]) if is_more else [scope]
        thought_dead = granted(await dying.reserve(asked, large, now))
        held = granted(await living.reserve([scope], USAGE, now))
        now += 900
        await living.renew()
        assert (await living.counters([scope]))["key a"].spent == scope.limits.expense(large) + scope.limits.expense(
            USAGE
        )
        now += 31
        again = granted(await living.reserve([scope], USAGE, now))
        assert again.counters["key a"].spent == 2 * scope.limits.expense(USAGE)
        settled = await living.settle(held.reservation, Usage(prompt=1), now)
        assert settled["key a"].spent == scope.limits.expense(USAGE) + scope.limits.expense(Usage(prompt=1))
        for _ in range(2):  # it was not dead, and could not renew: what it used counts, once
            settled = await dying.settle(thought_dead.reservation, Usage(prompt=1), now)
            assert settled["key a"].spent == scope.limits.expense(USAGE) + 2 * scope.limits.expense(Usage(prompt=1))


async def test_a_lease_that_lapsed_while_its_gateway_could_not_renew_it_is_taken_up_again(valkey: Valkey) -> None:
    now, scope = NOW, one(concurrency=1, budget=Budget(1000, Unit.TOKENS))
    async with a_store(valkey, clock=lambda: now, lease_s=30) as store:
        held = granted(await store.reserve([scope], USAGE, now))
        now += 100
        assert (await store.counters([scope]))["key a"].num_running == 0
        await store.renew()
        assert (await store.counters([scope]))["key a"].num_running == 1
        await store.settle(held.reservation, Usage(prompt=1), now)
        assert (await store.counters([scope]))["key a"].spent == 1


async def test_a_reservation_is_settled_once_however_often_it_is_sent(valkey: Valkey) -> None:
    scope = one(budget=Budget(1000, Unit.TOKENS), per_minute={Measure.ANSWER_TOKENS: 100})
    async with a_store(valkey, clock=lambda: NOW) as store:
        held = granted(await store.reserve([scope], USAGE, NOW))
        for _ in range(3):
            settled = await store.settle(held.reservation, Usage(prompt=60, answer=10), NOW)
            assert settled["key a"].spent == 70
            assert settled["key a"].level(Measure.ANSWER_TOKENS, scope.limits, NOW) == 90


async def test_a_call_without_an_answer_in_time_leaves_nothing_behind(valkey: Valkey) -> None:
    """The server stands still for longer than a call may take: it does what it was sent, and nobody hears of it."""
    scope = one(budget=Budget(1000, Unit.TOKENS), concurrency=1)
    async with a_store(valkey, timeout_s=0.2) as store:
        held = granted(await store.reserve([scope], USAGE, time.time()))
        admin = valkey.client()
        await admin.client_pause(1500)
        for call in (
            store.settle(held.reservation, Usage(prompt=5), time.time()),
            store.reserve([scope], USAGE, time.time()),
        ):
            with pytest.raises(StoreGone, match=r"0\.2 s"):
                await call
        assert store.num_unfinished == 2
        await until_renewed(store)
        await admin.aclose()
        known = (await store.counters([scope]))["key a"]
        assert (known.num_running, known.spent, store.num_unfinished) == (0, 5, 0)


async def test_a_loop_that_was_busy_hears_an_answer_that_was_there_in_time(valkey: Valkey) -> None:
    admin = valkey.client()
    async with a_store(valkey, timeout_s=0.5) as store:
        granted(await store.reserve([one()], USAGE, NOW))
        await admin.client_pause(200)
        asked = asyncio.create_task(store.reserve([one()], USAGE, NOW))
        await asyncio.sleep(0.05)  # it is sent, and the server answers in the middle of what comes now
        time.sleep(0.8)  # noqa: ASYNC251 - a busy loop
        granted(await asked)
    await admin.aclose()


async def test_a_connection_that_the_server_has_closed_is_no_loss(valkey: Valkey) -> None:
    admin = valkey.client()
    async with a_store(valkey) as store:
        granted(await store.reserve([one()], USAGE, NOW))
        await admin.client_kill_filter(_type="normal", skipme=True)
        granted(await store.reserve([one()], USAGE, NOW))
    await admin.aclose()


async def test_what_a_gateway_of_another_version_counts_is_left_alone(valkey: Valkey) -> None:
    prefix, scope = next(PREFIXES), one(per_minute={Measure.REQUESTS: 5})
    admin = valkey.client()
    await admin.hset(f"{prefix}:minute:key a", "pictures", "1 2")  # type: ignore[misc]
    async with a_store(valkey, prefix) as store:
        assert set(granted(await store.reserve([scope], USAGE, NOW)).counters["key a"].buckets) == {Measure.REQUESTS}
    assert await admin.hget(f"{prefix}:minute:key a", "pictures") == b"1 2"  # type: ignore[misc]
    await admin.aclose()


async def until_renewed(store: ValkeyStore) -> None:
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(StoreGone):
                await store.renew()
                return


def spent_before(scope: str, unit: Unit, month: str) -> int:
    return {Unit.TOKENS: 850, Unit.MONEY: 3 * PICO}[unit] if (scope, month) == ("key a", "2026-11") else 0


async def test_what_journals_have_of_the_month_is_added_once_each(valkey: Valkey) -> None:
    prefix, scope = next(PREFIXES), one(budget=Budget(2000, Unit.TOKENS))
    fields: dict[str, Any] = {"prior": spent_before, "clock": lambda: NOW}
    for journal, spent in (("one", 950), ("two", 1900)):
        async with a_store(valkey, prefix, journal=journal, **fields) as store:
            assert granted(await store.reserve([scope], USAGE, NOW)).counters["key a"].spent == spent
    async with a_store(valkey, prefix, journal="one", **fields) as again:
        assert granted(await again.reserve([scope], USAGE, NOW)).counters["key a"].spent == 2000
        assert isinstance(await again.reserve([scope], USAGE, NOW), Refusal)


async def test_a_budget_that_changes_its_unit_counts_what_was_spent_before_it(valkey: Valkey) -> None:
    in_tokens, in_money = one(budget=Budget(10**6, Unit.TOKENS)), one(budget=Budget(PICO, Unit.MONEY))
    async with a_store(valkey, clock=lambda: NOW) as store:
        held = granted(await store.reserve([one()], USAGE, NOW))
        assert (await store.counters([in_tokens]))["key a"].spent == USAGE.total
        await store.settle(held.reservation, USAGE, NOW)
        assert (await store.counters([in_money]))["key a"].spent == PRICES.cost(USAGE)


@pytest.mark.parametrize("journal", ["", "one"])
async def test_what_is_owed_counts_once_and_not_beside_a_journal_that_has_it(valkey: Valkey, journal: str) -> None:
    scope, owed = one(budget=Budget(10**6, Unit.TOKENS)), [Owed("key a", "2026-11", 100, 7)]
    prior = spent_before if journal else nothing_prior
    async with a_store(valkey, clock=lambda: NOW, prior=prior, journal=journal) as store:
        for _ in range(2):
            await store.owe("b1", owed)
        assert (await store.counters([scope]))["key a"].spent == (850 if journal else 100)
        await store.owe("b2", owed)
        assert (await store.counters([scope]))["key a"].spent == (950 if journal else 200)


async def test_a_key_that_rests_leaves_nothing_but_its_month(valkey: Valkey) -> None:
    prefix, scope = next(PREFIXES), one(per_minute={Measure.REQUESTS: 10}, concurrency=1)
    async with a_store(valkey, prefix) as store:
        held = granted(await store.reserve([scope], USAGE, NOW))
        await store.settle(held.reservation, USAGE, NOW)
    admin = valkey.client()
    left = {key.decode(): await admin.ttl(key) async for key in admin.scan_iter(f"{prefix}:*")}
    await admin.aclose()
    month = month_of(time.time())
    assert set(left) == {f"{prefix}:minute:key a", f"{prefix}:spent:{month}:key a"}
    assert 0 < left[f"{prefix}:minute:key a"] <= 126
    assert left[f"{prefix}:spent:{month}:key a"] > 31 * 86_400


@pytest.mark.parametrize("scopes", [[], [one()], [one(), Scope("group g", Limits())]])
async def test_a_request_is_one_round_trip_to_reserve_and_one_to_settle(
    valkey: Valkey, scopes: Sequence[Scope]
) -> None:
    admin = valkey.client()
    async with a_store(valkey) as store:
        await store.settle(granted(await store.reserve(scopes, USAGE, NOW)).reservation, USAGE, NOW)
        before = await admin.info("stats")
        held = granted(await store.reserve(scopes, USAGE, NOW)).reservation
        assert isinstance(held, Leased)
        await store.settle(held, USAGE, NOW)
        after = await admin.info("stats")
    await admin.aclose()
    # The commands within scripts are counted as well: what a client sends is counted by its reads.
    assert after["total_reads_processed"] - before["total_reads_processed"] <= 3
