"""A group that fails is out for longer each time, one request at a time probes it, and never are most of them out."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_gateway.routing.ejection import FAILURES, FIRST_S, FORGIVEN_S, LONGEST_S, PROBE_S, Ejection

GROUPS = ["g0", "g1", "g2", "g3"]


def failing(group: str = "g0", now: float = 100.0, times: int = FAILURES) -> Ejection:
    ejection = Ejection()
    for _ in range(times):
        ejection.fail(group, now)
    return ejection


def is_in(ejection: Ejection, now: float, group: str = "g0") -> bool:
    return group in ejection.admitted(GROUPS, now)


def test_a_group_is_out_after_failures_in_a_row() -> None:
    assert is_in(failing(times=FAILURES - 1), 100.0)
    assert Ejection().admitted(GROUPS, 0.0) == GROUPS
    ejection = failing()
    assert ejection.admitted(GROUPS, 100.0) == ["g1", "g2", "g3"]
    assert ejection.num_out(GROUPS, 100.0) == 1


def test_a_success_between_failures_keeps_it_in() -> None:
    ejection = failing(times=FAILURES - 1)
    ejection.succeed("g0", 100.0)
    ejection.fail("g0", 100.0)
    assert is_in(ejection, 100.0)


def test_after_its_time_one_request_is_the_probe_and_no_other_goes_there_meanwhile() -> None:
    ejection, later = failing(), 100.0 + FIRST_S
    assert not is_in(ejection, later - 0.01)
    assert is_in(ejection, later)
    ejection.begin("g0", 1, later)
    assert not is_in(ejection, later + 1.0)
    ejection.succeed("g0", later + 2.0)
    assert is_in(ejection, later + 2.0)


def test_a_probe_that_fails_doubles_the_time_up_to_the_longest() -> None:
    ejection, now, times = failing(), 100.0, []
    for number in range(10):
        since = now
        while not is_in(ejection, now):
            now += FIRST_S / 2
        times.append(now - since)
        ejection.begin("g0", number, now)
        ejection.fail("g0", now)
    assert times == [min(LONGEST_S, FIRST_S * 2**number) for number in range(10)]


def test_a_probe_whose_client_goes_away_leaves_the_place_to_another_one() -> None:
    ejection, later = failing(), 100.0 + FIRST_S
    ejection.begin("g0", 1, later)
    ejection.drop("g0", 7)  # another request, from before it was out
    assert not is_in(ejection, later)
    ejection.drop("g0", 1)
    assert is_in(ejection, later)


def test_a_probe_that_nobody_reports_on_is_over_some_time() -> None:
    ejection, later = failing(), 100.0 + FIRST_S
    ejection.begin("g0", 1, later)
    assert not is_in(ejection, later + PROBE_S - 0.1)
    assert is_in(ejection, later + PROBE_S)


def test_failures_of_requests_from_before_do_not_make_the_time_longer() -> None:
    ejection = failing(times=FAILURES + 20)
    assert is_in(ejection, 100.0 + FIRST_S)


@pytest.mark.parametrize(("in_for_s", "next_s"), [(FORGIVEN_S, 2 * FIRST_S), (FORGIVEN_S + 1, FIRST_S)])
def test_a_group_that_soon_fails_again_is_out_for_longer(in_for_s: float, next_s: float) -> None:
    ejection = failing()
    ejection.succeed("g0", 110.0)
    for _ in range(FAILURES):
        ejection.fail("g0", 110.0 + in_for_s)
    assert not is_in(ejection, 110.0 + in_for_s + next_s - 0.01)
    assert is_in(ejection, 110.0 + in_for_s + next_s)


def test_when_most_fail_those_that_come_back_soonest_are_taken() -> None:
    ejection = Ejection()
    for place, group in enumerate(GROUPS):
        for _ in range(FAILURES):
            ejection.fail(group, 100.0 + place / 10)
    assert ejection.admitted(GROUPS, 100.3) == ["g0", "g1"]
    assert ejection.admitted(["g3"], 100.3) == ["g3"]
    ejection.succeed("g0", 100.4)
    assert ejection.admitted(GROUPS, 100.4) == ["g0", "g1"]


def test_a_group_that_works_or_is_gone_leaves_nothing_behind() -> None:
    ejection = failing(times=1)
    ejection.succeed("g0", 200.0)
    ejection.fail("g1", 200.0)
    ejection.forget("g1")
    assert ejection._records == {}


calls = st.tuples(st.sampled_from(["fail", "succeed", "drop", "pass"]), st.sampled_from(GROUPS), st.floats(0, 20))


@settings(derandomize=True, max_examples=300)
@given(schedule=st.lists(calls, max_size=80), num_groups=st.integers(1, 4))
def test_never_more_than_half_are_out_and_no_group_for_ever(
    schedule: list[tuple[str, str, float]], num_groups: int
) -> None:
    ejection, now, names = Ejection(), 0.0, GROUPS[:num_groups]
    probes: dict[str, int] = {}
    for number, (what, group, later_s) in enumerate(schedule):
        now += later_s
        admitted = ejection.admitted(names, now)
        assert len(names) - len(admitted) <= len(names) // 2
        assert admitted == [name for name in names if name in admitted]
        if what == "pass" and group in admitted:
            ejection.begin(group, number, now)
            probes[group] = number
        elif what == "fail":
            ejection.fail(group, now)
        elif what == "succeed":
            ejection.succeed(group, now)
            assert group not in names or group in ejection.admitted(names, now)
        elif what == "drop" and group in probes:
            ejection.drop(group, probes[group])
    assert ejection.admitted(names, now + LONGEST_S + PROBE_S) == names
