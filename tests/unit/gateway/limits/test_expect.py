"""What a request is expected to take follows what the key's answers had, within bounds that always hold."""

from hypothesis import given
from hypothesis import strategies as st

from glm_gateway.limits.expect import FEW, FIRST, FLOOR, UNKNOWN, Mean, Means, generated_tokens, usage_to_reserve
from glm_gateway.limits.tokens import PICO, Prices, Usage

CONTEXT = 8192
SAME = Prices(answer=PICO, thinking=PICO)

used = st.builds(Usage, prompt=st.integers(0, 9), answer=st.integers(0, 10**6), thinking=st.integers(0, 10**6))


def mean_of(*answers: Usage) -> Mean:
    mean = UNKNOWN
    for each in answers:
        mean = mean.after(each)
    return mean


def test_a_request_is_taken_at_its_word() -> None:
    assert generated_tokens(mean_of(Usage(answer=5)), 700, 100, CONTEXT) == 700


def test_a_key_that_is_not_known_is_expected_to_take_the_first_guess() -> None:
    assert generated_tokens(UNKNOWN, None, 100, CONTEXT) == FIRST


def test_a_known_key_is_expected_to_take_what_it_took_but_not_less_than_the_floor() -> None:
    assert generated_tokens(mean_of(Usage(answer=300), Usage(answer=100, thinking=400)), None, 100, CONTEXT) == 400
    assert generated_tokens(mean_of(Usage(answer=1)), None, 100, CONTEXT) == FLOOR


def test_nothing_is_expected_that_the_context_has_no_room_for() -> None:
    assert generated_tokens(UNKNOWN, None, CONTEXT - 10, CONTEXT) == 10
    assert generated_tokens(UNKNOWN, 10**9, 100, CONTEXT) == CONTEXT - 100


def test_a_caller_that_changes_is_followed() -> None:
    mean = mean_of(*[Usage(answer=1000)] * 1000, *[Usage(answer=200)] * (3 * FEW))
    assert 200 <= mean.tokens < 250


def test_thoughts_are_expected_in_the_part_that_they_had() -> None:
    found = usage_to_reserve(
        mean_of(Usage(answer=100, thinking=300)), prompt=7, max_tokens=None, context=CONTEXT, prices=SAME
    )
    assert found == Usage(prompt=7, answer=100, thinking=300)


def test_of_several_prompts_each_answer_may_have_the_room_of_a_context() -> None:
    found = usage_to_reserve(
        UNKNOWN, prompt=2 * CONTEXT, max_tokens=500, context=CONTEXT, num_answers=8, shares_context=False, prices=SAME
    )
    assert found == Usage(prompt=2 * CONTEXT, answer=8 * 500)


def test_where_one_kind_of_token_costs_more_all_is_reserved_as_that_one() -> None:
    dear_thoughts, dear_answers = Prices(answer=1, thinking=2), Prices(answer=2, thinking=1)
    for prices, wanted in ((dear_thoughts, Usage(thinking=50)), (dear_answers, Usage(answer=50))):
        assert usage_to_reserve(UNKNOWN, prompt=0, max_tokens=50, context=CONTEXT, prices=prices) == wanted


@given(st.lists(used, max_size=40), st.none() | st.integers(-5, 10**7), st.integers(0, 10**6), st.integers(0, 10**6))
def test_never_less_than_one_token_and_never_more_than_there_is_room_for(
    before: list[Usage], max_tokens: int | None, prompt: int, context: int
) -> None:
    tokens = generated_tokens(mean_of(*before), max_tokens, prompt, context)
    assert 1 <= tokens <= max(1, context - prompt)
    reserved = usage_to_reserve(
        mean_of(*before), prompt=prompt, max_tokens=max_tokens, context=context, num_answers=3, prices=SAME
    )
    assert min(reserved.answer, reserved.thinking) >= 0
    assert reserved.answer + reserved.thinking == 3 * tokens


@given(st.integers(1, 500), st.data(), st.integers(0, 9), st.integers(0, 9))
def test_no_split_of_what_is_generated_costs_more_than_was_reserved(
    most: int, data: st.DataObject, answer_price: int, thinking_price: int
) -> None:
    prices = Prices(prompt=5, cached=3, answer=answer_price * PICO, thinking=thinking_price * PICO)
    reserved = usage_to_reserve(UNKNOWN, prompt=50, max_tokens=most, context=CONTEXT, prices=prices)
    answer = data.draw(st.integers(0, most))
    taken = Usage(prompt=50, cached=20, answer=answer, thinking=data.draw(st.integers(0, most - answer)))
    assert prices.cost(taken) <= prices.cost(reserved)


@given(st.lists(used, min_size=1))
def test_a_mean_stays_within_what_was_seen(seen: list[Usage]) -> None:
    generated = [each.answer + each.thinking for each in seen]
    mean = mean_of(*seen)
    assert min(generated) - 1e-6 <= mean.tokens <= max(generated) + 1e-6
    assert -1e-9 <= mean.thinking <= 1 + 1e-9


def test_means_are_of_a_key_and_a_model_and_bounded() -> None:
    means = Means(most=2)
    means.note("a", "m", Usage(answer=10))
    means.note("a", "n", Usage(answer=20))
    means.note("a", "m", Usage(answer=30))
    means.note("b", "m", Usage(answer=40))
    assert means.of("a", "m").tokens == 20
    assert means.of("a", "n") == UNKNOWN
    assert means.of("b", "m").tokens == 40
