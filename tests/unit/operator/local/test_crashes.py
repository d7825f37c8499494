"""When local mode starts a pod again that ended by itself."""

import pytest

from glm_operator.local.crashes import MAX_PAUSE_S, SERVED_S, Crash, Seen, looked, pause_s, resting


def dead(token: str) -> Seen:
    return Seen("g0-0", token, is_alive=False, serves=False)


def alive(token: str, *, serves: bool = True) -> Seen:
    return Seen("g0-0", token, is_alive=True, serves=serves)


def after(*deaths: str, now_s: float = 0.0) -> list[Crash]:
    """Return the crashes after processes with these tokens ended, one after the other."""
    crashes: list[Crash] = []
    for token in deaths:
        crashes = looked(crashes, [dead(token)], now_s)
    return crashes


@pytest.mark.parametrize(
    ("count", "seconds"), [(0, 0.0), (1, 0.0), (2, 2.0), (3, 4.0), (8, MAX_PAUSE_S), (10_000, MAX_PAUSE_S)]
)
def test_the_pause_doubles_up_to_a_bound(count: int, seconds: float) -> None:
    assert pause_s(count) == seconds


def test_a_pod_that_ends_for_the_first_time_is_started_at_once() -> None:
    assert resting(after("a", now_s=100.0), 100.0) == set()


def test_a_pod_that_ends_again_rests() -> None:
    crashes = after("a", "b", now_s=100.0)
    assert resting(crashes, 101.9) == {"g0-0"}
    assert resting(crashes, 102.0) == set()


def test_one_death_counts_once_however_often_it_is_looked_at() -> None:
    assert after("a", "a", "a", now_s=5.0) == after("a", now_s=5.0)
    assert [crash.count for crash in after("a", "b", "b")] == [2]


def test_a_pod_that_served_for_long_enough_is_well_again() -> None:
    crashes = looked(after("a", "b"), [alive("c")], 10.0)
    assert [crash.count for crash in looked(crashes, [alive("c")], 10.0 + SERVED_S - 0.1)] == [2]
    assert looked(crashes, [alive("c")], 10.0 + SERVED_S) == []


def test_a_break_begins_the_time_anew() -> None:
    crashes = looked(after("a", "b"), [alive("c")], 10.0)
    crashes = looked(crashes, [alive("c", serves=False)], 30.0)
    crashes = looked(crashes, [alive("c")], 40.0)
    assert looked(crashes, [alive("c")], 10.0 + SERVED_S) != []


def test_serving_for_a_moment_between_two_crashes_changes_nothing() -> None:
    crashes = looked(after("a", "b"), [alive("c")], 10.0)
    (crash,) = looked(crashes, [dead("c")], 20.0)
    assert (crash.count, crash.again_at, crash.serves_since) == (3, 24.0, None)


def test_a_pod_that_is_not_wanted_any_more_is_forgotten() -> None:
    assert looked(after("a", "b"), [], 1.0) == []


def test_a_pod_that_never_crashed_is_no_entry() -> None:
    assert looked([], [alive("a")], 1.0) == []
