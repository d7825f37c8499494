"""Who counts, who goes, and what is on its way."""

from dataclasses import replace

from glm_operator.observe.observed import Observed
from unit.operator.operator_builders import a_group, a_pod, moving_to, observed
from unit.operator.status_builders import REFUSED, facts


def test_groups_still_to_be_made_are_members() -> None:
    found = facts(a_group(1), target=moving_to(replicas=3))
    assert [(group.index, group.exists) for group in found.members] == [(0, False), (1, True), (2, False)]
    assert set(found.findings) == {"chat-g0", "chat-g2"}


def test_without_a_target_the_groups_there_are_count() -> None:
    found = facts(a_group(0), a_group(1, exists=False), target=None, refused=REFUSED)
    assert [group.index for group in found.members] == [0]
    assert (found.has_nothing, found.outdated, found.moving, found.stuck) == (False, [], [], None)


def test_nothing_is_there_where_no_spec_was_ever_accepted_and_no_group_runs() -> None:
    assert facts(target=None, refused=REFUSED, observed=Observed()).has_nothing
    assert not facts(observed=Observed()).has_nothing


def test_groups_that_drain_go_and_pods_of_others_do_not() -> None:
    draining = a_group(2, exists=False, pods=(a_pod("chat-g2", is_leaving=True),))
    theirs = a_group(3, exists=False, pods=(a_pod("chat-g3", controller="uid-another"),))
    seen = replace(observed(a_group(0), a_group(1), draining, theirs), foreign={"chat-g3": {}})
    assert [group.index for group in facts(observed=seen).goers] == [2]


def test_a_group_is_moving_from_when_it_was_moved_until_it_serves_again() -> None:
    moved, reloads = a_group(0, ready=False, served="old"), a_group(1, ready=False, served="new")
    assert facts(moved, reloads).moving == ["chat-g0"]
    assert facts(a_group(0, served="old"), reloads).moving == []
