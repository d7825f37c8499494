"""Who goes first: the class, then the request's own priority, then what is due first, then who came first."""

from math import inf, nan

import pytest

from glm_gateway.routing.classes import Classes, PriorityClass, place_of

BATCH = PriorityClass(name="batch", priority=10)
CHAT = PriorityClass(name="chat", priority=-1, promise_s=2.0)


def test_requests_of_no_class_or_an_unknown_one_are_default() -> None:
    classes = Classes([BATCH, CHAT])
    assert classes["batch"] is BATCH
    assert classes[None].name == classes[""].name == classes["nobody"].name == "default"
    assert [each.name for each in classes] == ["chat", "default", "batch"]


def test_default_can_be_given() -> None:
    mine = PriorityClass(name="default", priority=3, promise_s=5.0)
    assert Classes([mine])["other"] is mine


def test_a_promise_is_broken_by_a_longer_wait() -> None:
    assert (CHAT.is_late(2.0), CHAT.is_late(2.1), BATCH.is_late(1e9)) == (False, True, False)
    assert (CHAT.due_s(100.0), BATCH.due_s(100.0)) == (102.0, inf)


def test_the_order_of_those_that_wait() -> None:
    expected = [
        place_of(CHAT, arrived_s=9.0, number=9),
        place_of(BATCH, arrived_s=8.0, number=8, priority=-5),
        place_of(BATCH, arrived_s=7.0, number=7, deadline_s=1.0),
        place_of(BATCH, arrived_s=1.0, number=1),
        place_of(BATCH, arrived_s=1.0, number=2),
        place_of(BATCH, arrived_s=0.0, number=0, priority=1),
    ]
    turned = expected[::-1]
    assert sorted(turned) == expected


def test_a_request_is_due_at_its_own_deadline_or_by_its_class_what_comes_first() -> None:
    assert place_of(CHAT, arrived_s=1.0, number=1, deadline_s=0.5).due_s == 1.5
    assert place_of(CHAT, arrived_s=1.0, number=1, deadline_s=60.0).due_s == 3.0


@pytest.mark.parametrize("wrong", [{"promise_s": 0.0}, {"promise_s": nan}, {"promise_s": inf}, {"priority": 2**31}])
def test_what_is_no_promise_or_priority_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="of class x is"):
        PriorityClass(name="x", **wrong)  # type: ignore[arg-type]


def test_a_name_that_comes_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="class batch is there twice"):
        Classes([BATCH, BATCH])
