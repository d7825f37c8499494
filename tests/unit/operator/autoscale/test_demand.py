from dataclasses import replace

import pytest

from glm_operator.autoscale.constants import CAREFUL, HOPEFUL, HUGE
from glm_operator.autoscale.demand import Able, Credit, Demand, Load, demand, sums
from glm_operator.autoscale.estimate.held import Rise
from glm_operator.autoscale.estimate.promises import Promises
from glm_operator.autoscale.estimate.rates import Rates, StepTime
from glm_operator.autoscale.signals import State
from glm_operator.autoscale.zero.asked import Asked, Gateway, Said
from unit.operator.autoscale.law_builders import (
    ANSWER,
    BEGAN_S,
    GROUPS_PER_RPS,
    KV,
    PREFILL,
    PROMPT,
    a_fleet,
    a_group,
    idle,
    knowing,
    of,
    step_s,
)

RATES = knowing().rates
NO_PROMISE = Promises()
SETTLED = Credit(serving=4, remaining_s=(), cold_start_s=60.0)


def a_load(rps: float = 4.0, **changes: float) -> Load:
    load = Load(
        prompt_tokens=rps * PROMPT,
        generated=rps * ANSWER,
        waiting_prompt_tokens=0.0,
        waiting_requests=0.0,
        running_requests=0.0,
        kv_tokens=0.0,
    )
    return replace(load, **changes)


def needed(
    load: Load,
    *,
    kept: Promises = NO_PROMISE,
    credit: Credit = SETTLED,
    rates: Rates = RATES,
    use: float = 0.8,
    boost: float = 1.0,
) -> Demand:
    return demand(load, load, True, rates, kept, credit, use, boost)


# -- sums over groups


def test_a_sum_over_groups_that_are_all_fresh_is_known() -> None:
    found = sums(a_fleet(3, 6.0), BEGAN_S)

    assert found.are_known
    assert found.arrivals.value == pytest.approx(6.0)
    assert not found.is_idle


@pytest.mark.parametrize("state", [State.UNKNOWN, State.STALE])
def test_a_sum_that_lacks_a_group_has_what_is_known_and_is_not_known(state: State) -> None:
    whole = a_fleet(2, 2.0)
    missing = {name: each for name, each in whole.groups.items() if name != "g0"}
    lost = replace(whole, groups=missing) if state is State.UNKNOWN else replace(whole, stale=frozenset({"g0"}))

    found = sums(lost, BEGAN_S)

    assert found.arrivals.state is state
    assert found.arrivals.value == pytest.approx(1.0)
    assert not found.are_known


def test_samples_that_grew_old_since_they_were_read_are_stale() -> None:
    assert sums(a_fleet(2, 2.0), BEGAN_S + 46.0).running.state is State.STALE


def test_no_group_is_nothing_known() -> None:
    assert sums(of(), BEGAN_S).running.state is State.UNKNOWN


def test_a_step_of_arrivals_shows_in_the_newest_samples_of_all_groups() -> None:
    stepped = {"arrivals_lately": 5.0, "prompt_tokens_arriving_lately": 5.0 * PROMPT}

    found = sums(a_fleet(4, 4.0, **stepped), BEGAN_S)

    assert found.arrivals.value == 20.0
    assert found.prompt_arriving.value == 20.0 * PROMPT


def test_a_new_group_that_takes_a_share_is_no_step() -> None:
    old = [a_group(f"g{place}", 1.0, arrivals_lately=0.5) for place in range(4)]
    new = a_group("g4", 0.4, arrivals_lately=2.0)

    assert sums(of(*old, new), BEGAN_S).arrivals.value == pytest.approx(4.4)


def test_idle_is_nothing_running_waiting_or_arriving_anywhere() -> None:
    assert sums(of(idle("g0"), idle("g1")), BEGAN_S).is_idle
    assert not sums(of(idle("g0"), replace(idle("g1"), requests_waiting=1.0)), BEGAN_S).is_idle
    assert not sums(of(idle("g0"), replace(idle("g1"), arrivals=None)), BEGAN_S).is_idle


def held(requests: float, tokens: float | None, oldest_s: float = 1.0) -> Said:
    return Said(held=requests, running=0.0, oldest_s=oldest_s, idle_s=0.0, up_s=60.0, held_tokens=tokens)


def at_gateways(*said: Said | None) -> Asked:
    return Asked(tuple(Gateway(name=f"gw{place}", said=each) for place, each in enumerate(said)))


def test_what_waits_at_gateways_is_added_to_what_waits_at_workers() -> None:
    fleet = a_fleet(2, 2.0, requests_waiting=3.0, prompt_tokens_waiting=300.0, oldest_waiting_s=2.0)

    found = sums(replace(fleet, asked=at_gateways(held(10.0, 900.0, 5.0), held(2.0, 100.0))), BEGAN_S)

    assert (found.waiting.value, found.prompt_tokens.value, found.oldest_s.value) == (18.0, 1600.0, 5.0)
    assert found.are_known
    assert not found.is_idle


def test_a_gateway_that_says_no_tokens_has_prompts_of_the_usual_length() -> None:
    fleet = replace(a_fleet(2, 2.0), asked=at_gateways(held(10.0, None), held(2.0, 100.0)))

    assert sums(fleet, BEGAN_S, mean_prompt=50.0).prompt_tokens.value == 600.0


