"""When the first group comes, when the last one goes, and what keeps either."""

from dataclasses import replace
from itertools import pairwise
from math import inf, nan
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glm_operator.autoscale.constants import DEAF_S
from glm_operator.autoscale.decide import decide
from glm_operator.autoscale.decision import Decision
from glm_operator.autoscale.memory import Memory
from glm_operator.autoscale.signals import Signals
from glm_operator.autoscale.zero.asked import Asked, Gateway, Said
from unit.operator.autoscale.law_builders import (
    BEGAN_S,
    NO_SLO,
    PERIOD_S,
    Story,
    a_fleet,
    a_scaling,
    a_situation,
    knowing,
    of,
    silence,
)
from unit.operator.autoscale.zero.zero_builders import (
    IDLE_AFTER_S,
    AGateway,
    Front,
    a_zero_scaling,
    asked,
    says,
    with_asked,
)

HELD = says(held=1.0, oldest_s=0.2, idle_s=0.0)


def at_none(found: Asked, memory: Memory | None = None, scaling: Any = None, **situation: Any) -> Decision:
    signals = replace(silence(0), asked=found)
    scaling = scaling or a_zero_scaling()
    return decide(scaling, NO_SLO, a_situation(0, **situation), signals, memory or knowing(), BEGAN_S)[0]


def a_story(front: Front, groups: int = 1, **changes: Any) -> Story:
    return Story(groups=groups, scaling=changes.pop("scaling", a_zero_scaling()), **changes)


# -- from none


def test_a_held_request_brings_a_group_at_once() -> None:
    decision = at_none(asked(HELD))

    assert (decision.desired, decision.cause, decision.limited_by) == (1, "Woken", None)
    assert decision.message == "1 request is held at gateways, the oldest for 0.2 s"


def test_what_one_gateway_holds_counts_whatever_others_do_not_say() -> None:
    assert at_none(asked(None, HELD, None)).desired == 1


def test_a_long_queue_brings_two_as_any_backlog_of_one_group_does() -> None:
    many, unmeasured = asked(says(held=5000.0, oldest_s=2.0)), Memory()

    assert (at_none(many).desired, at_none(many).message) == (
        2,
        "5000 requests are held at gateways, the oldest for 2 s; 2.00 groups needed",
    )
    assert at_none(many, unmeasured).desired == 1, "what was never measured asks for nothing"
    assert at_none(many, scaling=a_zero_scaling(up={"groups": 1})).limited_by == "UpRate"
    assert at_none(many, scaling=a_zero_scaling(max=1)).limited_by == "Max"


def test_the_first_group_waits_for_no_stabilisation_and_no_rate() -> None:
    scaling = a_zero_scaling(up={"groups": 1, "periodSeconds": 3600, "stabilizationSeconds": 600})

    assert at_none(asked(HELD), knowing(began_s=BEGAN_S, at_s=BEGAN_S).noted(1), scaling).desired == 1


def test_none_comes_while_nobody_asks_however_many_requests_others_have() -> None:
    decision = at_none(asked(says(), says(running=3.0, idle_s=0.0)))

    assert (decision.desired, decision.cause, decision.limited_by) == (0, "Idle", None)
    assert (decision.least, decision.most) == (0, 20)


def test_a_budget_of_others_is_not_broken_into_for_the_first_group_either() -> None:
    decision = at_none(asked(HELD), namespace_gpus_left=3, gpus_per_group=4)

    assert (decision.desired, decision.wanted, decision.limited_by) == (0, 1, "NamespaceGPUBudget")
    assert at_none(asked(HELD), namespace_gpus_left=4, gpus_per_group=4).desired == 1


def test_a_window_brings_its_groups_and_keeps_them() -> None:
    opened = {"name": "day", "cron": "0 0 * * *", "duration": "1h", "min": 2}
    front = Front({"gw": AGateway(BEGAN_S - 86_400.0)})
    story = a_story(front, groups=0, scaling=a_zero_scaling(schedules=[opened]))

    story.run(3500.0, front.seen)
    assert story.moves == [(0, 2)]
    assert story.last is not None
    assert (story.last.least, story.last.limited_by) == (2, "Min")

    story.run(1200.0, front.seen)
    assert story.moves == [(0, 2), (2, 1), (1, 0)]


def test_0_stays_0_where_min_is_not_0_whatever_is_held() -> None:
    assert at_none(asked(HELD), scaling=a_scaling()).desired == 0


