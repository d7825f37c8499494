"""How many deployments of the fleet adopt a newer rendering at once, and who is told when a place is free."""

from dataclasses import replace

import pytest

from glm_operator.observe.observed import Observed, Record
from glm_operator.reconcile.adoptions import Adoptions, Name, is_adopting

A, B, C = ("models", "a"), ("models", "b"), ("others", "c")


def adoptions(at_once: int = 1, *, begun: tuple[Name, ...] | None = (), woken: list[Name] | None = None) -> Adoptions:
    return Adoptions(at_once, lambda: begun, (woken if woken is not None else []).append)


def test_as_many_adopt_at_once_as_the_budget_has_places() -> None:
    fleet = adoptions(2)
    assert [fleet.begin(name) for name in (A, B, C)] == [True, True, False]


def test_who_has_a_place_keeps_it() -> None:
    fleet = adoptions()
    fleet.begin(A)
    fleet.note(A, adopts=True)
    assert (fleet.begin(A), fleet.begin(B)) == (True, False)


def test_who_waits_is_woken_when_a_place_is_free() -> None:
    woken: list[Name] = []
    fleet = adoptions(woken=woken)
    fleet.begin(A)
    fleet.begin(B)
    fleet.begin(C)
    fleet.note(B, adopts=False)
    assert woken == [], "nobody has finished"
    fleet.note(A, adopts=False)
    assert {B, C} == {*woken}
    assert [fleet.begin(name) for name in woken] == [True, False]


def test_who_is_told_once_is_not_told_again() -> None:
    woken: list[Name] = []
    fleet = adoptions(woken=woken)
    fleet.begin(A)
    fleet.begin(B)
    fleet.note(A, adopts=False)
    fleet.begin(B)
    fleet.note(B, adopts=False)
    assert woken == [B]


def test_those_of_an_earlier_operator_count() -> None:
    fleet = adoptions(2, begun=(A, B))
    assert (fleet.begin(C), fleet.begin(A)) == (False, True)


def test_nobody_begins_before_it_is_known_who_has_begun() -> None:
    assert not adoptions(begun=None).begin(A)


def test_what_those_that_wait_wait_for_is_told() -> None:
    fleet = adoptions(2, begun=(C, A))
    fleet.begin(B)
    assert fleet.waits_for() == "waits for the adoption of models/a, others/c (at most 2 at once)"


def a_record(**changes: bool) -> Record:
    return replace(Record("chat-abc", 1, {}, "new", replicas=1), **changes)


@pytest.mark.parametrize(
    ("observed", "adopts"),
    [
        (Observed(), False),
        (Observed(records=(a_record(),)), False),
        (Observed(records=(a_record(is_adopted=True, is_adopting=True),)), True),
        (Observed(records=(a_record(is_adopted=True),)), False),
    ],
    ids=["no record", "an edit", "under way", "done"],
)
def test_a_deployment_adopts_until_its_record_says_that_every_group_is_there(observed: Observed, adopts: bool) -> None:
    assert is_adopting(observed) is adopts
