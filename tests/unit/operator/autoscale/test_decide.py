"""What moves the number of groups, what keeps it, and how that is said."""

import random
from dataclasses import replace

import pytest

from glm_operator.autoscale.decide import decide
from glm_operator.autoscale.decision import Decision
from glm_operator.autoscale.estimate.coldstart import ColdStarts
from glm_operator.autoscale.memory import Memory
from glm_operator.autoscale.signals import ClassSignals, Input, Signals, State
from unit.operator.autoscale.law_builders import (
    BEGAN_S,
    GROUPS_PER_RPS,
    NO_SLO,
    PERIOD_S,
    PREFILL,
    PROMPT,
    Story,
    a_fleet,
    a_scaling,
    a_situation,
    a_slo,
    knowing,
    of,
    quiet,
    silence,
    slow,
    under,
    unknown,
)

CARRIED = 0.8 / GROUPS_PER_RPS
"""Requests a second that a group carries at the planned use."""

SWIFT = {"up": {"groups": 50}, "down": {"groups": 50, "stabilizationSeconds": 60}}


def now(
    signals: Signals, groups: int, memory: Memory | None = None, serving: int | None = None, **situation: object
) -> Decision:
    scaling = situation.pop("scaling", a_scaling(**SWIFT))
    return decide(scaling, a_slo(), a_situation(groups, serving, **situation), signals, memory or knowing(), BEGAN_S)[0]  # type: ignore[arg-type]


def burning(at_s: float) -> ClassSignals:
    return replace(slow(1.0, at_s=at_s), fast_burn=Input(State.VALUE, 20.0, at_s))


# -- up


def test_groups_come_for_what_arrives() -> None:
    decision = now(a_fleet(4, 5.5 * CARRIED), 4)

    assert (decision.desired, decision.cause, decision.limited_by) == (6, "Demand", None)
    assert decision.message == "5.49 groups needed for what arrives: prefill 1.35, decode 3.04"


@pytest.mark.parametrize(("load", "desired"), [(4.0, 4), (4.19, 4), (4.21, 5)])
def test_a_group_comes_from_five_per_cent_above_what_there_is(load: float, desired: int) -> None:
    assert now(a_fleet(4, load * CARRIED), 4).desired == desired


def test_a_backlog_asks_for_what_clears_it_by_when_a_new_group_could() -> None:
    waiting = {"requests_waiting": 40.0, "prompt_tokens_waiting": 40.0 * PROMPT, "oldest_waiting_s": 0.5}

    decision = now(a_fleet(4, 3.0 * CARRIED, **waiting), 4)
    more = now(a_fleet(4, 3.0 * CARRIED, **{**waiting, "prompt_tokens_waiting": 60.0 * PREFILL}), 4)

    assert decision.desired == 4  # what there is clears it in time
    assert (more.desired, more.cause) == (5, "Waiting")


def test_before_anything_was_measured_the_age_of_the_queue_adds_one_group_at_a_time() -> None:
    story = Story(groups=1, slo=a_slo(), memory=Memory(), start_s=60.0)
    blank = dict.fromkeys(
        ("prefill_tokens", "prefill_busy", "decode_tokens", "decode_steps", "decode_busy", "requests_ended")
    )

    story.run(55.0, under(1.0, oldest_waiting_s=1.5, requests_waiting=3.0, **blank))
    assert story.moves == [(1, 2)]

    story.run(60.0, under(1.0, oldest_waiting_s=1.5, requests_waiting=3.0, **blank))
    assert story.moves == [(1, 2), (2, 3)]


def test_an_age_that_lasts_asks_for_a_group_that_measured_demand_does_not() -> None:
    story = Story(groups=2, slo=a_slo())

    story.run(60.0, under(0.5, oldest_waiting_s=3.0, requests_waiting=1.0))

    assert story.moves == [(2, 3)]
    assert story.last is not None


