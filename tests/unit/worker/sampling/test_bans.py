"""Which tokens may not come next, against the definition."""

from hypothesis import given, settings
from hypothesis import strategies as st

from glm_worker.engine.sampling.bans import Bans
from glm_worker.request import EngineRequest

VOCAB_SIZE = 6


def a_request(
    bad_words: list[list[int]], *, min_tokens: int = 0, stop_token_ids: tuple[int, ...] = ()
) -> EngineRequest:
    return EngineRequest(
        request_id="a",
        prompt_token_ids=[0],
        max_tokens=9,
        stop_token_ids=list(stop_token_ids),
        bad_words=bad_words,
        min_tokens=min_tokens,
    )


token_ids = st.integers(0, VOCAB_SIZE - 1)


@given(st.lists(st.lists(token_ids, min_size=1, max_size=4), max_size=5), st.lists(token_ids, min_size=1, max_size=8))
@settings(max_examples=500, deadline=None, derandomize=True)
def test_exactly_the_tokens_that_complete_a_bad_word_are_banned(words: list[list[int]], tokens: list[int]) -> None:
    completing = {i for i in range(VOCAB_SIZE) if any([*tokens, i][-len(word) :] == word for word in words)}
    assert set(Bans(a_request(words), VOCAB_SIZE).banned(tokens, 0)) == completing


def test_stop_tokens_are_banned_until_min_tokens_were_generated() -> None:
    bans = Bans(a_request([], min_tokens=2, stop_token_ids=(3, 5)), VOCAB_SIZE)
    assert [set(bans.banned([0], n)) for n in range(4)] == [{3, 5}, {3, 5}, set(), set()]


def test_stop_tokens_that_the_vocabulary_lacks_are_left_out() -> None:
    assert Bans(a_request([], min_tokens=1, stop_token_ids=(3, 99)), VOCAB_SIZE).banned([0], 0) == [3]
