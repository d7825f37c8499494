"""Retries help one request and never double the load of an outage."""

from hypothesis import given, settings
from hypothesis import strategies as st

from glm_gateway.routing.retries import LEAST, SHARE, WINDOW_S, RetryBudget


def test_a_quiet_gateway_has_a_few_retries() -> None:
    budget = RetryBudget()
    assert [budget.take(5.0) for _ in range(LEAST + 2)] == [True] * LEAST + [False] * 2


def test_a_busy_gateway_has_a_tenth_of_its_requests() -> None:
    budget = RetryBudget()
    for number in range(1000):
        budget.note_request(number / 200)
    assert sum(budget.take(5.0) for _ in range(500)) == 100


def test_retries_come_back_when_the_window_has_passed() -> None:
    budget = RetryBudget()
    assert all(budget.take(0.5) for _ in range(LEAST))
    assert not budget.take(0.5 + WINDOW_S)  # by whole seconds: rather late than too early
    assert budget.take(1.5 + WINDOW_S)


@settings(derandomize=True, max_examples=200)
@given(schedule=st.lists(st.tuples(st.floats(0, 4), st.integers(0, 60), st.integers(0, 8)), max_size=40))
def test_no_retry_makes_them_more_than_a_tenth_of_the_requests_of_the_last_ten_seconds(
    schedule: list[tuple[float, int, int]],
) -> None:
    budget, now = RetryBudget(), 0.0
    requests: list[float] = []
    retries: list[float] = []
    for later_s, asked, failed in schedule:
        now += later_s
        for _ in range(asked):
            budget.note_request(now)
            requests.append(now)
        for _ in range(failed):
            if budget.take(now):
                retries.append(now)
                recent = sum(now - each < WINDOW_S for each in retries)
                assert recent <= max(LEAST, SHARE * sum(now - each < WINDOW_S for each in requests))
    assert len(budget._buckets) <= WINDOW_S + 2
