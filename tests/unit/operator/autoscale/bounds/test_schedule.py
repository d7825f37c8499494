from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from glm_operator.api.scaling import Schedule
from glm_operator.autoscale.bounds.schedule import open_at


def a_schedule(cron: str = "0 8 * * *", duration: str = "2h", zone: str = "Europe/Berlin") -> Schedule:
    return Schedule.model_validate({"name": "day", "cron": cron, "duration": duration, "timeZone": zone, "min": 3})


def at(text: str, zone: str = "Europe/Berlin", fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def is_open(schedule: Schedule, at_s: float) -> bool:
    return open_at([schedule], at_s) == (schedule,)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("07:59:59", False), ("08:00:00", True), ("08:00:01", True), ("09:59:59", True), ("10:00:00", False)],
)
def test_a_window_is_open_from_its_minute_for_its_duration(text: str, expected: bool) -> None:
    assert is_open(a_schedule(), at(f"2026-06-03T{text}")) == expected


def test_the_clock_is_that_of_the_time_zone() -> None:
    schedule = a_schedule(zone="America/New_York")

    assert is_open(schedule, at("2026-06-03T08:30", "America/New_York"))
    assert not is_open(schedule, at("2026-06-03T08:30", "Europe/Berlin"))


@pytest.mark.parametrize("day", ["2026-03-28", "2026-03-29", "2026-03-30", "2026-10-24", "2026-10-25", "2026-10-26"])
def test_a_window_in_the_morning_keeps_its_local_time_when_clocks_change(day: str) -> None:
    assert not is_open(a_schedule(), at(f"{day}T07:59"))
    assert is_open(a_schedule(), at(f"{day}T08:00"))
    assert not is_open(a_schedule(), at(f"{day}T10:00"))


def test_a_time_that_clocks_skip_opens_the_window_at_the_next_that_exists() -> None:
    schedule = a_schedule("30 2 * * *", "1h")  # on 29 March 2:00 is 3:00

    assert not is_open(schedule, at("2026-03-29T01:59"))
    assert is_open(schedule, at("2026-03-29T03:00"))
    assert not is_open(schedule, at("2026-03-29T04:01"))


def test_a_time_that_comes_twice_opens_the_window_once() -> None:
    schedule = a_schedule("30 2 * * *", "30m")  # on 25 October 3:00 is 2:00

    assert is_open(schedule, at("2026-10-25T02:45", fold=0))
    assert not is_open(schedule, at("2026-10-25T02:45", fold=1))


def test_a_window_over_the_hour_that_comes_twice_lasts_as_long_as_a_stopwatch_says() -> None:
    schedule = a_schedule("30 2 * * *", "2h")

    assert is_open(schedule, at("2026-10-25T02:10", fold=1))
    assert is_open(schedule, at("2026-10-25T03:29"))
    assert not is_open(schedule, at("2026-10-25T03:30"))


def test_a_window_of_a_week_stays_open_over_days() -> None:
    schedule = a_schedule("0 0 * * MON", "7d")

    assert is_open(schedule, at("2026-06-07T23:59"))


def test_a_window_that_opens_every_minute_is_open() -> None:
    assert is_open(a_schedule("* * * * *", "1m"), at("2026-06-03T12:34:56"))
    assert is_open(a_schedule("* * * * *", "7d"), at("2026-06-03T12:34:56"))


@pytest.mark.parametrize("now_s", [-1e15, 0.0, 1e11, 1e18])
def test_a_time_that_no_calendar_has_opens_nothing(now_s: float) -> None:
    assert open_at([a_schedule("0 8 29 2 *")], now_s) == ()
