"""Who is refused is told when the line will have been done, from what was measured."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_gateway.ladder.throughput import UNKNOWN_S, UNKNOWN_TOKENS, WINDOW_S, Throughput


def test_nothing_measured_is_not_known() -> None:
    assert Throughput().retry_after_s(5, 100.0) == UNKNOWN_S


def test_the_line_is_done_at_the_pace_of_the_last_minute() -> None:
    found = Throughput()
    for second in range(10):
        found.note(1000, float(second))
    found.end(2000)
    assert found.tokens_per_s(10.0) == 1000.0
    assert found.retry_after_s(9, 10.0) == 20  # ten requests of 2,000 tokens


def test_what_is_older_than_a_minute_counts_no_more() -> None:
    found = Throughput()
    found.note(1000, 0.0)
    assert found.tokens_per_s(WINDOW_S - 1) > 0
    assert found.tokens_per_s(WINDOW_S + 2) == 0.0


def test_requests_have_their_mean_and_it_follows() -> None:
    found = Throughput()
    assert found.mean_tokens == UNKNOWN_TOKENS
    found.end(100)
    found.end(300)
    found.end(0)  # nothing is known of it
    assert found.mean_tokens == 200.0


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(-5, 10**6)), max_size=50), st.integers(0, 10**6))
def test_the_answer_is_always_between_a_second_and_ten_minutes(
    notes: list[tuple[float, int]], num_waiting: int
) -> None:
    found, now = Throughput(), 0.0
    for pause, tokens in notes:
        now += pause
        found.note(tokens, now)
        found.end(tokens)
        assert 1 <= found.retry_after_s(num_waiting, now) <= 600


def test_a_single_bucket_is_no_infinite_speed() -> None:
    found = Throughput()
    found.note(50, 1.0)
    found.note(50, 1.0)
    assert found.tokens_per_s(1.0) == pytest.approx(100.0)
