import pytest

from glm_operator.autoscale.constants import MAX_STEP_S, WRITE_LAG_S
from glm_operator.autoscale.memory import Memory, Move, hold, most_within, say


def after_a_decision(spec: int = 2, desired: int = 3, at_s: float = 1000.0) -> Memory:
    return Memory(at_s=at_s, began_s=0.0, spec_groups=spec, desired=desired, most=((990.0, 5),))


@pytest.mark.parametrize(("said", "within_s", "most"), [([5, 3, 4], 100.0, 5), ([5, 3, 4], 10.0, 4), ([2, 2], 6.0, 2)])
def test_the_most_of_a_time_is_what_held_within_it(said: list[int], within_s: float, most: int) -> None:
    found = ()
    for place, groups in enumerate(said):
        found = say(found, 50.0 * place, groups, 1000.0)

    assert most_within(found, 50.0 * (len(said) - 1) + 5.0, within_s) == most


def test_a_number_holds_while_nothing_is_known() -> None:
    assert most_within(hold(say((), 0.0, 7, 1e9), 500.0), 501.0, 10.0) == 7


def test_what_is_remembered_of_a_day_is_no_longer_than_the_numbers_that_differ() -> None:
    said = ()
    for second in range(0, 86_400, 50):
        said = say(said, float(second), 1 + second % 7, 1e9)

    assert len(said) <= 7


def test_a_number_that_we_wanted_is_ours() -> None:
    memory = after_a_decision().seen(3, 1005.0)

    assert memory.moves == (Move(1005.0, 1),)
    assert memory.most == ((990.0, 5),)


def test_another_number_is_somebody_elses_and_timers_begin_anew() -> None:
    memory = after_a_decision()

    assert memory.is_by_hand(7)
    assert not memory.is_by_hand(2)
    assert not memory.is_by_hand(3)
    assert (memory.seen(7, 1005.0).began_s, memory.seen(7, 1005.0).most) == (1005.0, ())


def test_a_write_that_is_not_seen_yet_is_nobody_elses() -> None:
    memory = after_a_decision().noted(3)

    assert not memory.is_by_hand(2)
    assert memory.seen(2, 1005.0).began_s == 0.0
    assert memory.moved_to(1000.0 + WRITE_LAG_S).is_by_hand(2) is False
    assert memory.moved_to(1001.0 + WRITE_LAG_S).is_by_hand(2) is True


def test_a_write_counts_once() -> None:
    memory = after_a_decision().noted(3).seen(3, 1005.0)

    assert memory.moved(1, 60.0, 1005.0) == 1
    assert memory.moved(1, 5.0, 1005.0) == 0
    assert memory.moved(-1, 60.0, 1005.0) == 0


@pytest.mark.parametrize(
    ("now_s", "counts_s"), [(1005.0, 5.0), (1000.0 + MAX_STEP_S, MAX_STEP_S), (1e9, MAX_STEP_S), (-1e9, 0.0)]
)
def test_a_jump_of_the_clock_moves_every_time_with_it(now_s: float, counts_s: float) -> None:
    memory = after_a_decision().moved_to(now_s)

    assert memory.at_s == now_s
    assert now_s - memory.most[0][0] == pytest.approx(10.0 + counts_s)
    assert memory.began_s is not None
    assert now_s - memory.began_s == pytest.approx(1000.0 + counts_s)