@pytest.mark.parametrize(
    ("found", "limit", "words"),
    [
        (Asked(), "NoGateway", "no gateway runs"),
        (asked(None), "GatewayUnknown", "gateway gw0 does not say what it is asked"),
    ],
    ids=["none", "silent"],
)
def test_where_nobody_would_hear_of_a_request_for_long_one_group_comes(found: Asked, limit: str, words: str) -> None:
    story = a_story(Front(), groups=0)

    story.run(DEAF_S - PERIOD_S, with_asked(found))
    assert story.last is not None
    assert (story.groups, story.last.limited_by, story.last.message) == (0, limit, f"{words}; limited by {limit}")

    story.run(3 * PERIOD_S, with_asked(found))
    assert story.moves == [(0, 1)]

    story.run(20 * IDLE_AFTER_S, with_asked(found))
    assert (story.groups, story.last.limited_by) == (1, limit)


def test_a_gateway_that_has_no_clients_and_is_silent_brings_no_group() -> None:
    """One that never starts would hold a deployment at one group for ever."""
    broken = Asked((Gateway(name="gw0", said=says()), Gateway(name="gw1", is_ready=False)))

    assert a_story(Front(), groups=0).run(3 * DEAF_S, with_asked(broken)).moves == []


# -- to none


def test_the_last_group_goes_after_the_time_without_a_request() -> None:
    front = Front({"gw": AGateway(BEGAN_S - 86_400.0, last_s=BEGAN_S)})
    story = a_story(front)

    story.run(IDLE_AFTER_S, front.seen)
    assert story.moves == []
    assert story.last is not None
    assert (story.last.cause, story.last.limited_by, story.last.wanted) == ("Idle", "IdleAfter", 0)
    assert story.last.inputs["without a request, s"].value == IDLE_AFTER_S  # type: ignore[attr-defined]

    story.run(PERIOD_S, front.seen)
    assert story.moves == [(1, 0)]
    assert story.last.message == "no request for 125 s; the last group goes after 120 s without one"


def test_groups_above_the_first_go_as_ever_and_the_last_one_with_its_own_time() -> None:
    front = Front({"gw": AGateway(BEGAN_S - 86_400.0)})
    story = a_story(front, groups=3)

    story.run(290.0, front.seen)
    assert story.moves == []
    story.run(400.0, front.seen)
    assert story.moves == [(3, 2), (2, 1), (1, 0)]


@pytest.mark.parametrize(
    "busy", [{"held": 1.0}, {"running": 1.0}, {"idle_s": 5.0}, {"up_s": 60.0}], ids=lambda busy: next(iter(busy))
)
def test_it_stays_while_one_of_several_gateways_is_asked_something(busy: dict[str, float]) -> None:
    found = asked(says(), says(**busy), says())

    assert a_story(Front()).run(10 * IDLE_AFTER_S, with_asked(found)).moves == []


def test_it_stays_while_a_worker_has_requests_that_came_by_another_way() -> None:
    story = a_story(Front())

    story.run(600.0, lambda story: replace(a_fleet(1, 0.2, story.now_s), asked=asked(says())))

    assert story.moves == []


@pytest.mark.parametrize(
    ("found", "limit"),
    [(asked(says(), None), "GatewayUnknown"), (Asked(), "NoGateway"), (asked(says(held=nan)), "GatewayUnknown")],
)
def test_it_stays_while_a_gateway_is_not_known_and_that_is_said(found: Asked, limit: str) -> None:
    story = a_story(Front()).run(10 * IDLE_AFTER_S, with_asked(found))

    assert story.moves == []
    assert story.last is not None
    assert story.last.limited_by == limit
    assert story.last.least == (1 if limit == "NoGateway" else 0)


def test_a_request_of_a_gateway_that_is_gone_counts_still() -> None:
    old, new = AGateway(BEGAN_S - 86_400.0, running=1.0), AGateway(BEGAN_S - 3600.0)
    front = Front({"old": old, "new": new})
    story = a_story(front).run(60.0, front.seen)

    del front.gateways["old"]
    story.run(IDLE_AFTER_S - PERIOD_S, front.seen)
    assert story.moves == []

    story.run(4 * PERIOD_S, front.seen)
    assert story.moves == [(1, 0)]


def test_a_gateway_that_goes_in_silence_may_have_been_asked_until_then() -> None:
    front = Front({"old": AGateway(BEGAN_S - 86_400.0), "new": AGateway(BEGAN_S - 3600.0)})
    front.gateways["old"].is_silent = True
    story = a_story(front).run(60.0, front.seen)

    del front.gateways["old"]
    story.run(IDLE_AFTER_S - PERIOD_S, front.seen)
    assert story.moves == []

    story.run(4 * PERIOD_S, front.seen)
    assert story.moves == [(1, 0)]


