"""Overload takes from thoughts first, then from patience, then from the least urgent, and gives back in turn."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_gateway.ladder.ladder import Ladder, Rung, Steps, Waiting, pressure, retry_after_s, shed_for
from glm_gateway.routing.classes import Place


@pytest.mark.parametrize(
    ("at", "rung"),
    [
        (0.0, Rung.NONE),
        (0.99, Rung.NONE),
        (1.0, Rung.SHORT_THOUGHTS),
        (1.5, Rung.NO_THOUGHTS),
        (2.0, Rung.IN_TURN),
        (4.0, Rung.SHED),
        (math.inf, Rung.SHED),
    ],
)
def test_each_pressure_has_its_rung_and_it_is_climbed_at_once(at: float, rung: Rung) -> None:
    assert Ladder().look(at, 0.0) is rung


def test_a_rung_is_left_after_a_calm_time_one_after_the_other() -> None:
    ladder = Ladder(Steps(calm_s=10))
    ladder.look(9.0, 0.0)
    assert ladder.look(0.0, 1.0) is Rung.SHED
    assert ladder.look(0.0, 10.9) is Rung.SHED
    assert ladder.look(0.0, 11.0) is Rung.IN_TURN
    assert ladder.look(0.0, 12.0) is Rung.IN_TURN
    assert ladder.look(0.0, 21.0) is Rung.NO_THOUGHTS


def test_a_calm_that_is_broken_begins_anew() -> None:
    ladder = Ladder(Steps(calm_s=10))
    ladder.look(1.2, 0.0)
    ladder.look(0.5, 1.0)
    ladder.look(1.2, 9.0)
    assert ladder.look(0.5, 12.0) is Rung.SHORT_THOUGHTS
    assert ladder.look(0.5, 22.0) is Rung.NONE


def test_a_pressure_that_is_no_number_changes_nothing() -> None:
    ladder = Ladder()
    ladder.look(2.0, 0.0)
    assert ladder.look(math.nan, 100.0) is Rung.IN_TURN


def test_the_request_that_is_worst_off_is_the_pressure() -> None:
    assert pressure([Waiting(2.0, 1.0), Waiting(30.0, 60.0)]) == 2.0
    assert pressure([]) == 0.0
    assert pressure([Waiting(5.0, 0.0)]) == 0.0


def place(class_priority: int = 0, priority: int = 0, number: int = 0) -> Place:
    return Place(class_priority, priority, math.inf, float(number), number)


def test_nobody_is_shed_where_nobody_waits() -> None:
    assert shed_for(place(9), []) is None


def test_of_equals_the_newcomer_is_shed() -> None:
    newcomer = place(number=2)
    assert shed_for(newcomer, [place(number=1)]) is newcomer


def test_who_waits_gives_way_to_who_is_ahead_of_it() -> None:
    first, last = place(5, number=1), place(5, number=2)
    assert shed_for(place(1, number=3), [first, last, place(0, number=0)]) is last
    assert shed_for(place(5, number=3), [first, place(5, 1, number=2)]) == place(5, 1, number=2)


def test_by_its_own_word_a_request_pushes_nobody_out() -> None:
    newcomer = place(5, -(2**31), number=3)
    assert shed_for(newcomer, [place(5, number=1), place(5, number=2)]) is newcomer


places = st.builds(place, st.integers(-3, 3), st.integers(-3, 3), st.integers(0, 10**6))


@given(places, st.lists(places, max_size=20))
def test_nobody_is_shed_before_somebody_of_a_lower_priority(newcomer: Place, waiting: list[Place]) -> None:
    shed = shed_for(newcomer, waiting)
    if not waiting:
        assert shed is None
        return
    assert shed is not None
    assert all(each.class_priority <= shed.class_priority for each in (newcomer, *waiting))
    if shed is not newcomer:
        assert any(shed is each for each in waiting)
        assert (shed.class_priority, max(0, shed.priority)) > (newcomer.class_priority, max(0, newcomer.priority))


@given(st.lists(st.floats(0, 10), min_size=1, max_size=200), st.floats(0.05, 2.0))
def test_the_ladder_never_flaps(seen: list[float], pause: float) -> None:
    """Between a step up and the next step down there is always a calm time, and between two steps down as well."""
    ladder, now, before, changed_s = Ladder(Steps(calm_s=5)), 0.0, Rung.NONE, -math.inf
    for each in seen:
        now += pause
        rung = ladder.look(each, now)
        if rung < before:
            assert now - changed_s >= 5
        if rung is not before:
            changed_s = now
        before = rung


@pytest.mark.parametrize(
    ("tokens", "per_s", "seconds"),
    [
        (0, 100.0, 1),
        (250, 100.0, 3),
        (10**9, 1.0, 600),
        (5, 0.0, 600),
        (5, math.nan, 600),
        (5, math.inf, 1),
        (5, -1.0, 600),
    ],
)
def test_who_is_sent_away_comes_back_when_the_queue_is_done(tokens: int, per_s: float, seconds: int) -> None:
    assert retry_after_s(tokens, per_s) == seconds


@given(st.lists(st.tuples(st.floats(0, 20), st.floats(0, 6)), max_size=60))
def test_every_request_of_equal_rank_is_treated_alike_and_steps_down_are_single(
    looks: list[tuple[float, float]],
) -> None:
    ladder, now, before = Ladder(), 0.0, Rung.NONE
    for pause, seen in looks:
        now += pause
        rung = ladder.look(seen, now)
        assert rung >= ladder.steps.rung_at(seen)  # never milder than the moment asks for
        assert before - rung <= 1
        before = rung
