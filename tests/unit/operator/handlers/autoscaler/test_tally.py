"""What became of decisions."""

from glm_operator.handlers.autoscaler.tally import Tally
from unit.operator.measured_builders import NOW_S, a_decision

HOUR_S = 3600.0


def test_the_last_ten_changes_are_kept_newest_first() -> None:
    tally = Tally()
    for number in range(12):
        tally.scale(a_decision(number + 1, number), NOW_S + number)
    assert [change.before for change in tally.changes] == list(range(11, 1, -1))
    assert all(change.is_done for change in tally.changes)


def test_what_an_observer_would_have_done_is_noted_once() -> None:
    tally = Tally()
    for desired in (2, 4, 4, 4, 2, 2, 4):
        tally.observe(a_decision(desired, 2), NOW_S)
    assert [(change.before, change.after, change.is_done) for change in tally.changes] == [(2, 4, False)] * 2
    assert tally.changes[0].message.startswith("observed, not done: ")


def test_decisions_are_counted_by_cause_and_direction() -> None:
    tally = Tally()
    for desired in (2, 2, 3, 1):
        tally.count(a_decision(desired, 2), NOW_S)
    assert tally.decided == {("Steady", "hold"): 2, ("Steady", "up"): 1, ("Steady", "down"): 1}


def test_the_peak_is_of_a_day() -> None:
    tally = Tally()
    tally.count(a_decision(7, 2), 0.0)
    tally.count(a_decision(3, 2), 20 * HOUR_S)
    assert tally.peak(20 * HOUR_S) == 7
    assert tally.peak(25 * HOUR_S) == 3
    assert tally.peak(90 * HOUR_S) == 0