def test_it_stays_while_what_its_workers_do_is_not_known() -> None:
    story = a_story(Front()).run(1200.0, lambda story: replace(silence(story.serving), asked=asked(says())))

    assert story.moves == []
    assert story.last is not None
    assert story.last.limited_by == "MissingMetrics"


def test_it_stays_while_a_rollout_moves_it() -> None:
    story = a_story(Front()).run(1200.0, with_asked(asked(says())), is_moving=True)

    assert story.moves == []
    assert story.last is not None
    assert story.last.limited_by == "Rollout"


def test_none_goes_faster_than_so_many_a_period() -> None:
    scaling = a_zero_scaling(
        zero={"idleAfter": "10s"}, down={"groups": 1, "periodSeconds": 600, "stabilizationSeconds": 0}
    )
    story = Story(groups=2, scaling=scaling).run(300.0, with_asked(asked(says())))

    assert story.moves == [(2, 1)]
    assert story.last is not None
    assert story.last.limited_by == "DownRate"


# -- and back


def test_a_group_that_was_woken_serves_and_goes_after_the_time() -> None:
    front = Front({"gw": AGateway(BEGAN_S - 86_400.0)})
    story = a_story(front, groups=0).run(60.0, front.seen)
    front.gateways["gw"].held = 1.0
    story.run(PERIOD_S, front.seen)
    assert story.moves == [(0, 1)]

    story.run(story.start_s + 30.0, front.seen)
    assert front.gateways["gw"].running == 1.0
    front.gateways["gw"].running = 0.0
    story.run(IDLE_AFTER_S - PERIOD_S, front.seen)
    assert story.moves == [(0, 1)]
    story.run(2 * PERIOD_S, front.seen)
    assert story.moves == [(0, 1), (1, 0)]


def test_who_gives_up_before_the_group_serves_leaves_it_its_time_once_it_does() -> None:
    front = Front({"gw": AGateway(BEGAN_S - 86_400.0, held=1.0)})
    story = a_story(front, groups=0, start_s=600.0).run(PERIOD_S, front.seen)
    front.gateways["gw"].held = 0.0

    story.run(600.0, front.seen)
    assert story.moves == [(0, 1)]
    assert story.last is not None
    story.run(IDLE_AFTER_S - 2 * PERIOD_S, front.seen)
    assert story.moves == [(0, 1)]
    assert story.last.limited_by == "IdleAfter"
    story.run(3 * PERIOD_S, front.seen)
    assert story.moves == [(0, 1), (1, 0)]


def test_a_start_that_fails_is_neither_taken_back_nor_repeated() -> None:
    front = Front({"gw": AGateway(BEGAN_S - 86_400.0, held=3.0)})
    story = a_story(front, groups=0, start_s=1e9).run(600.0, front.seen)
    front.gateways["gw"].held = 0.0

    story.run(7200.0, front.seen)

    assert story.moves == [(0, 1)]
    assert story.last is not None
    assert story.last.limited_by == "Starting"


def test_a_request_that_comes_as_the_last_group_goes_brings_one_back() -> None:
    front = Front({"gw": AGateway(BEGAN_S - 86_400.0, last_s=BEGAN_S)})
    story = a_story(front).run(IDLE_AFTER_S + PERIOD_S, front.seen)
    assert story.moves == [(1, 0)]

    front.gateways["gw"].held = 1.0
    story.run(PERIOD_S, front.seen)
    assert story.moves == [(1, 0), (0, 1)]


def test_a_number_set_to_0_by_hand_is_woken_by_who_asks() -> None:
    front = Front({"gw": AGateway(BEGAN_S - 86_400.0, last_s=BEGAN_S)})
    story = a_story(front, groups=2).run(30.0, front.seen)
    story.groups = story.serving = 0
    story.run(60.0, front.seen)
    assert story.groups == 0

    front.gateways["gw"].held = 1.0
    story.run(PERIOD_S, front.seen)
    assert story.groups == 1


def test_observing_says_what_it_would_do_again_and_again() -> None:
    memory, told = knowing(), []
    for place in range(60):
        at_s = BEGAN_S + PERIOD_S * place
        signals = replace(of(*a_fleet(1, 0.0, at_s, requests_running=0.0).groups.values()), asked=asked(says()))
        decision, memory = decide(a_zero_scaling(), NO_SLO, a_situation(1), signals, memory, at_s)
        told.append(decision.desired)

    assert told == sorted(told, reverse=True)
    assert set(told) == {0, 1}


