"""The budget of a thought, held against answers made with it and read back plainly."""

import msgspec
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from glm_worker.engine.sampling.thought import ThoughtBudget, forced_id
from glm_worker.request import Thought

OPEN, CLOSE, NEWLINE, WORD, OTHER, EOS = 1, 2, 3, 4, 5, 6


def a_thought(max_tokens: int, *, begins_open: bool = True, forced: tuple[int, ...] = (NEWLINE, CLOSE)) -> Thought:
    return Thought(
        open_id=OPEN, close_id=CLOSE, begins_open=begins_open, max_tokens=max_tokens, forced_ids=list(forced)
    )


def an_answer(thought: Thought, wanted: list[int]) -> tuple[list[int], list[bool]]:
    """Return what comes out when a model wants these tokens, and which of it was forced."""
    budget, answer, was_forced = ThoughtBudget(thought), [], []
    for token_id in wanted:
        forced = budget.forced_id
        answer.append(token_id if forced is None else forced)
        was_forced.append(forced is not None)
        budget.take(answer[-1])
    return answer, was_forced


thoughts = st.builds(
    a_thought,
    st.integers(0, 6),
    begins_open=st.booleans(),
    forced=st.sampled_from([(CLOSE,), (NEWLINE, CLOSE), (WORD, OTHER, NEWLINE, CLOSE), (OPEN, CLOSE)]),
)
wishes = st.lists(st.sampled_from([OPEN, CLOSE, NEWLINE, WORD, WORD, WORD, OTHER, EOS]), max_size=30)


@given(thoughts, wishes)
@settings(max_examples=500, deadline=None, derandomize=True)
def test_at_every_split_point_the_tokens_alone_say_what_is_forced(thought: Thought, wanted: list[int]) -> None:
    answer, was_forced = an_answer(thought, wanted)
    for n in range(len(answer)):
        assert forced_id(thought, answer[:n]) == (answer[n] if was_forced[n] else None)


@given(thoughts, wishes)
@settings(max_examples=500, deadline=None, derandomize=True)
def test_all_thoughts_together_keep_the_budget_and_are_closed_by_the_forced_tokens_only(
    thought: Thought, wanted: list[int]
) -> None:
    answer, was_forced = an_answer(thought, wanted)
    is_open, num_inside, place = thought.begins_open, 0, 0
    while place < len(answer):
        if is_open and num_inside == thought.max_tokens:
            event("forced")
            run = answer[place : place + len(thought.forced_ids)]
            assert run == thought.forced_ids[: len(run)]
            assert all(was_forced[place : place + len(run)])
            is_open, place = False, place + len(run)
            continue
        assert not was_forced[place]
        token_id = answer[place]
        assert token_id == wanted[place]
        if token_id in (OPEN, CLOSE):
            is_open = token_id == OPEN
        elif is_open:
            num_inside += 1
        place += 1
    assert num_inside <= thought.max_tokens


def test_without_a_thought_nothing_is_forced() -> None:
    assert an_answer(a_thought(0, begins_open=False), [WORD, CLOSE, EOS]) == ([WORD, CLOSE, EOS], [False] * 3)


@pytest.mark.parametrize("forced", [(CLOSE,), (NEWLINE, CLOSE)])
def test_a_budget_of_nothing_closes_at_once(forced: tuple[int, ...]) -> None:
    answer, _ = an_answer(a_thought(0, forced=forced), [WORD] * 4)
    assert answer == [*forced, *[WORD] * (4 - len(forced))]


def test_a_thought_closed_at_exactly_its_budget_is_closed_by_force_all_the_same() -> None:
    """The model would have closed it too, but what comes after max_tokens tokens is not asked of the model."""
    answer, was_forced = an_answer(a_thought(2), [WORD, WORD, CLOSE, OTHER, OTHER])
    assert answer == [WORD, WORD, NEWLINE, CLOSE, OTHER]
    assert was_forced == [False, False, True, True, False]


def test_a_thought_closed_before_its_budget_is_left_alone() -> None:
    assert an_answer(a_thought(2), [WORD, CLOSE, WORD, WORD, WORD])[0] == [WORD, CLOSE, WORD, WORD, WORD]


def test_several_thoughts_share_the_budget_and_one_opened_after_it_is_closed_at_once() -> None:
    wanted = [WORD, CLOSE, OTHER, OPEN, WORD, WORD, WORD, WORD, OPEN, WORD, WORD, WORD]
    answer, _ = an_answer(a_thought(3), wanted)
    assert answer == [WORD, CLOSE, OTHER, OPEN, WORD, WORD, NEWLINE, CLOSE, OPEN, NEWLINE, CLOSE, WORD]


def test_a_stop_token_inside_a_thought_is_the_models_own() -> None:
    assert an_answer(a_thought(3), [WORD, EOS])[1] == [False, False]


def test_tags_inside_of_the_forced_tokens_open_and_close_nothing() -> None:
    answer, _ = an_answer(a_thought(1, forced=(OPEN, WORD, CLOSE)), [WORD] * 6)
    assert answer == [WORD, OPEN, WORD, CLOSE, WORD, WORD]


@given(thoughts, wishes, st.integers(0, 6))
@settings(max_examples=500, deadline=None, derandomize=True)
def test_an_answer_that_began_under_a_larger_budget_is_closed_at_once_and_not_before(
    thought: Thought, wanted: list[int], less: int
) -> None:
    begun, was_forced = an_answer(thought, wanted)
    if any(was_forced) or CLOSE in thought.forced_ids[:-1] or OPEN in thought.forced_ids:
        return  # it was being closed, or its own tokens look like forced ones
    is_open, num_used = thought.begins_open, 0
    for token_id in begun:
        is_open = token_id == OPEN or (is_open and token_id != CLOSE)
        num_used += is_open and token_id != OPEN
    smaller = msgspec.structs.replace(thought, max_tokens=less)
    due = forced_id(smaller, begun)
    assert (due is not None) == (is_open and num_used >= less)
