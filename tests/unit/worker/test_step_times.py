"""Whose time a step was."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_worker.engine.step_times import StepTimes

STEPS = st.lists(
    st.tuples(
        st.floats(min_value=0.0, max_value=100.0),
        st.integers(min_value=0, max_value=4096),
        st.integers(min_value=0, max_value=512),
    ),
    max_size=60,
)


def after(*decode_steps: tuple[int, float]) -> StepTimes:
    times = StepTimes()
    for rows, seconds in decode_steps:
        times.split(seconds, 0, rows)
    return times


def test_a_step_of_one_kind_is_its_own() -> None:
    times = after((1, 0.01), (8, 0.02))
    assert times.split(0.3, 100, 0) == (0.3, 0.0)
    assert times.split(0.3, 0, 5) == (0.0, 0.3)


def test_a_step_that_computed_nothing_is_nobodys_time() -> None:
    assert StepTimes().split(0.3, 0, 0) == (0.0, 0.0)


def test_before_any_decode_step_time_goes_by_tokens() -> None:
    assert StepTimes().split(1.0, 30, 10) == pytest.approx((0.75, 0.25))


def test_decode_rows_are_charged_what_they_take_alone() -> None:
    times = after(*[(rows, 0.010 + 0.002 * rows) for rows in (1, 2, 4, 8)])
    assert times.split(0.5, 200, 6) == pytest.approx((0.478, 0.022))


def test_a_mixed_step_shorter_than_its_rows_alone_is_all_decode() -> None:
    assert after((4, 0.1), (4, 0.1)).split(0.05, 200, 4) == (0.0, 0.05)


def test_steps_of_one_size_say_nothing_of_a_slope() -> None:
    assert after(*[(4, 0.1)] * 20).split(1.0, 200, 8) == pytest.approx((0.9, 0.1))


def test_more_rows_never_take_less() -> None:
    assert after((1, 0.2), (8, 0.1)).split(1.0, 100, 64)[1] >= 0.1


def test_no_step_is_cheaper_than_nothing() -> None:
    assert after((4, 0.01), (8, 0.1)).split(1.0, 100, 1)[1] > 0


def test_the_estimate_follows_what_steps_take_now() -> None:
    times, noise = StepTimes(), random.Random(1)
    for base_s in (0.010, 0.030):
        for _ in range(2000):
            rows = noise.randint(1, 32)
            times.split((base_s + 0.001 * rows) * noise.uniform(0.9, 1.1), 0, rows)
        assert times.split(1.0, 100, 16)[1] == pytest.approx(base_s + 0.016, rel=0.05)


@settings(deadline=None)  # a busy machine is no fault
@given(STEPS)
def test_the_two_times_are_never_negative_and_add_up_to_the_step(steps: list[tuple[float, int, int]]) -> None:
    times = StepTimes()
    for step_s, prefill_tokens, decode_rows in steps:
        prefill_s, decode_s = times.split(step_s, prefill_tokens, decode_rows)
        assert prefill_s >= 0
        assert decode_s >= 0
        if prefill_tokens or decode_rows:
            assert prefill_s + decode_s == pytest.approx(step_s)


def test_prompts_are_not_bounded_while_nobody_decodes_or_nothing_is_known() -> None:
    times = StepTimes()
    assert times.max_prefill_tokens(4) is None
    times.split(1.0, 1000, 0)
    assert times.max_prefill_tokens(4) is None  # how long a decode takes is not known
    times.split(0.02, 0, 4)
    assert times.max_prefill_tokens(0) is None
    assert times.max_prefill_tokens(4) is not None


def test_a_prompt_beside_decodes_gets_the_time_of_a_step_of_decodes() -> None:
    times = after((4, 0.020), (4, 0.020))
    times.split(0.1, 1000, 0)  # 0.1 ms a token, in small chunks twice that until it was seen
    assert times.max_prefill_tokens(4) == 96
    for _ in range(30):
        times.split(0.020 + 96 * 0.0001, 96, 4)
    assert times.max_prefill_tokens(4) == 192


def test_a_prompt_always_gets_on() -> None:
    times = after((1, 0.001))
    times.split(10.0, 10, 0)
    assert times.max_prefill_tokens(1) == 16


@pytest.mark.parametrize("token_s", [1e-5, 1e-4, 1e-3])
@pytest.mark.parametrize("rows", [1, 32])
def test_steps_with_a_long_prompt_take_twice_those_without_one(rows: int, token_s: float) -> None:
    """A device whose decode step takes 5 ms and 0.5 ms a row, and where a small chunk costs what its tokens cost."""
    decode_s = 0.005 + 0.0005 * rows
    times = after((rows, decode_s), (rows + 1, decode_s + 0.0005))
    times.split(512 * token_s, 512, 0)
    steps = []
    for _ in range(100):
        tokens = min(2048, times.max_prefill_tokens(rows) or 2048)
        steps.append(decode_s + tokens * token_s)
        times.split(steps[-1], tokens, rows)
    least_s = decode_s + 16 * token_s
    assert all(step_s <= max(2.001 * decode_s, 1.001 * least_s) for step_s in steps)
    assert token_s == 1e-3 or steps[-1] > 1.7 * decode_s


def test_where_a_chunk_costs_much_to_begin_with_it_has_tokens_enough_to_be_worth_it() -> None:
    """As where a chunk has all experts read: 16 tokens would take 16 ms, and 64 take 20 ms."""
    times = after((8, 0.017), (8, 0.017))
    times.split(0.015 + 512 * 0.0001, 512, 0)
    tokens = 0
    for _ in range(20):
        tokens = times.max_prefill_tokens(8) or 0
        times.split(0.017 + 0.015 + tokens * 0.0001, tokens, 8)
    assert tokens == 64


def test_a_step_that_was_measured_wrongly_lets_no_whole_prompt_in() -> None:
    times = after((4, 0.020), (4, 0.020))
    times.split(0.1, 1000, 0)
    for _ in range(10):
        times.split(0.020 + 96 * 0.0001, 96, 4)
    for _ in range(10):
        times.split(0.019, 96, 4)  # faster than the decodes alone
    assert (times.max_prefill_tokens(4) or 0) <= 192
