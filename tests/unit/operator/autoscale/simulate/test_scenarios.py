from collections.abc import Callable

import pytest

from glm_operator.autoscale.simulate.scenarios import code, diurnal, leak, ramp, scenarios, spike, steady
from glm_operator.autoscale.simulate.trace import Arrival

TRACE = tuple(Arrival(float(i), 2000, 20) for i in range(100))


def rate(arrivals: tuple[Arrival, ...], begin_s: float, end_s: float) -> float:
    return sum(begin_s <= each.at_s < end_s for each in arrivals) / (end_s - begin_s)


def test_the_same_name_gives_the_same_requests() -> None:
    assert ramp() == ramp()


@pytest.mark.parametrize(
    ("load", "spans"),
    [
        (ramp, [(0, 300, 2), (1500, 2100, 10), (3000, 3900, 1)]),
        (spike, [(0, 1200, 2), (1210, 1800, 10), (1810, 3600, 2)]),
        (diurnal, [(0, 300, 1), (3450, 3750, 7)]),
        (steady, [(0, 1800, 4), (1800, 3600, 4)]),
    ],
    ids=["ramp", "spike", "diurnal", "steady"],
)
def test_loads_arrive_as_they_say(load: Callable[[], tuple[Arrival, ...]], spans: list[tuple[int, int, float]]) -> None:
    arrivals = load()
    for begin_s, end_s, rps in spans:
        assert rate(arrivals, begin_s, end_s) == pytest.approx(rps, rel=0.15)


def test_the_mix_of_the_day_flips_to_thinking() -> None:
    day = diurnal()
    for half, share in ((day[: len(day) // 2], 0.15), (day[len(day) // 2 :], 0.75)):
        assert sum(each.is_thinking for each in half) / len(half) == pytest.approx(share, abs=0.05)


def test_prompts_leak_to_three_times_their_length() -> None:
    found = leak()
    first, last = found[:1000], found[-1000:]
    assert sum(a.prompt_tokens for a in last) / sum(a.prompt_tokens for a in first) == pytest.approx(2.8, abs=0.3)


def test_copies_of_the_code_trace_keep_its_requests() -> None:
    found = code(TRACE, copies=3)
    assert len(found) == 300
    assert [each.at_s for each in found] == sorted(each.at_s for each in found)


def test_every_load_and_every_fault_is_there_for_each_cold_start() -> None:
    names = [[each.name for each in scenarios(TRACE, cold_start_s)] for cold_start_s in (60, 300)]
    assert names[0] == names[1]
    assert {"ramp", "spike", "diurnal", "leak", "steady", "code"} < set(names[0])
    assert {"ramp, lost", "ramp, away", "ramp, frozen", "ramp, silent"} < set(names[0])