# -- laws, over whatever happens

NUMBERS = st.one_of(st.floats(), st.sampled_from([0.0, 1.0, -1.0, nan, inf, -inf, 1e308]))
ANY_SAID = st.one_of(
    st.none(),
    st.builds(
        Said,
        held=NUMBERS,
        running=NUMBERS,
        oldest_s=NUMBERS,
        idle_s=st.none() | NUMBERS,
        up_s=NUMBERS,
        held_tokens=st.none() | NUMBERS,
    ),
)
ANY_ASKED = st.lists(st.builds(Gateway, name=st.sampled_from("abc"), is_ready=st.booleans(), said=ANY_SAID)).map(
    lambda each: Asked(tuple(each))
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(ANY_ASKED, st.integers(0, 2), st.integers(0, 2), NUMBERS, st.booleans()), max_size=12),
    st.integers(1, 3),
)
def test_it_is_total_and_within_its_bounds_whatever_is_said(moments: list[Any], most: int) -> None:
    memory, now_s = Memory(), BEGAN_S
    for found, groups, serving, step_s, is_known in moments:
        now_s += step_s if abs(step_s) < 1e6 else 1.0
        fleet = a_fleet(1, 0.0, now_s, requests_running=0.0) if is_known else silence(serving)
        signals: Signals = replace(fleet, asked=found)
        decision, memory = decide(
            a_zero_scaling(max=most), NO_SLO, a_situation(groups, serving), signals, memory, now_s
        )
        assert 0 <= decision.desired <= max(most, groups)
        if decision.desired == 0 < groups:
            assert found.is_known
            assert not found.held
            assert not found.running
        if groups == 0 and found.held > 0.0:
            assert decision.desired >= 1, "within one look"
        if decision.desired != groups:
            memory = memory.noted(decision.desired)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "end", "give up", "silent", "speaks", "gone", "new", "breaks", "heals", "nothing"]),
        st.sampled_from(["a", "b"]),
        st.integers(1, 30),
    ),
    min_size=1,
    max_size=20,
)


def happen(what: str, name: str, front: Front, story: Story, start_s: float) -> None:
    """Let something happen at a gateway, or to the starts of groups."""
    gateway = front.gateways.get(name, AGateway(story.now_s))
    if what == "new":
        front.gateways.setdefault(name, gateway)
    elif what == "gone":
        front.gateways.pop(name, None)
    elif what in ("breaks", "heals"):
        story.start_s = 1e9 if what == "breaks" else start_s
    elif what in ("silent", "speaks"):
        gateway.is_silent = what == "silent"
    elif what == "ask":
        gateway.held += 1.0
    elif what == "end":
        gateway.running = 0.0
    elif what == "give up":
        gateway.held = 0.0


def is_asked(front: Front) -> bool:
    return any(each.held or each.running for each in front.gateways.values())


@settings(max_examples=80, deadline=None)
@example([("ask", "a", 1), ("silent", "a", 1), ("new", "b", 2), ("gone", "a", 22)], 5.0)
@given(EVENTS, st.sampled_from([5.0, 60.0, 400.0]))
def test_it_never_flaps_and_never_goes_while_somebody_may_be_asked_something(events: list[Any], start_s: float) -> None:
    front = Front({"a": AGateway(BEGAN_S - 86_400.0)})
    story = a_story(front, start_s=start_s)
    moved_s: list[tuple[float, bool]] = []  # and whether the last group went
    asked_s = BEGAN_S - 86_400.0
    for what, name, looks in events:
        happen(what, name, front, story, start_s)
        for _ in range(looks):
            before = story.groups
            story.run(PERIOD_S, front.seen)
            asked_s = story.now_s if is_asked(front) else asked_s
            if any(each.held and not each.is_silent for each in front.gateways.values()):
                assert story.groups >= 1, "within one look"
            if story.groups == 0 < before:
                assert front.gateways
                assert not any(each.is_silent for each in front.gateways.values())
                assert story.now_s - asked_s >= IDLE_AFTER_S - PERIOD_S
            if 0 in (before, story.groups) and before != story.groups:
                moved_s.append((story.now_s, story.groups == 0))
    for (earlier_s, _), (later_s, went) in pairwise(moved_s):
        assert not went or later_s - earlier_s >= IDLE_AFTER_S
