"""What waits at gateways more than before has arrived as well, and what waits less has arrived before."""

import pytest

from glm_operator.autoscale.constants import RECENT_S
from glm_operator.autoscale.estimate.held import Held, Rise, noted, rise
from glm_operator.autoscale.series import DEMAND_WINDOW_S
from unit.operator.autoscale.law_builders import BEGAN_S


def looks(*requests: float, every_s: float = 5.0) -> tuple[Held, ...]:
    """Return looks of which the last is at BEGAN_S; each request that waits has 100 tokens."""
    history: tuple[Held, ...] = ()
    for place, waiting in enumerate(requests):
        history = noted(history, Held(BEGAN_S - every_s * (len(requests) - 1 - place), waiting, 100.0 * waiting))
    return history


@pytest.mark.parametrize(
    ("requests", "rate"),
    [
        ((), 0.0),
        ((7.0,), 0.0),
        ((5.0, 5.0, 5.0, 5.0), 0.0),
        ((0.0, 10.0, 20.0, 30.0, 40.0), 2.0),
        ((40.0, 30.0, 20.0, 10.0, 0.0), -2.0),
    ],
)
def test_it_is_what_waits_more_a_second(requests: tuple[float, ...], rate: float) -> None:
    assert rise(looks(*requests), BEGAN_S) == Rise(rate, 100.0 * rate)


def test_two_looks_within_a_moment_are_no_rate_of_a_moment() -> None:
    assert rise(looks(0.0, 30.0, every_s=0.1), BEGAN_S).requests == 30.0 / RECENT_S


def test_looks_older_than_the_window_of_the_workers_count_no_more() -> None:
    history = looks(0.0, 45.0, every_s=DEMAND_WINDOW_S)
    assert rise(history, BEGAN_S).requests == 1.0
    assert rise(history, BEGAN_S + 1.0) == Rise()
    assert noted(history, Held(BEGAN_S + 1.0, 0.0, 0.0)) == (*history[1:], Held(BEGAN_S + 1.0, 0.0, 0.0))


def test_a_look_at_the_same_moment_takes_the_place_of_the_one_before() -> None:
    history = looks(0.0, 10.0)
    assert noted(history, Held(BEGAN_S, 3.0, 3.0)) == (history[0], Held(BEGAN_S, 3.0, 3.0))
