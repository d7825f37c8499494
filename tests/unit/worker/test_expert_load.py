"""How evenly experts are used."""

import pytest

from glm_worker.server.metrics.expert_load import WINDOW_S, ExpertLoad


@pytest.mark.parametrize(
    ("reports", "ratio"),
    [
        ([], 1.0),
        ([[]], 1.0),
        ([[0, 0]], 1.0),
        ([[10, 10]], 1.0),
        ([[30, 10]], 1.5),
        ([[30, 10], [10, 30]], 1.0),
        ([[40, 0, 0, 0]], 4.0),
    ],
)
def test_it_is_the_busiest_rank_against_the_mean(reports: list[list[int]], ratio: float) -> None:
    load = ExpertLoad()
    for tokens in reports:
        load.report(0.0, tokens)
    assert load.imbalance(0.0) == ratio


def test_only_the_last_minute_counts() -> None:
    load = ExpertLoad()
    load.report(0.0, [30, 10])
    load.report(1.0, [20, 20])
    assert load.imbalance(1.0) == 1.25
    assert load.imbalance(WINDOW_S + 0.5) == 1.0
    assert load.imbalance(WINDOW_S + 1.5) == 1.0


def test_another_generation_may_have_another_number_of_ranks() -> None:
    load = ExpertLoad()
    load.report(0.0, [30, 10])
    load.restart()
    load.report(1.0, [10, 10, 10, 30])
    assert load.imbalance(1.0) == 2.0