def test_load_that_comes_with_the_first_group_is_not_given_time_to_be_helped_by_it() -> None:
    """The demo's burst: requests waited from the first second, and the second group was ordered 30 s later."""
    story = Story(groups=1, slo=a_slo(), memory=Memory(serving=0))

    story.run(20.0, under(0.5, oldest_waiting_s=3.0, requests_waiting=1.0))

    assert story.moves == [(1, 2)]


def test_an_age_that_falls_by_itself_asks_for_none() -> None:
    story = Story(groups=2, slo=a_slo())
    ages = iter([8.0 * 0.9**place for place in range(1000)])

    story.run(100.0, lambda story: a_fleet(2, 0.5, story.now_s, oldest_waiting_s=next(ages), requests_waiting=1.0))

    assert story.moves == []


@pytest.mark.parametrize(
    ("second", "moves"),
    [
        ({}, []),
        ({"missing": frozenset({"requests_waiting"})}, [(2, 3)]),
        ({"requests_waiting": 1.0}, [(2, 3)]),
    ],
    ids=["no queue", "unknown", "a queue"],
)
def test_a_queue_of_one_group_asks_for_none_while_what_arrives_finds_another_free(
    second: dict[str, object], moves: list[tuple[int, int]]
) -> None:
    """What was left in the first group by a burst stays there: a third group would not take it."""

    def uneven(story: Story) -> Signals:
        fleet = a_fleet(story.serving, 0.5, story.now_s)
        queue = {"oldest_waiting_s": 3.0, "requests_waiting": 12.0}
        changed = {"g0": replace(fleet.groups["g0"], **queue), "g1": replace(fleet.groups["g1"], **second)}  # type: ignore[arg-type]
        return replace(fleet, groups={**fleet.groups, **changed})

    assert Story(groups=2, slo=a_slo()).run(60.0, uneven).moves == moves


def test_a_request_that_is_never_served_asks_for_one_group_and_no_more() -> None:
    story = Story(groups=2, slo=a_slo())

    story.run(
        3600.0,
        lambda story: a_fleet(
            story.serving, 0.5, story.now_s, oldest_waiting_s=story.now_s - BEGAN_S, requests_waiting=1.0
        ),
    )

    assert story.moves == [(2, 3)]
    assert story.last is not None
    assert story.last.message.endswith("the oldest request waits 3600 s, since before the last group came")


@pytest.mark.parametrize(("groups", "moves"), [(1, [(1, 2)]), (2, [])])
def test_a_group_that_hangs_is_replaced_once_and_named(groups: int, moves: list[tuple[int, int]]) -> None:
    """Its clients give up after a minute and come again, so the oldest of them is always young."""

    def hanging(story: Story) -> Signals:
        fleet = a_fleet(story.serving, 0.2, story.now_s)
        age_s = (story.now_s - BEGAN_S) % 60.0
        hung = replace(fleet.groups["g0"], is_hung=True, oldest_waiting_s=age_s, requests_waiting=2.0)
        return replace(fleet, groups={**fleet.groups, "g0": hung})

    story = Story(groups=groups, slo=a_slo()).run(3600.0, hanging)

    assert story.moves == moves
    assert story.last is not None
    assert story.last.message == "requests wait at g0, and no step is computed; limited by MissingMetrics"


def test_arrivals_that_rise_order_groups_a_cold_start_ahead() -> None:
    def rising(story: Story) -> Signals:
        return a_fleet(story.serving, (1.2 + 0.005 * (story.now_s - BEGAN_S)) * CARRIED, story.now_s)

    early, late = Story(groups=2, start_s=300.0), Story(groups=2, start_s=300.0)
    early.memory = replace(early.memory, starts=replace(early.memory.starts, seen=(300.0,)))
    late.memory = replace(late.memory, starts=replace(late.memory.starts, seen=(5.0,)))
    for story in (early, late):
        story.run(185.0, rising)

    assert late.groups == 2
    assert early.groups > 2
    assert early.last is not None
    assert early.last.wanted <= 4  # at most twice of what arrives


