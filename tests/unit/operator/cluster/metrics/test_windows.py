"""What rises within windows, and which edges of a histogram count."""

from math import inf, nan

import pytest

from glm_operator.autoscale.series import Attained, Buckets
from glm_operator.cluster.metrics.windows import FINE_S, Edge, Outcome, Risen, Totals, attained, buckets, increase

KEPT = Outcome("chat", True)


def rising(totals: Totals, *, until_s: int, step_s: int = 10, since_s: int = 0) -> None:
    """Add one request a second."""
    for at_s in range(since_s, until_s + 1, step_s):
        totals.add(at_s, {KEPT: Risen(step_s if at_s > since_s else 0.0, 1)})


@pytest.mark.parametrize(("before", "value", "rise"), [(3, 5, 2), (5, 5, 0), (5, 2, 2), (5, 0, 0)])
def test_a_counter_that_fell_began_anew_at_zero(before: float, value: float, rise: float) -> None:
    assert increase(before, value) == rise


@pytest.mark.parametrize(("before", "value"), [(3, nan), (nan, nan), (3, inf), (inf, inf), (3, -1)])
def test_what_is_no_count_rises_by_nothing(before: float, value: float) -> None:
    assert increase(before, value) == 0


@pytest.mark.parametrize("window_s", [60, 300, 3600, 5 * 3600])
def test_a_window_has_what_rose_within_it(window_s: int) -> None:
    totals = Totals(30 * 86400.0)
    rising(totals, until_s=6 * 3600)
    risen, covered_s = totals.within(window_s)
    assert risen[KEPT].increase == pytest.approx(window_s, rel=0.05)
    assert covered_s == window_s


def test_a_window_that_reaches_back_further_than_what_was_seen_says_how_far() -> None:
    totals = Totals()
    rising(totals, until_s=100)
    risen, covered_s = totals.within(300.0)
    assert (risen[KEPT].increase, covered_s) == (100.0, 100.0)


def test_before_the_first_reading_nothing_is_known() -> None:
    assert Totals().within(60.0) == ({}, 0.0)


def test_days_of_readings_stay_few() -> None:
    totals = Totals(30 * 86400.0)
    rising(totals, until_s=12 * 86400, step_s=15)
    assert sum(len(level.readings) for level in totals._levels) < 700
    risen, covered_s = totals.within(10 * 86400.0)
    assert risen[KEPT].increase == pytest.approx(10 * 86400, rel=0.01)
    assert covered_s == 10 * 86400


def test_a_counter_that_nobody_has_any_more_is_forgotten_and_may_come_back() -> None:
    totals = Totals()
    rising(totals, until_s=100)
    for at_s in range(110, 110 + int(FINE_S) + 20, 10):
        totals.add(at_s, {})
    assert totals.within(60.0)[0] == {}
    assert totals._totals == {}
    totals.add(500, {KEPT: Risen(7.0, 1)})
    assert totals.within(60.0)[0] == {KEPT: Risen(7.0, 1)}


def histogram(**samples: float) -> dict[Edge, Risen]:
    """Return edges with 10, 20, ... requests up to them, and the samples that each has; `inf` is the last."""
    return {
        Edge("ttft", "chat", inf if name == "inf" else float(name.removeprefix("e")) / 10): Risen(10.0 * (i + 1), count)
        for i, (name, count) in enumerate(samples.items())
    }


def test_edges_are_in_order_with_infinity_last() -> None:
    assert buckets(dict(reversed(histogram(e1=4, e5=4, inf=4).items())), 60.0) == (
        Buckets("chat", "ttft", 60.0, ((0.1, 10.0), (0.5, 20.0), (inf, 30.0))),
    )


def test_an_edge_that_counted_for_a_part_of_the_window_is_left_out() -> None:
    assert buckets(histogram(e1=4, e2=1, e5=3, e9=4, inf=4), 60.0)[0].counts == ((0.1, 10.0), (0.9, 40.0), (inf, 50.0))


def test_a_histogram_without_infinity_is_none() -> None:
    assert buckets(histogram(e1=4), 60.0) == ()


def test_attained_adds_up_kept_and_broken_promises() -> None:
    rise = {Outcome("a", True): 8.0, Outcome("a", False): 2.0, Outcome("b", False): 1.0}
    assert attained(rise, 300.0, 300.0) == (Attained("a", 300.0, 10.0, 8.0), Attained("b", 300.0, 1.0, 0.0))
    assert attained(rise, 300.0, 120.0, ["b", "c"]) == (Attained("b", 300.0, 1.0, 0.0, covered_s=120.0),)
