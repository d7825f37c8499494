"""What another group is asked for is what the client has seen, and nobody is asked for ever."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_edge.frames import AnswerSoFar, Close, Fail, Idle, Open, Tokens
from glm_gateway.continuation.progress import Again, Bounds, GiveUp, GoOn, Progress

OPEN = Open(id="c1", created=7, seeds=[5, 6], status=200, headers=[], num_prompt_tokens=3, fingerprint="f")
CLOSE = Close(num_prompt_tokens=3, num_cached_tokens=0, num_reasoning_tokens=0, num_answer_tokens=2, reasons=["stop"])
LOST = Fail(status=503, message="m", type="t", code="group_lost", can_continue=True)
REFUSED = Fail(status=400, message="m", type="t", code="cannot_be_answered")


def progress(**bounds: float) -> Progress:
    return Progress(replace(Bounds(), **bounds), began_s=100.0)


def opened(**bounds: float) -> Progress:
    found = progress(**bounds)
    found.take(OPEN)
    return found


def test_a_request_of_which_nothing_was_said_is_asked_again() -> None:
    assert progress().lose(101.0) == Again()


def test_another_group_is_told_the_ids_the_ends_and_the_newest_state() -> None:
    found = opened()
    found.take(Tokens(ids=[(0, [1, 2])], state=b"one"))
    found.take(Idle())
    found.take(Tokens(ids=[(1, [9]), (0, [3])], ended=[(1, "stop")], state=b"two"))
    verdict = found.lose(101.0)
    assert isinstance(verdict, GoOn)
    assert verdict.continuation.answers == [AnswerSoFar(ids=[1, 2, 3]), AnswerSoFar(ids=[9], reason="stop")]
    assert (verdict.continuation.id, verdict.continuation.created, verdict.continuation.seeds) == ("c1", 7, [5, 6])
    assert (verdict.continuation.state, verdict.continuation.fingerprint) == (b"two", "f")


def test_a_reply_that_was_opened_keeps_its_id_though_no_token_was_written() -> None:
    verdict = opened().lose(101.0)
    assert isinstance(verdict, GoOn)
    assert verdict.continuation.id == "c1"
    assert verdict.continuation.answers == [AnswerSoFar(ids=[]), AnswerSoFar(ids=[])]


def test_what_a_later_group_opens_with_does_not_replace_the_first_opening() -> None:
    found = opened()
    found.lose(101.0)
    found.take(Open(id="c2", created=9, seeds=[1], status=200, headers=[], num_prompt_tokens=3, fingerprint="g"))
    assert found.opened == OPEN


def test_a_reply_is_taken_up_once_another_group_has_opened_it() -> None:
    found = opened(max_times=2)
    found.lose(101.0)
    assert (found.num_times, found.num_taken_up) == (1, 0)
    found.take(OPEN)
    assert (found.num_times, found.num_taken_up) == (1, 1)


def test_two_losses_at_the_same_token_are_the_end() -> None:
    found = opened(max_times=5)
    found.take(Tokens(ids=[(0, [1])]))
    assert isinstance(found.lose(101.0), GoOn)
    assert found.lose(102.0) == GiveUp("two groups were lost at the same token")


def test_a_loss_after_another_token_is_a_new_one_up_to_the_bound() -> None:
    found = opened(max_times=2)
    for moment in (101.0, 102.0):
        found.take(Tokens(ids=[(0, [1])]))
        assert isinstance(found.lose(moment), GoOn)
    found.take(Tokens(ids=[(0, [1])]))
    assert found.lose(103.0) == GiveUp("2 groups went on with it, and no more may")


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [
        ({"max_times": 0}, "continuation is off"),
        ({"max_tokens": 1}, "2 tokens were written; more than 1 are not kept"),
        ({"max_age_s": 0.5}, "the request is older than 0 s"),
    ],
)
def test_bounds_end_it_with_their_reason(bounds: dict[str, float], reason: str) -> None:
    found = opened(**bounds)
    found.take(Tokens(ids=[(0, [1, 2])]))
    assert found.lose(101.0) == GiveUp(reason)


def test_a_reply_that_ids_alone_do_not_tell_is_given_up() -> None:
    found = progress()
    found.take(
        Open(
            id="c",
            created=1,
            seeds=[1],
            status=200,
            headers=[],
            num_prompt_tokens=1,
            fingerprint="f",
            can_continue=False,
        )
    )
    assert isinstance(found.lose(101.0), GiveUp)


@pytest.mark.parametrize(
    ("meaning", "is_over"), [(CLOSE, True), (REFUSED, True), (LOST, False), (Tokens(ids=[]), False), (Idle(), False)]
)
def test_a_reply_is_over_with_its_end_or_an_error_that_stays(
    meaning: Close | Fail | Tokens | Idle, is_over: bool
) -> None:
    found = opened()
    found.take(meaning)
    assert found.is_over is is_over


@given(st.lists(st.lists(st.integers(0, 99), max_size=4), max_size=12), st.integers(0, 5))
def test_losses_are_bounded_and_ids_are_all_told_in_order(steps: list[list[int]], max_times: int) -> None:
    found = opened(max_times=max_times)
    told: list[int] = []
    for ids in steps:
        found.take(Tokens(ids=[(0, ids)]))
        told += ids
        verdict = found.lose(101.0)
        if isinstance(verdict, GoOn):
            assert verdict.continuation.answers[0].ids == told
        else:
            break
    assert found.num_times <= max_times
