from math import inf

import pytest

from glm_operator.autoscale.estimate.latency import burn, percentile, share_within, summed
from glm_operator.autoscale.series import Buckets

COUNTS = ((0.5, 10.0), (1.0, 50.0), (2.0, 90.0), (inf, 100.0))


@pytest.mark.parametrize(("per_cent", "seconds"), [(5, 0.25), (10, 0.5), (50, 1.0), (70, 1.5), (90, 2.0), (99, 2.0)])
def test_values_lie_evenly_within_a_bucket(per_cent: float, seconds: float) -> None:
    assert percentile(COUNTS, per_cent) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("threshold_s", "share"), [(0.5, 0.1), (1.0, 0.5), (1.5, 0.7), (2.0, 0.9), (2.0000000001, 0.9), (60.0, 0.9)]
)
def test_a_share_is_exact_at_an_edge(threshold_s: float, share: float) -> None:
    assert share_within(COUNTS, threshold_s) == pytest.approx(share)


def test_nothing_counted_has_no_percentile_and_no_share() -> None:
    empty = ((1.0, 0.0), (inf, 0.0))

    assert percentile(empty, 95) is None
    assert share_within(empty, 1.0) is None
    assert percentile((), 95) is None


def test_only_edges_that_every_histogram_has_are_added_up() -> None:
    first = Buckets("chat", "ttft", 60.0, ((1.0, 5.0), (2.0, 8.0), (inf, 9.0)))
    second = Buckets("chat", "ttft", 60.0, ((1.0, 1.0), (4.0, 2.0), (inf, 3.0)))

    assert summed([first, second], "chat", "ttft", 60.0) == [(1.0, 6.0), (inf, 12.0)]


@pytest.mark.parametrize(("met", "objective", "times"), [(0.99, 0.99, 1.0), (0.94, 0.99, 6.0), (1.0, 0.99, 0.0)])
def test_a_burn_of_1_ends_the_budget_with_the_window(met: float, objective: float, times: float) -> None:
    assert burn(met, objective) == pytest.approx(times)
