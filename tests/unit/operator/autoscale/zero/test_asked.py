from math import inf, nan

import pytest

from glm_operator.autoscale.zero.asked import Asked, Gateway
from glm_operator.autoscale.zero.idle import Idle
from unit.operator.autoscale.zero.zero_builders import asked, says


def test_what_several_are_asked_is_added_up_and_the_last_request_at_any_counts() -> None:
    found = asked(says(held=2.0, oldest_s=3.0, idle_s=0.0), says(running=1.0, idle_s=0.0), says(idle_s=40.0))

    assert (found.held, found.running, found.oldest_s, found.quiet_s) == (2.0, 1.0, 3.0, 0.0)
    assert asked(says(idle_s=40.0), says(up_s=90.0)).quiet_s == 40.0


def test_a_gateway_without_a_request_is_quiet_since_it_began() -> None:
    assert asked(says(idle_s=None, up_s=7.0)).quiet_s == 7.0


@pytest.mark.parametrize("field", ["held", "running", "oldest_s", "idle_s", "up_s"])
@pytest.mark.parametrize("number", [nan, inf, -1.0, 1e300])
def test_a_number_that_can_be_none_makes_a_gateway_unknown(field: str, number: float) -> None:
    found = asked(says(**{field: number}), says(held=1.0))

    assert (found.silent, found.is_known, found.held) == (("gw0",), False, 1.0)


def test_who_is_not_there_is_not_known_to_be_asked_nothing() -> None:
    assert (Asked().is_known, Asked().is_deaf, Asked().quiet_s) == (False, True, None)


def test_only_a_silent_gateway_with_clients_makes_a_deployment_deaf() -> None:
    assert Asked((Gateway(name="a", said=says()), Gateway(name="b"))).is_deaf
    assert not Asked((Gateway(name="a", said=says()), Gateway(name="b", is_ready=False))).is_deaf


def test_memory_keeps_the_last_request_of_who_is_gone_and_never_goes_back() -> None:
    idle = Idle().looked(asked(says(idle_s=10.0)), 1, 1, 100.0)
    assert idle.asked_s == 90.0

    assert idle.looked(Asked(), 1, 1, 110.0).asked_s == 90.0
    assert idle.looked(asked(says(idle_s=500.0)), 1, 1, 120.0).asked_s == 90.0
    assert idle.looked(asked(says(idle_s=5.0)), 1, 1, 130.0).asked_s == 125.0


def test_memory_begins_the_time_of_serving_anew_where_a_group_does_not() -> None:
    idle = Idle()
    told = []
    for at_s, groups, serving in [(0.0, 1, 1), (5.0, 1, 1), (10.0, 1, 0), (15.0, 1, 1), (20.0, 2, 1), (25.0, 0, 0)]:
        idle = idle.looked(Asked(), groups, serving, at_s)
        told.append(idle.serving_s)

    assert told == [0.0, 0.0, None, 15.0, None, None]


def test_a_clock_that_jumps_takes_every_time_with_it() -> None:
    idle = Idle(asked_s=1.0, serving_s=2.0, deaf_s=3.0)

    assert idle.moved_by(10.0) == Idle(asked_s=11.0, serving_s=12.0, deaf_s=13.0)
    assert Idle().moved_by(10.0) == Idle()