def test_a_missed_percentile_raises_the_safety_factor_and_multiplies_nothing() -> None:
    story = Story(groups=4, slo=a_slo())
    load = 3.9 * CARRIED

    story.run(
        1200.0, lambda story: replace(a_fleet(story.serving, load, story.now_s), classes=(slow(4.0, at_s=story.now_s),))
    )

    assert max(story.numbers) == 6  # 3.9 times 1.5
    assert story.memory.boost == 1.5
    assert all(after - before == 1 for before, after in story.moves)
    story.run(
        1800.0, lambda story: replace(a_fleet(story.serving, load, story.now_s), classes=(slow(1.0, at_s=story.now_s),))
    )
    assert story.memory.boost < 1.01


@pytest.mark.parametrize(("state", "is_over"), [(State.VALUE, True), (State.IDLE, True), (State.STALE, False)])
def test_a_safety_factor_goes_back_while_too_few_requests_come_and_not_while_nothing_is_known(
    state: State, is_over: bool
) -> None:
    few = ClassSignals(name="chat", latency={"ttft": Input(state, 0.5, BEGAN_S)}, samples={"ttft": 5.0})
    story = Story(groups=2, slo=a_slo(), memory=knowing(boost=1.5))

    story.run(1800.0, lambda story: replace(a_fleet(story.serving, 0.2, story.now_s), classes=(few,)))

    assert (story.memory.boost < 1.01) is is_over


def test_a_missed_percentile_asks_for_no_more_while_groups_start() -> None:
    story = Story(groups=4, slo=a_slo(), start_s=10_000.0)
    missed = lambda story: replace(a_fleet(4, 3.9 * CARRIED, story.now_s), classes=(slow(9.0, at_s=story.now_s),))  # noqa: E731

    story.run(120.0, missed)
    assert story.moves == [(4, 5)]
    boost = story.memory.boost
    story.run(600.0, missed)

    assert story.memory.boost == boost
    assert story.moves == [(4, 5)]


def test_a_missed_percentile_adds_nothing_where_groups_are_idle() -> None:
    story = Story(groups=4, slo=a_slo())

    story.run(600.0, lambda story: replace(a_fleet(4, 0.5, story.now_s), classes=(slow(4.0, at_s=story.now_s),)))

    assert max(story.numbers) == 4


# -- down


def test_groups_go_one_after_the_other_once_fewer_were_enough_for_long() -> None:
    story = Story(groups=4)

    story.run(300.0, quiet)
    assert story.moves == []
    assert story.last is not None
    assert (story.last.wanted, story.last.limited_by) == (1, "DownStabilization")

    story.run(10.0, quiet)
    assert story.moves == [(4, 3)]
    story.run(50.0, quiet)
    assert story.moves == [(4, 3)]
    assert story.last.limited_by == "DownRate"
    story.run(130.0, quiet)
    assert story.groups == 1


def long_known(starts: ColdStarts) -> Memory:
    """Return a memory of a deployment that was looked at for hours."""
    return knowing(starts=starts, at_s=BEGAN_S, began_s=BEGAN_S - 7200.0, spec_groups=2, serving=2)


@pytest.mark.parametrize(
    ("starts", "waits_s"),
    [
        (ColdStarts(), 300.0),
        (ColdStarts(seen=(5.0,)), 60.0),
        (ColdStarts(seen=(70.0,)), 140.0),
        (ColdStarts(reported={"g0": 500.0}), 300.0),
    ],
    ids=["not measured", "5 s", "70 s", "500 s"],
)
def test_without_a_number_a_group_is_kept_for_what_two_starts_take(starts: ColdStarts, waits_s: float) -> None:
    story = Story(groups=2, memory=long_known(starts)).run(PERIOD_S, under(1.6 * CARRIED))

    story.run(waits_s - PERIOD_S, under(0.5 * CARRIED))
    assert story.moves == []

    story.run(3 * PERIOD_S, under(0.5 * CARRIED))
    assert story.moves == [(2, 1)]


