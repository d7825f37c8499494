"""Who belongs: which groups stay, which are new, which go."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from glm_operator.observe.observed import Observed, ObservedGroup
from glm_operator.rollout.membership import NODE_LOST, SCALED_DOWN, Membership, membership, needs_load
from unit.operator.operator_builders import a_group, a_pod, moving_to, observed

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def who(
    *groups: ObservedGroup, wanted: int = 1, tokens: dict[str, int] | None = None, num_pods: int = 1, **policy: Any
) -> Membership:
    target = moving_to(replicas=wanted, num_pods=num_pods, rollout=policy)
    return membership(target, observed(*groups), tokens or {}, NOW)


def gone(found: Membership) -> list[int]:
    return [leaver.group.index for leaver in found.leavers]


def unscheduled(index: int, *, num_pods: int = 1) -> ObservedGroup:
    pods = tuple(a_pod(f"chat-g{index}", number, ready=False, is_scheduled=False) for number in range(num_pods))
    return a_group(index, pods=pods)


def test_as_many_as_are_wanted_belong() -> None:
    found = who(a_group(0), a_group(1), wanted=2)
    assert ([group.index for group in found.members], gone(found), found.newcomers) == ([0, 1], [], ())


@pytest.mark.parametrize(
    "first_to_go",
    [
        a_group(0, ready=False),
        unscheduled(0),
        a_group(0, revision="old"),
    ],
    ids=["serves nobody", "has no node", "outdated"],
)
def test_a_group_that_is_worth_less_goes_before_one_of_a_higher_index(first_to_go: ObservedGroup) -> None:
    assert gone(who(first_to_go, a_group(1))) == [0]


def test_those_that_serve_nobody_go_before_those_that_are_outdated() -> None:
    assert gone(who(a_group(0), a_group(1, revision="old"), a_group(2, ready=False), wanted=1)) == [2, 1]


def test_of_two_that_serve_nobody_the_one_without_a_node_goes() -> None:
    assert gone(who(unscheduled(0), a_group(1, ready=False))) == [0]


def test_the_group_with_the_fewest_tokens_in_flight_goes() -> None:
    groups = a_group(0), a_group(1), a_group(2)
    assert gone(who(*groups, wanted=2, tokens={"chat-g0": 50, "chat-g1": 3, "chat-g2": 40})) == [1]


def test_unknown_is_not_zero() -> None:
    assert gone(who(a_group(0), a_group(1), tokens={"chat-g0": 100_000})) == [0]


def test_of_equals_the_highest_index_goes() -> None:
    groups = a_group(0), a_group(1), a_group(2)
    assert gone(who(*groups, wanted=1, tokens=dict.fromkeys(("chat-g0", "chat-g1", "chat-g2"), 7))) == [2, 1]
    assert [leaver.why for leaver in who(*groups).leavers] == [SCALED_DOWN] * 2


def test_newcomers_take_the_lowest_free_indices() -> None:
    assert who(a_group(1), a_group(4), wanted=5).newcomers == (0, 2, 3)


def test_an_index_with_a_pod_that_remains_is_not_free() -> None:
    draining = a_group(0, exists=False, pods=(a_pod("chat-g0", is_leaving=True),))
    found = who(draining, wanted=1)
    assert (found.newcomers, [group.index for group in found.draining]) == ((1,), [0])


def test_an_index_whose_name_somebody_else_has_is_not_free() -> None:
    seen = Observed(foreign={"chat-g0": {}})
    assert membership(moving_to(replicas=2), seen, {}, NOW).newcomers == (1, 2)


def test_pods_of_somebody_elses_stateful_set_are_no_group() -> None:
    theirs = a_group(0, exists=False, pods=(a_pod("chat-g0", controller="uid-another"),))
    found = membership(moving_to(), replace(observed(theirs), foreign={"chat-g0": {}}), {}, NOW)
    assert (found.members, found.leavers, found.draining, found.newcomers) == ((), (), (), (1,))


def test_orphaned_pods_keep_their_group() -> None:
    found = who(a_group(0, exists=False), wanted=1)
    assert ([group.index for group in found.members], found.newcomers) == ([0], ())


def hanging(index: int, *, seconds: float) -> ObservedGroup:
    since = NOW - timedelta(seconds=seconds)
    return a_group(index, pods=(a_pod(f"chat-g{index}", ready=False, is_leaving=True, hangs_since=since),))


@pytest.mark.parametrize(("seconds", "is_lost"), [(299.0, False), (300.0, True)])
def test_a_group_on_a_lost_node_is_replaced_after_its_time(seconds: float, is_lost: bool) -> None:
    found = who(hanging(0, seconds=seconds), a_group(1), wanted=2)
    assert gone(found) == ([0] if is_lost else [])
    assert found.newcomers == ((2,) if is_lost else ())


def test_a_node_is_lost_as_soon_as_the_spec_says() -> None:
    (leaver,) = who(hanging(0, seconds=10), nodeLossSeconds=10).leavers
    assert leaver.why == NODE_LOST


def test_what_is_marked_goes_whatever_is_wanted_now() -> None:
    found = who(a_group(0, leaving=SCALED_DOWN), a_group(1), wanted=2)
    assert [(leaver.group.index, leaver.why) for leaver in found.leavers] == [(0, SCALED_DOWN)]
    assert found.newcomers == (2,)


def test_what_is_marked_counts_for_nothing_when_others_are_chosen() -> None:
    found = who(a_group(0, leaving=NODE_LOST), a_group(1), wanted=1)
    assert ([group.index for group in found.members], gone(found)) == ([1], [0])


def test_groups_of_one_pod_are_made_at_once() -> None:
    assert who(unscheduled(0), wanted=4).newcomers == (1, 2, 3)


def test_groups_of_several_pods_are_made_one_after_the_other() -> None:
    pods = tuple(a_pod("chat-g0", number, ready=False) for number in range(2))
    for before, newcomers in ((a_group(0, pods=pods), (1,)), (unscheduled(0, num_pods=2), ())):
        found = who(before, wanted=3, num_pods=2)
        assert found.newcomers == newcomers
        assert (*found.newcomers, *found.waiting) == (1, 2)


@pytest.mark.parametrize(("present", "wanted", "needed"), [(2, 2, False), (2, 1, True), (2, 0, False)])
def test_tokens_in_flight_are_needed_only_for_a_choice(present: int, wanted: int, needed: bool) -> None:
    groups = [a_group(index) for index in range(present)]
    assert needs_load(moving_to(replicas=wanted), observed(*groups)) is needed
