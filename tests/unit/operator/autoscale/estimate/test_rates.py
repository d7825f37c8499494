from dataclasses import replace

import pytest

from glm_operator.autoscale.estimate.rates import Rates, StepTime, learn
from unit.operator.autoscale.law_builders import ANSWER, BASE_S, EACH_S, PREFILL, PROMPT, a_group, idle, step_s


def learnt(*groups: object, rates: Rates = Rates(), elapsed_s: float = 5.0) -> Rates:  # noqa: B008  frozen
    return learn(rates, groups, elapsed_s)  # type: ignore[arg-type]


def steps(*batches: float) -> tuple[StepTime, ...]:
    return tuple(StepTime(place, batch, step_s(batch)) for place, batch in enumerate(batches))


def test_the_rate_of_prefill_is_tokens_over_busy_time_of_all_groups() -> None:
    fast = a_group("g0", prefill_tokens=3000.0, prefill_busy=0.1)
    slow = a_group("g1", prefill_tokens=1000.0, prefill_busy=0.3)

    assert learnt(fast, slow).prefill_tokens_per_s == pytest.approx(10_000.0)


def test_what_was_measured_is_kept_while_nothing_runs() -> None:
    before = learnt(a_group())

    after = learnt(idle(), rates=before, elapsed_s=100_000.0)

    assert after.prefill_tokens_per_s == before.prefill_tokens_per_s == pytest.approx(PREFILL)
    assert after.steps == before.steps
    assert after.kv_tokens == before.kv_tokens


def test_the_line_of_step_times_is_found_from_batches_of_several_sizes() -> None:
    line = Rates(steps=steps(1.0, 4.0, 32.0)).step_line(0.1)

    assert line is not None
    assert line.base_s == pytest.approx(BASE_S, rel=0.05)
    assert line.each_s == pytest.approx(EACH_S, rel=0.05)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_before_that_a_share_of_a_step_is_taken_to_grow_with_the_batch(share: float) -> None:
    line = Rates(steps=steps(4.0)).step_line(share)

    assert line is not None
    assert line.at(4.0) == pytest.approx(step_s(4.0))
    assert line.each_s * 4.0 == pytest.approx(share * step_s(4.0))


def test_steps_that_get_faster_with_the_batch_are_noise() -> None:
    noise = (StepTime(0, 1.0, 0.03), StepTime(4, 4.0, 0.02))

    line = Rates(steps=noise).step_line(0.1)

    assert line is not None
    assert line.each_s == 0.0


def test_a_new_revision_is_measured_anew() -> None:
    before = learnt(a_group())

    after = learnt(idle("g0"), rates=before)
    other = learnt(replace(idle("g0"), revision="r2"), rates=before)

    assert after.steps == before.steps
    assert other.steps == ()
    assert other.prefill_tokens_per_s is None


def test_lengths_are_tokens_over_requests() -> None:
    group = a_group()

    found = learnt(group)

    assert found.prompt_tokens == pytest.approx(PROMPT)
    assert found.answer_tokens == pytest.approx(ANSWER)


def test_the_length_of_an_answer_is_not_told_from_a_burst() -> None:
    """Tokens are generated and few requests have ended, so their quotient is no length."""
    burst = a_group(requests_ended=0.2, tokens_generated=400.0, running_rising=58.0 / 45.0)

    assert learnt(burst).answer_tokens is None
    assert learnt(burst, rates=Rates(answer_tokens=ANSWER, revisions=frozenset({"r1"}))).answer_tokens == pytest.approx(
        ANSWER, rel=0.1
    )


def test_requests_that_run_more_than_before_count_half() -> None:
    rising = a_group(requests_ended=1.0, tokens_generated=240.0, running_rising=0.4)

    assert learnt(rising).answer_tokens == pytest.approx(200.0)


@pytest.mark.parametrize("busy", [0.0, 0.001])
def test_a_rate_over_next_to_no_time_is_no_rate(busy: float) -> None:
    assert learnt(a_group(prefill_busy=busy)).prefill_tokens_per_s is None


def test_nothing_is_learnt_twice_from_one_moment() -> None:
    once = learnt(a_group("g0", 1.0))

    assert (
        learnt(a_group("g0", 2.0, prefill_busy=0.9), rates=once, elapsed_s=0.0).prefill_tokens_per_s
        == once.prefill_tokens_per_s
    )


def test_groups_that_warm_up_tell_how_long_answers_are_and_not_how_fast_a_group_is() -> None:
    """With a long warm-up most requests run in young groups. Left out, they looked like answers without end."""
    old = a_group("g0", 1.0, requests_ended=0.5, running_rising=-0.9)
    young = a_group("g1", 1.0, requests_ended=1.5, running_rising=0.9, prefill_busy=0.9)

    found = learn(Rates(answer_tokens=ANSWER, revisions=frozenset({"r1"})), [old], 60.0, [old, young])

    assert found.answer_tokens == pytest.approx(ANSWER)
    assert found.prefill_tokens_per_s == pytest.approx(PREFILL)


def test_a_group_that_does_not_tell_all_three_says_nothing_of_the_length_of_an_answer() -> None:
    whole, part = a_group("g0"), a_group("g1", tokens_generated=9_000.0, running_rising=None)

    assert learnt(whole, part).answer_tokens == pytest.approx(ANSWER)