def test_a_number_that_is_given_counts_however_fast_groups_start() -> None:
    scaling = a_scaling(down={"stabilizationSeconds": 600})
    story = Story(groups=2, scaling=scaling, memory=knowing(starts=ColdStarts(seen=(5.0,))))

    assert story.run(590.0, under(0.5 * CARRIED)).moves == []


def test_groups_that_were_wanted_back_at_once_are_kept_longer_from_then_on() -> None:
    story = Story(groups=2, memory=long_known(ColdStarts(seen=(5.0,))), start_s=5.0)
    story.run(90.0, under(0.5 * CARRIED)).run(10.0, under(1.6 * CARRIED))
    assert story.moves == [(2, 1), (1, 2)]

    story.run(250.0, under(0.5 * CARRIED))
    assert story.moves[2:] == []
    story.run(80.0, under(0.5 * CARRIED))
    assert story.moves[2:] == [(2, 1)]

    story.run(3700.0, under(0.5 * CARRIED)).run(10.0, under(1.6 * CARRIED)).run(90.0, under(0.5 * CARRIED))
    assert story.moves[3:] == [(1, 2), (2, 1)]


def test_a_load_that_is_new_gets_the_longest_of_these_times() -> None:
    story = Story(groups=2, memory=knowing(starts=ColdStarts(seen=(5.0,))))

    story.run(295.0, under(0.5 * CARRIED))
    assert story.moves == []

    story.run(15.0, under(0.5 * CARRIED))
    assert story.moves == [(2, 1)]


def test_more_requests_that_run_at_once_order_groups_before_caches_are_full() -> None:
    """Answers that become longer show in nothing that arrives."""

    def longer(story: Story) -> Signals:
        grown = 1.0 + max(story.now_s - BEGAN_S - 60.0, 0.0) / 60.0
        return a_fleet(4, 3.0 * CARRIED, story.now_s, requests_running=20.0 * grown)

    story = Story(groups=4, scaling=a_scaling(**SWIFT)).run(60.0, longer)
    assert story.moves == []

    story.run(40.0, longer)

    assert story.groups > 4
    assert story.last is not None
    assert story.last.inputs["KV use, %"].value < 85.0  # type: ignore[attr-defined]


def test_a_moment_of_load_begins_the_time_anew() -> None:
    story = Story(groups=3)

    story.run(250.0, quiet).run(5.0, under(2.5 * CARRIED)).run(290.0, quiet)

    assert story.moves == []


def test_none_goes_below_min() -> None:
    story = Story(groups=4, scaling=a_scaling(min=3, **SWIFT))

    story.run(400.0, quiet)

    assert story.groups == 3
    assert story.last is not None
    assert story.last.limited_by == "Min"


def test_none_goes_while_a_rollout_moves_groups_and_some_may_come() -> None:
    story = Story(groups=4, scaling=a_scaling(**SWIFT))

    story.run(400.0, quiet, is_moving=True)
    assert story.moves == []
    assert story.last is not None
    assert story.last.limited_by == "Rollout"
    assert story.last.cause == "Surplus"
    assert "outside" not in story.last.message

    assert now(a_fleet(4, 6.0 * CARRIED), 4, is_moving=True).desired > 4


def test_none_goes_while_the_oldest_request_is_late() -> None:
    story = Story(groups=4, slo=a_slo(), scaling=a_scaling(max=4, **SWIFT))

    story.run(400.0, under(0.1, oldest_waiting_s=1.1, requests_waiting=1.0))

    assert story.moves == []


def test_none_goes_if_the_caches_of_the_others_would_be_full() -> None:
    story = Story(groups=2, scaling=a_scaling(**SWIFT))

    story.run(400.0, under(0.1, kv_usage=0.45))

    assert story.moves == []
    assert story.last is not None
    assert story.last.limited_by == "Survivors"


