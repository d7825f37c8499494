import math
import random
from dataclasses import replace

import pytest

from glm_operator.autoscale.estimate.trend import Arrivals, Rise, level, noted, rises, stepped, swell

NOW_S = 1000.0
PART_S = 30.0


def rise(points: list[tuple[float, float]], requests: float) -> Rise:
    """Return what the shorter parts show."""
    return rises(points, requests, NOW_S)[0]


def points(rate: object) -> list[tuple[float, float]]:
    times = [NOW_S - 180.0 + 5.0 * place for place in range(1, 37)]
    return [(at_s, rate(at_s)) for at_s in times]  # type: ignore[operator]


def test_a_ramp_has_its_slope() -> None:
    found = rise(points(lambda at_s: 10.0 + 0.1 * (at_s - NOW_S + 180.0)), 20.0)

    assert found.per_s == pytest.approx(0.1)
    assert found.after(60.0, 1e9) == pytest.approx(28.0 + 0.1 * (60.0 + 22.5), abs=0.5)


@pytest.mark.parametrize("step_at_s", [NOW_S - 170.0, NOW_S - 120.0, NOW_S - 90.0, NOW_S - 45.0, NOW_S - 5.0])
def test_a_step_has_no_slope(step_at_s: float) -> None:
    assert rise(points(lambda at_s: 2.0 if at_s < step_at_s else 10.0), 5.0).per_s == 0.0


def test_long_parts_show_a_slope_that_few_requests_hide_in_short_ones() -> None:
    slow = [(NOW_S - 360.0 + 5.0 * place, 1.0 + 0.01 * 5.0 * place) for place in range(1, 73)]

    short, long = rises(slow, 0.5, NOW_S)

    assert (short.per_s, long.per_s) == (0.0, pytest.approx(0.01))


def test_a_fall_has_no_slope() -> None:
    assert rise(points(lambda at_s: 10.0 - 0.05 * (at_s - NOW_S + 180.0)), 5.0) == Rise()


def test_noise_has_seldom_a_slope() -> None:
    draw = random.Random(7)
    found = [rise(points(lambda _: 4.0 * draw.gauss(1.0, 0.1)), 4.0).per_s for _ in range(200)]

    assert sum(each > 0.0 for each in found) <= 2


def test_a_slope_needs_its_whole_time() -> None:
    assert rise(points(lambda at_s: at_s)[-20:], 5.0) == Rise()


def test_one_part_that_stands_out_is_not_what_a_rise_has_come_to() -> None:
    """Half a minute with a third more requests than the minutes before ordered three groups that nobody needed."""
    ramp = rise(points(lambda at_s: 10.0 + 0.02 * (at_s - NOW_S + 180.0)), 10.0)
    fluke = rise(points(lambda at_s: (13.0 if at_s > NOW_S - 30.0 else 10.0) + 0.02 * (at_s - NOW_S + 180.0)), 10.0)

    assert fluke.after(300.0, 1e9) == pytest.approx(ramp.after(300.0, 1e9), rel=0.02)


def running(count: object, *, known: bool = True) -> tuple[Arrivals, ...]:
    """Return a minute of looks, at so many running requests by time."""
    times = [NOW_S - 60.0 + 5.0 * place for place in range(1, 13)]
    return tuple(Arrivals(at_s, 4.0, 4000.0, count(at_s) if known else None) for at_s in times)  # type: ignore[operator]


def test_requests_that_run_longer_than_before_grow_in_number() -> None:
    found = swell(running(lambda at_s: 200.0 + 3.0 * max(at_s - NOW_S + 30.0, 0.0)), NOW_S)

    assert found == pytest.approx(3.0, rel=0.1)


def test_groups_that_fill_up_after_one_went_are_no_growth() -> None:
    grown = running(lambda at_s: 200.0 + 3.0 * max(at_s - NOW_S + 30.0, 0.0))

    assert swell((replace(grown[0], groups=1), *grown[1:]), NOW_S) == 0.0


def test_a_group_that_went_and_came_back_within_a_minute_is_no_growth() -> None:
    """What ran in it ended with it and was asked for again: half of what runs."""

    def look(before_s: float) -> Arrivals:
        is_away = 15.0 < before_s <= 45.0
        return Arrivals(NOW_S - before_s, 4.0, 4000.0, 200.0 - 2.2 * before_s, 1 if is_away else 2)

    assert swell([look(50.0 - 5.0 * place) for place in range(11)], NOW_S) == 0.0


@pytest.mark.parametrize("grown", [-50.0, 0.0, 49.0])
def test_what_runs_differs_by_chance(grown: float) -> None:
    assert swell(running(lambda at_s: 200.0 + grown * (at_s > NOW_S - 25.0)), NOW_S) == 0.0


@pytest.mark.parametrize("seconds", [2.0, 5.0, 15.0, 40.0])
def test_a_steady_load_of_short_or_long_answers_seldom_grows(seconds: float) -> None:
    """With answers of 7 s a moment at which few ran ordered groups that nobody needed, four times an hour."""
    draw, mean, step_s = random.Random(7), 80.0, 5.0
    stay = math.exp(-step_s / seconds)
    history: tuple[Arrivals, ...] = ()
    count, found = round(mean), 0
    for place in range(2 * 720):
        come = mean * (1.0 - stay)
        count = sum(draw.random() < stay for _ in range(count)) + max(0, round(draw.gauss(come, math.sqrt(come))))
        history = noted(history, Arrivals(step_s * place, mean / seconds, 0.0, float(count), 3))
        found += swell(history, step_s * place) > 0.0

    assert found <= 4  # looks, of two hours


@pytest.mark.parametrize("history", [(), running(float, known=False), running(float)[:-1], running(float)[-3:]])
def test_what_is_not_known_at_both_ends_does_not_grow(history: tuple[Arrivals, ...]) -> None:
    assert swell(history, NOW_S) == 0.0


def test_growth_is_bounded() -> None:
    assert Rise(10.0, 1.0, PART_S).after(600.0, 20.0) == 20.0


def test_a_level_follows_a_change_at_once_and_noise_slowly() -> None:
    assert level(4.0, 20.0, 4.0, 5.0) == 20.0
    assert level(4.0, 0.0, 4.0, 5.0) == 0.0
    assert 4.0 < level(4.0, 4.5, 4.0, 5.0) < 4.1
    assert level(None, 4.5, 0.0, 5.0) == 4.5
    assert level(4.0, 4.5, 4.0, 0.0) == 4.0


@pytest.mark.parametrize(("lately", "expected"), [(10.0, 10.0), (5.0, 4.0), (1.0, 4.0)])
def test_the_newest_samples_count_where_they_stepped_up(lately: float, expected: float) -> None:
    assert stepped(4.0, lately, 4.0) == expected


def test_a_history_ends_with_now_and_is_bounded() -> None:
    history: tuple[Arrivals, ...] = ()
    for second in range(0, 3600, 5):
        history = noted(history, Arrivals(float(second), 1.0, 1000.0))

    assert history[-1].at_s == 3595.0
    assert len(history) == 72