def test_a_silent_gateway_is_in_no_sum_and_makes_none_unknown() -> None:
    fleet = a_fleet(2, 2.0)

    assert sums(replace(fleet, asked=at_gateways(None)), BEGAN_S) == sums(fleet, BEGAN_S)


def test_idle_groups_before_which_a_request_waits_are_not_idle() -> None:
    fleet = of(idle("g0"))

    assert sums(replace(fleet, asked=at_gateways(held(0.0, 0.0, 0.0))), BEGAN_S).is_idle
    assert not sums(replace(fleet, asked=at_gateways(held(1.0, 0.0, 0.0))), BEGAN_S).is_idle


def test_what_waits_more_at_gateways_has_arrived_and_what_waits_less_came_before() -> None:
    fleet = a_fleet(2, 2.0)

    assert sums(fleet, BEGAN_S, rise=Rise(3.0, 300.0)).arrivals.value == pytest.approx(5.0)
    assert sums(fleet, BEGAN_S, rise=Rise(3.0, 300.0)).prompt_arriving.value == pytest.approx(2.0 * PROMPT + 300.0)
    assert sums(fleet, BEGAN_S, rise=Rise(-1.5, -150.0)).arrivals.value == pytest.approx(0.5)
    assert sums(fleet, BEGAN_S, rise=Rise(-9.0, -1e6)).arrivals.value == 0.0


# -- groups that are needed


def test_time_for_prefill_and_decode_adds_up() -> None:
    found = needed(a_load(4.0))

    assert found.prefill == pytest.approx(4.0 * PROMPT / PREFILL)
    assert found.needs["Demand"] == pytest.approx(4.0 * GROUPS_PER_RPS / 0.8, rel=0.01)


def test_a_promise_of_itl_needs_batches_that_keep_it() -> None:
    """At 25 ms a step has 10 requests beside an idle prefill; with a fifth of the time for prefill it is less."""
    kept = needed(a_load(4.0), kept=Promises(itl_s=0.03))
    groups = kept.needs["Demand"] / 1.1
    share = 0.4 / groups
    batch = 4.0 * ANSWER * 0.02 / (groups - 0.4 - 4.0 * ANSWER * 0.0005)

    assert step_s(batch) / (1.0 - share) == pytest.approx(0.03, rel=0.01)


def test_a_promise_of_ttft_needs_room_for_the_queue() -> None:
    tight, wide = needed(a_load(4.0, generated=0.0), kept=Promises(ttft_s=0.3)), needed(a_load(4.0, generated=0.0))

    assert tight.needs["Demand"] == pytest.approx(0.4 / 0.3)  # no more than that: the rest is for latencies to say
    assert wide.needs["Demand"] == pytest.approx(0.4 / 0.8)


@pytest.mark.parametrize(
    ("remaining_s", "groups"), [((), 4.0 + 80.0 / 100.0), ((60.0,), 4.8), ((0.0,), 4.5), ((60.0, 60.0), 4.8)]
)
def test_groups_that_start_are_credited_with_what_they_will_do(remaining_s: tuple[float, ...], groups: float) -> None:
    """Of 400 s of work at 2 groups a second, 4 that serve do 320 s in the 160 s that count; the rest takes others."""
    load = a_load(0.0, prompt_tokens=2.0 * PREFILL, waiting_prompt_tokens=400.0 * PREFILL)

    found = needed(load, credit=Credit(serving=4, remaining_s=remaining_s, cold_start_s=60.0), use=0.5)

    assert found.horizon_s == 100.0
    assert found.needs["Waiting"] == pytest.approx(groups, abs=0.01)


def test_a_backlog_never_asks_for_more_than_twice_what_arrives_does() -> None:
    load = a_load(4.0, waiting_prompt_tokens=1e9)

    found = needed(load)

    assert found.needs["Waiting"] == pytest.approx(2.0 * found.needs["Demand"])


def test_a_backlog_asks_for_no_more_while_a_group_is_overdue() -> None:
    load = a_load(8.0, waiting_prompt_tokens=400.0 * PREFILL)

    assert needed(load, credit=Credit(serving=2, remaining_s=(0.0,), cold_start_s=60.0)).needs["Waiting"] == 3.0


def test_what_is_not_measured_is_not_known_unless_there_is_nothing() -> None:
    assert not needed(a_load(4.0), rates=Rates()).is_known
    assert needed(a_load(0.0), rates=Rates()).is_known
    assert not needed(a_load(0.0, kv_tokens=10.0), rates=Rates()).is_known


def test_a_first_guess_asks_for_few_groups_and_lets_few_go() -> None:
    rates = replace(RATES, steps=(StepTime(0, 2.0, step_s(2.0)),))

    found = needed(a_load(4.0), rates=rates)

    assert found.careful > 1.5 * found.needs["Demand"]


def test_the_largest_batch_is_what_may_run_and_what_the_cache_holds() -> None:
    assert Able.of(RATES, HOPEFUL, HUGE).batch == 32.0
    assert Able.of(replace(RATES, sequence_tokens=10_000.0), HOPEFUL, HUGE).batch == pytest.approx(0.85 * KV / 10_000.0)
    assert Able.of(replace(RATES, max_running=None, kv_tokens=None), CAREFUL, 8.0).batch == 8.0 * 32.0