# -- limits


def test_what_limits_an_increase_is_named() -> None:
    load = a_fleet(2, 12.0 * CARRIED)
    few = a_scaling(max=4, **SWIFT)

    assert (now(load, 2, scaling=few).desired, now(load, 2, scaling=few).limited_by) == (4, "Max")
    assert now(load, 2, scaling=a_scaling(gpuBudget=24, **SWIFT), gpus_per_group=8).limited_by == "GPUBudget"
    assert now(load, 2, namespace_gpus_left=24, gpus_per_group=8).limited_by == "NamespaceGPUBudget"
    assert now(load, 2, quota_groups=3).limited_by == "ResourceQuota"
    assert (now(load, 2, scaling=a_scaling()).desired, now(load, 2, scaling=a_scaling()).limited_by) == (6, "UpRate")
    assert now(load, 2, scaling=a_scaling(up={"stabilizationSeconds": 60})).limited_by == "UpStabilization"


def test_demand_right_at_max_is_one_state_whatever_the_noise() -> None:
    """Up to 29 times an hour the status said Max and took it back."""
    draw = random.Random(3)
    story, told = Story(groups=4, scaling=a_scaling(max=4)), []

    for _ in range(360):
        load = 4.2 * CARRIED * draw.gauss(1.0, 0.02)
        story.run(2 * PERIOD_S, under(load))
        told.append(story.last.limited_by if story.last is not None else None)

    assert set(told[told.index("Max") :]) == {"Max"}

    story.run(300.0, under(3.3 * CARRIED))

    assert story.last is not None
    assert story.last.limited_by != "Max"


def test_a_decision_says_its_bounds_and_whether_it_is_blind() -> None:
    scaling = a_scaling(schedules=[{"name": "night", "cron": "0 0 * * *", "duration": "1h", "min": 2, "max": 9}])

    seen, blind = now(a_fleet(3, 1.0), 3, scaling=scaling), now(silence(3), 3, scaling=scaling)

    assert (seen.least, seen.most, seen.scheduled) == (2, 9, ("night",))
    assert (seen.is_blind, blind.is_blind) == (False, True)


def test_an_increase_waits_for_its_stabilisation_and_no_longer() -> None:
    story = Story(groups=2, scaling=a_scaling(up={"groups": 50, "stabilizationSeconds": 60}))

    story.run(60.0, under(3.0 * CARRIED))
    assert story.moves == []
    story.run(15.0, under(3.0 * CARRIED))
    assert story.groups >= 3


def test_a_budget_that_burns_fast_does_not_wait_up_and_waits_twice_as_long_down() -> None:
    up = Story(groups=4, slo=a_slo(), scaling=a_scaling(up={"groups": 50, "stabilizationSeconds": 600}))
    up.run(5.0, lambda story: replace(a_fleet(4, 5.0 * CARRIED, story.now_s), classes=(burning(story.now_s),)))
    assert up.groups == 5

    down = Story(groups=4, slo=a_slo())
    down.run(590.0, lambda story: replace(quiet(story), classes=(burning(story.now_s),)))
    assert down.moves == []
    down.run(30.0, lambda story: replace(quiet(story), classes=(burning(story.now_s),)))
    assert down.moves == [(4, 3)]


def test_groups_come_so_many_a_period() -> None:
    story = Story(groups=2, scaling=a_scaling(up={"groups": 2, "periodSeconds": 60}), start_s=1000.0)

    story.run(60.0, under(9.0 * CARRIED))
    assert story.moves == [(2, 4)]
    story.run(60.0, under(9.0 * CARRIED))
    assert story.moves == [(2, 4), (4, 6)]


def test_groups_that_start_are_waited_for_and_that_is_said() -> None:
    late = a_fleet(2, 2.0 * CARRIED, oldest_waiting_s=5.0, requests_waiting=3.0)

    decision = now(late, 4, serving=2)

    assert (decision.desired, decision.starting, decision.limited_by) == (4, 2, "Starting")


