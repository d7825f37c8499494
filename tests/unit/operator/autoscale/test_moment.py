"""What is made of a moment in which some groups show nothing, hang, or warm up."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from glm_operator.autoscale.constants import COLD_START_S
from glm_operator.autoscale.estimate.coldstart import ColdStarts
from glm_operator.autoscale.memory import Memory
from glm_operator.autoscale.signals import RATES, GroupSignals, Signals
from unit.operator.autoscale.law_builders import (
    BEGAN_S,
    GROUPS_PER_RPS,
    PROMPT,
    Story,
    a_fleet,
    a_scaling,
    a_slo,
    knowing,
    slow,
    under,
)

CARRIED = 0.8 / GROUPS_PER_RPS
"""Requests a second that a group carries at the planned use."""


def without(signals: Signals, *names: str) -> Signals:
    """Return the signals in which some groups, that are expected all the same, show nothing."""
    return replace(signals, groups={name: each for name, each in signals.groups.items() if name not in names})


def hanging(signals: Signals, *names: str) -> Signals:
    """Return the signals in which the counters of some groups stand still."""

    def still(group: GroupSignals) -> GroupSignals:
        return replace(group, is_hung=True, **dict.fromkeys(RATES, 0.0))  # type: ignore[arg-type]  # each is a number

    return replace(
        signals, groups={name: still(each) if name in names else each for name, each in signals.groups.items()}
    )


def rising(story: Story) -> Signals:
    return a_fleet(story.serving, (4.0 + 0.008 * (story.now_s - BEGAN_S)) * CARRIED, story.now_s)


def slow_starts() -> Memory:
    return knowing(starts=ColdStarts(seen=(300.0,)))


# -- groups that show nothing


@pytest.mark.parametrize("lose", [without, hanging])
def test_a_rise_orders_groups_a_cold_start_ahead_though_a_group_shows_nothing(
    lose: Callable[..., Signals],
) -> None:
    """What is known of the others needs more than the others, so one more is needed for each of those as well."""
    seen, partly = (Story(groups=5, start_s=300.0, memory=slow_starts()) for _ in range(2))

    seen.run(420.0, rising)
    partly.run(120.0, rising).run(300.0, lambda story: lose(rising(story), "g0"))

    assert partly.groups == seen.groups == 8


@pytest.mark.parametrize(("groups", "load", "hung"), [(2, 1.5, ["g0"]), (4, 3.8, ["g0"]), (4, 3.8, ["g0", "g1"])])
def test_what_waits_at_a_group_that_hangs_asks_for_no_other_however_much_comes_to_it(
    groups: int, load: float, hung: list[str]
) -> None:
    """Clients still reach it. Its queue counted as work of the others, and beside that it counted as a group itself."""
    story = Story(groups=groups).run(60.0, under(load * CARRIED))
    began_s = story.now_s

    def with_queues(story: Story) -> Signals:
        fleet = a_fleet(story.serving, load * CARRIED, story.now_s)
        still = hanging(fleet, *hung)
        for name in hung:
            came, waited_s = fleet.groups[name], story.now_s - began_s
            waits = waited_s * (came.arrivals or 0.0)
            still = replace(
                still,
                groups={
                    **still.groups,
                    name: replace(
                        still.groups[name],
                        arrivals=came.arrivals,
                        prompt_tokens_arriving=came.prompt_tokens_arriving,
                        requests_waiting=waits,
                        prompt_tokens_waiting=waits * PROMPT,
                        oldest_waiting_s=waited_s,
                    ),
                },
            )
        return still

    story.run(3600.0, with_queues)

    assert story.moves == []


@pytest.mark.parametrize("lose", [without, hanging])
@pytest.mark.parametrize("load", [2.0, 3.0, 3.9])
def test_a_group_that_stops_showing_anything_adds_none_and_removes_none(
    lose: Callable[..., Signals], load: float
) -> None:
    story = Story(groups=4).run(60.0, under(load * CARRIED))

    story.run(3600.0, lambda story: lose(a_fleet(4, load * CARRIED, story.now_s), "g0"))

    assert story.moves == []


def test_the_others_that_take_the_load_of_a_dead_group_get_one_in_its_place() -> None:
    story = Story(groups=4).run(60.0, under(3.8 * CARRIED))

    def taken_over(story: Story) -> Signals:
        others = a_fleet(story.serving - 1, 3.8 * CARRIED, story.now_s)
        moved = {
            f"g{place + 1}": replace(each, group=f"g{place + 1}") for place, each in enumerate(others.groups.values())
        }
        return replace(others, groups=moved, expected=frozenset({"g0", *moved}))

    story.run(3600.0, taken_over)

    assert story.moves == [(4, 5)]


def test_one_group_of_many_says_too_little_of_the_others() -> None:
    story = Story(groups=5).run(60.0, under(4.0 * CARRIED))

    story.run(600.0, lambda story: without(a_fleet(5, 5.5 * CARRIED, story.now_s), "g0", "g1", "g2", "g3"))

    assert story.moves == []


def test_what_a_message_says_names_the_groups_that_it_is_not_about() -> None:
    story = Story(groups=4).run(60.0, under(3.8 * CARRIED))

    story.run(5.0, lambda story: without(a_fleet(4, 6.0 * CARRIED, story.now_s), "g0"))

    assert story.last is not None
    assert story.last.message == (
        "5.49 groups needed for what arrives: prefill 1.11, decode 2.49, and 1 for g0, which shows nothing"
    )


def test_counters_that_jump_when_a_group_goes_on_add_no_group() -> None:
    """Ten minutes of requests came within one scrape, which looked like a burst of 20 a second."""
    story = Story(groups=4).run(60.0, under(3.0 * CARRIED))
    story.run(600.0, lambda story: hanging(a_fleet(4, 3.0 * CARRIED, story.now_s), "g0"))

    def jumped(story: Story) -> Signals:
        fleet = a_fleet(4, 3.0 * CARRIED, story.now_s)
        return replace(fleet, groups={**fleet.groups, "g0": a_jump(story.now_s)})

    story.run(45.0, jumped).run(60.0, under(3.0 * CARRIED))

    assert story.moves == []
    assert story.memory.rates.prefill_tokens_per_s == pytest.approx(knowing().rates.prefill_tokens_per_s)


def a_jump(at_s: float) -> GroupSignals:
    group = a_fleet(1, 20.0, at_s).groups["g0"]
    return replace(
        group, arrivals_lately=60.0, prompt_tokens_arriving_lately=60_000.0, prefill_tokens=50_000.0, prefill_busy=9.0
    )


# -- groups that warm up


def test_before_anything_was_measured_a_queue_adds_one_group_a_start_and_warm_up() -> None:
    scaling = a_scaling(warmUpSeconds=600)
    story = Story(groups=1, scaling=scaling, slo=a_slo(), memory=Memory(), start_s=COLD_START_S)

    def young(story: Story) -> Signals:
        changes = {"serving_since_s": story.now_s - 60.0, "requests_waiting": 5.0, "oldest_waiting_s": 20.0}
        return a_fleet(story.serving, 3.0, story.now_s, prefill_busy=None, decode_busy=None, **changes)

    story.run(1500.0, young)

    assert story.groups <= 4, story.moves


def test_a_missed_percentile_asks_for_no_more_while_a_group_warms_up() -> None:
    scaling = a_scaling(warmUpSeconds=600, up={"groups": 50})
    story = Story(groups=4, scaling=scaling, slo=a_slo())
    story.memory = replace(story.memory, serving=3)  # one has just begun to serve

    story.run(
        600.0, lambda story: replace(a_fleet(4, 3.9 * CARRIED, story.now_s), classes=(slow(4.0, at_s=story.now_s),))
    )

    assert story.moves == []
