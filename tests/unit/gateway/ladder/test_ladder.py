"""Overload takes from thoughts first, then from patience, then from the least urgent, and gives back in turn."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_gateway.ladder.ladder import Ladder, Rung, Steps, is_shed, pressure, retry_after_s


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


def test_the_class_that_is_worst_off_is_the_pressure() -> None:
    assert pressure({"chat": 2.0, "batch": 30.0, "other": 99.0}, {"chat": 1.0, "batch": 60.0}) == 2.0
    assert pressure({}, {"chat": 1.0}) == 0.0
    assert pressure({"chat": 5.0}, {"chat": 0.0}) == 0.0


def test_only_who_is_less_urgent_than_somebody_who_waits_is_shed() -> None:
    assert is_shed(Rung.SHED, 5, [1, 9])
    assert not is_shed(Rung.SHED, 1, [1, 9])
    assert not is_shed(Rung.SHED, 1, [])
    assert not is_shed(Rung.IN_TURN, 5, [1])


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