def test_unknown_numbers_hold_and_say_which_groups() -> None:
    decision = now(silence(5), 5)

    assert (decision.desired, decision.cause, decision.limited_by) == (5, "NoData", "MissingMetrics")
    assert decision.message == "no fresh numbers of g0, g1, g2 and 2 more; limited by MissingMetrics"


def test_a_deployment_whose_first_groups_start_is_waited_for() -> None:
    decision = now(of(), 2, serving=0)

    assert (decision.desired, decision.cause, decision.limited_by) == (2, "NoData", "Starting")


def test_a_group_of_the_version_before_holds_what_it_cannot_tell() -> None:
    story = Story(groups=3, scaling=a_scaling(**SWIFT))

    story.run(600.0, under(0.01, arrivals=None, prompt_tokens_arriving=None, missing=frozenset({"oldest_waiting_s"})))

    assert story.moves == []
    assert story.last is not None
    assert story.last.limited_by == "MissingMetrics"


# -- who else sets it


def test_0_switches_it_off() -> None:
    decision = now(a_fleet(1, 50.0), 0)

    assert (decision.desired, decision.wanted, decision.cause) == (0, 0, "Steady")


@pytest.mark.parametrize(("spec", "desired"), [(1, 3), (9, 6)])
def test_a_number_outside_of_the_bounds_is_brought_back_at_once_whatever_is_known(spec: int, desired: int) -> None:
    scaling = a_scaling(min=3, max=6, up={"groups": 1}, down={"groups": 1})

    for signals in (silence(spec), a_fleet(spec, 0.01)):
        decision = now(signals, spec, scaling=scaling)
        assert (decision.desired, decision.cause) == (desired, "Bounds")


@pytest.mark.parametrize(
    ("room", "limit"),
    [({"namespace_gpus_left": 8, "gpus_per_group": 4}, "NamespaceGPUBudget"), ({"quota_groups": 2}, "ResourceQuota")],
)
def test_min_grows_into_no_budget_of_others_and_says_so(room: dict[str, int], limit: str) -> None:
    story = Story(groups=1, scaling=a_scaling(min=5)).run(60.0, quiet, **room)

    assert story.moves == [(1, 2)]
    assert story.last is not None
    assert (story.last.cause, story.last.limited_by) == ("Bounds", limit)
    assert story.last.message == f"2 is outside of 5 to 20; limited by {limit}"


def test_a_window_that_opens_brings_its_groups() -> None:
    opened = {"name": "day", "cron": "0 0 * * *", "duration": "1h", "min": 4}

    decision = now(silence(2), 2, scaling=a_scaling(schedules=[opened]))

    assert (decision.desired, decision.cause) == (4, "Schedule")
    assert decision.message == "schedule day sets 4 to 20 groups"


def test_a_number_set_by_hand_is_the_new_start() -> None:
    story = Story(groups=2)
    story.run(295.0, quiet)
    story.groups = story.serving = 5

    assert story.memory.is_by_hand(5)
    story.run(295.0, quiet)
    assert story.groups == 5
    story.run(15.0, quiet)
    assert story.groups == 4


def test_observing_says_the_same_again_and_again() -> None:
    memory, told = knowing(), []
    for place in range(30):
        at_s = BEGAN_S + PERIOD_S * place
        decision, memory = decide(a_scaling(), NO_SLO, a_situation(4), a_fleet(4, 6.0 * CARRIED, at_s), memory, at_s)
        told.append(decision.desired)

    assert set(told) == {told[0]}
    assert told[0] > 4


def test_a_gap_in_the_middle_of_a_load_moves_nothing() -> None:
    story = Story(groups=3, scaling=a_scaling(**SWIFT))

    story.run(120.0, under(2.6 * CARRIED)).run(1800.0, unknown).run(120.0, under(2.6 * CARRIED))

    assert story.moves == []
