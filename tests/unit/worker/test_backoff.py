import pytest

from glm_worker.supervisor.backoff import backoff_s


@pytest.mark.parametrize(
    ("num_failures", "seconds"), [(0, 0), (1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (8, 60), (10_000, 60)]
)
def test_the_wait_doubles_from_the_base_to_the_maximum(num_failures: int, seconds: float) -> None:
    assert backoff_s(num_failures, 1.0, 60.0) == seconds


def test_a_maximum_below_the_base_wins() -> None:
    assert backoff_s(1, 5.0, 2.0) == 2.0
