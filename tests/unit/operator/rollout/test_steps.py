"""The next safe step of every group, case by case. The laws over whole rollouts are in test_rollout_laws.py."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from glm_operator import names
from glm_operator.api.trouble import Trouble
from glm_operator.observe.observed import Observed, ObservedGroup
from glm_operator.rollout.membership import CANNOT_CHANGE, SCALED_DOWN
from glm_operator.rollout.steps import EARLIER, Decision, GroupStep, decide, foresee, repair, stuck
from glm_operator.rollout.target import Target
from unit.operator.operator_builders import a_group, a_pod, moving_to, observed

NOW = datetime(2026, 1, 2, tzinfo=UTC)
TARGET = moving_to(replicas=2)
NO_NODE = Trouble("chat-g0-0", "Unschedulable", "no node")
NO_IMAGE = Trouble("chat-g0-0", "ImagePullFailed", "not found")


def steps(*groups: ObservedGroup, target: Target = TARGET, **said: Any) -> Decision:
    return decide(target, observed(*groups), NOW, **said)


def rolling(*groups: ObservedGroup, **policy: Any) -> Decision:
    """Return the step of a rollout of all these groups."""
    return steps(*groups, target=moving_to(replicas=len(groups), rollout=policy))


def written(decision: Decision) -> list[tuple[str, str]]:
    """Return the groups whose StatefulSet is applied, with the revision of each."""
    return [(step.name, step.revision) for step in decision.steps if step.manifest is not None]


def deleted_pods(decision: Decision) -> list[str]:
    return [pod.name for step in decision.steps for pod in step.delete_pods]


def deleted_groups(decision: Decision) -> list[str]:
    return sorted(step.name for step in decision.steps if step.delete)


def step_of(decision: Decision, index: int) -> GroupStep:
    return next(step for step in decision.steps if step.index == index)


def troubled(index: int, trouble: Trouble, *, revision: str = "old", **changes: Any) -> ObservedGroup:
    pod = a_pod(f"chat-g{index}", revision=revision, ready=False, trouble=trouble)
    return a_group(index, revision=revision, pods=(pod,), **changes)


def test_missing_groups_are_made() -> None:
    assert written(steps()) == [("chat-g0", "new"), ("chat-g1", "new")]


def test_groups_at_the_target_are_kept_as_they_should_be() -> None:
    decision = steps(a_group(0), a_group(1))
    assert written(decision) == [("chat-g0", "new"), ("chat-g1", "new")]
    assert (deleted_pods(decision), decision.outdated, decision.moved) == ([], (), ())


def test_one_available_group_moves_at_a_time() -> None:
    decision = steps(a_group(0, revision="old"), a_group(1, revision="old"))
    assert written(decision) == [("chat-g0", "new"), ("chat-g1", "old")]
    assert deleted_pods(decision) == ["chat-g0-0"]
    assert (decision.outdated, decision.moved) == (("chat-g0", "chat-g1"), ("chat-g0",))


def test_the_next_group_waits_until_the_one_before_is_ready() -> None:
    decision = steps(a_group(0, ready=False), a_group(1, revision="old"))
    assert written(decision) == [("chat-g0", "new"), ("chat-g1", "old")]
    assert (deleted_pods(decision), [group.name for group in decision.unproven]) == ([], ["chat-g0"])


def test_groups_that_never_served_and_have_failed_move_at_once() -> None:
    old = [troubled(index, NO_IMAGE) for index in range(3)]
    assert rolling(*old).moved == ("chat-g0", "chat-g1", "chat-g2")
    assert rolling(a_group(0, ready=False), *old[1:]).moved == ("chat-g1", "chat-g2"), "whatever is unproven"


@pytest.mark.parametrize("failed", [[], ["chat-g1"]])
def test_a_group_has_failed_when_its_workers_say_so(failed: list[str]) -> None:
    decision = steps(a_group(0, ready=False), a_group(1, revision="old", ready=False), failed=failed)
    assert decision.moved == tuple(failed)


def test_a_group_that_only_reloads_is_not_moved_while_the_new_revision_is_unproven() -> None:
    reloading = a_group(1, revision="old", ready=False, served="old")
    assert rolling(a_group(0, ready=False), reloading).moved == ()
    assert rolling(a_group(0), reloading).moved == ("chat-g1",)


def test_a_group_that_served_and_is_in_trouble_waits_for_its_turn() -> None:
    unproven = a_group(0, ready=False)
    assert rolling(unproven, troubled(1, NO_IMAGE, served="old")).moved == ()
    assert steps(unproven, troubled(1, NO_IMAGE), served=["chat-g1"]).moved == ()


def test_a_group_that_is_down_moves_before_one_that_serves() -> None:
    decision = steps(a_group(0, revision="old"), a_group(1, revision="old", ready=False))
    assert decision.moved == ("chat-g1",)


def test_of_those_that_are_not_ready_for_long_enough_the_one_that_answers_moves_last() -> None:
    ready_at = NOW - timedelta(seconds=60)
    young = a_group(0, revision="old", pods=(a_pod("chat-g0", revision="old", ready_changed_at=ready_at),))
    down = a_group(1, revision="old", ready=False, served="old")
    assert rolling(young, down, minReadySeconds=300).moved == ("chat-g1",)


def test_a_group_that_is_down_by_itself_takes_from_the_budget() -> None:
    serving = [a_group(index, revision="old") for index in range(2)]
    down = a_group(2, revision="old", ready=False, served="old")
    assert rolling(*serving, down, maxUnavailable=2).moved == ("chat-g2", "chat-g0")


@pytest.mark.parametrize(
    ("most", "num_groups", "num_moved"),
    [(1, 4, 1), (3, 4, 3), (1000, 4, 4), ("50%", 4, 2), ("25%", 7, 1), ("10%", 4, 1), ("100%", 3, 3)],
)
def test_at_most_the_budget_is_taken_from_those_that_serve(most: int | str, num_groups: int, num_moved: int) -> None:
    old = [a_group(index, revision="old") for index in range(num_groups)]
    assert len(rolling(*old, maxUnavailable=most).moved) == num_moved


@pytest.mark.parametrize(("ready_for_s", "moved"), [(59, ()), (60, ("chat-g1",))])
def test_a_group_proves_the_new_revision_once_it_was_ready_for_long_enough(
    ready_for_s: int, moved: tuple[str, ...]
) -> None:
    ready_at = NOW - timedelta(seconds=ready_for_s)
    new = a_group(0, pods=(a_pod("chat-g0", ready_changed_at=ready_at),))
    assert rolling(new, a_group(1, revision="old"), minReadySeconds=60).moved == moved


def test_a_paused_rollout_moves_nothing_and_repairs() -> None:
    stray = (a_pod("chat-g1", 0, revision="old"), a_pod("chat-g1", 1, revision="older"))
    decision = rolling(troubled(0, NO_IMAGE), a_group(1, revision="old", pods=stray), paused=True)
    assert (decision.moved, deleted_pods(decision)) == ((), ["chat-g1-1"])


def test_a_paused_rollout_scales() -> None:
    paused = moving_to(replicas=2, rollout={"paused": True})
    assert written(steps(a_group(0, revision="old"), target=paused)) == [("chat-g0", "old"), ("chat-g1", "old")]
    assert deleted_groups(steps(*(a_group(index) for index in range(3)), target=paused)) == ["chat-g2"]


def revisions_of_newcomers(*groups: ObservedGroup, older: tuple[str, ...] = ("old",), **policy: Any) -> list[str]:
    decision = steps(*groups, target=moving_to(replicas=4, older=older, rollout=policy))
    return [step_of(decision, index).revision for index in decision.membership.newcomers]


def test_where_nothing_serves_newcomers_get_the_new_revision() -> None:
    assert revisions_of_newcomers() == ["new"] * 4
    assert revisions_of_newcomers(a_group(0, revision="old", ready=False)) == ["new"] * 3


def test_newcomers_get_what_serves_until_one_of_them_has_proven_the_new_revision() -> None:
    assert revisions_of_newcomers(a_group(0, revision="old")) == ["new", "old", "old"]
    assert revisions_of_newcomers(a_group(0, revision="old"), a_group(1, ready=False)) == ["old"] * 2
    assert revisions_of_newcomers(a_group(0, revision="old"), a_group(1)) == ["new"] * 2


def test_newcomers_of_a_paused_rollout_get_what_most_of_those_that_serve_have() -> None:
    serving = a_group(0, revision="old"), a_group(1, revision="older"), a_group(2, revision="older")
    assert revisions_of_newcomers(*serving, older=("old", "older"), paused=True) == ["older"]


def test_newcomers_get_the_new_revision_where_nothing_says_what_the_old_one_was() -> None:
    assert revisions_of_newcomers(a_group(0, revision="old"), older=()) == ["new"] * 3


def test_no_group_moves_while_newcomers_are_made() -> None:
    assert steps(a_group(0, revision="old"), target=moving_to(replicas=2)).moved == ()


def marks(decision: Decision, index: int) -> dict[str, str]:
    manifest = step_of(decision, index).manifest
    assert manifest is not None
    found: dict[str, str] = manifest["metadata"].get("annotations", {})
    return found


def test_a_group_that_serves_is_marked_with_its_revision() -> None:
    decision = steps(a_group(0), a_group(1, ready=False))
    assert (marks(decision, 0), marks(decision, 1)) == ({names.SERVED_ANNOTATION: "new"}, {})


@pytest.mark.parametrize("mark", ["old", ""])
def test_the_mark_that_a_group_served_is_kept_through_a_move(mark: str) -> None:
    decision = rolling(a_group(0, revision="old", served=mark))
    assert decision.moved == ("chat-g0",)
    assert marks(decision, 0) == {names.SERVED_ANNOTATION: EARLIER}
    moved = a_group(0, ready=False, served=EARLIER)
    assert marks(rolling(moved), 0) == {names.SERVED_ANNOTATION: EARLIER}


def test_a_group_that_moves_back_to_where_it_served_is_still_to_show_that_it_does() -> None:
    decision = rolling(troubled(0, NO_IMAGE, revision="bad", served="new"), a_group(1))
    assert decision.moved == ("chat-g0",)
    assert marks(decision, 0) == {names.SERVED_ANNOTATION: EARLIER}


def test_a_group_that_never_could_be_scheduled_blocks_nobody() -> None:
    decision = rolling(troubled(0, NO_NODE, revision="new"), a_group(1, revision="old"))
    assert (decision.moved, decision.unproven) == (("chat-g1",), ())


def test_a_group_that_served_and_fits_no_node_at_the_new_revision_blocks_the_others() -> None:
    decision = rolling(troubled(0, NO_NODE, revision="new", served="old"), a_group(1, revision="old"))
    assert (decision.moved, [group.name for group in decision.unproven]) == ((), ["chat-g0"])


def live(target: Target, *indices: int, **spec: Any) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Return the StatefulSets of groups as they are, but for what the keywords say."""
    found = {}
    for index in indices:
        made = target.manifest(f"chat-g{index}", "old", {})
        assert made is not None
        found["apps/v1", "StatefulSet", f"chat-g{index}"] = {**made, "spec": {**made["spec"], **spec}}
    return found


def test_what_no_update_can_change_is_made_anew_when_it_is_its_turn() -> None:
    groups = a_group(0, revision="old", served="old"), a_group(1, revision="old")
    seen = replace(observed(*groups), live=live(TARGET, 0, 1, podManagementPolicy="OrderedReady"))
    decision = decide(TARGET, seen, NOW)
    removal, frozen = decision.steps
    assert (removal.delete, removal.why, frozen.delete, frozen.manifest) == (True, CANNOT_CHANGE, False, None)
    assert marks(decision, 0) == {names.LEAVING_ANNOTATION: CANNOT_CHANGE, names.SERVED_ANNOTATION: "old"}


def test_what_an_update_can_change_is_updated() -> None:
    seen = replace(observed(a_group(0, revision="old")), live=live(TARGET, 0, replicas=7))
    assert written(decide(moving_to(), seen, NOW)) == [("chat-g0", "new")]


def test_orphans_get_a_stateful_set_of_their_own_revision_back() -> None:
    orphaned = a_group(0, exists=False, pods=(a_pod("chat-g0", revision="old"),), num_pods=0)
    decision = rolling(orphaned)
    assert (written(decision), deleted_pods(decision)) == ([("chat-g0", "old")], [])


def test_a_group_of_which_nothing_says_what_it_is_made_from_is_left_as_it_is() -> None:
    unknown = a_group(1, revision="lost")
    decision = rolling(a_group(0, ready=False), unknown)
    assert (step_of(decision, 1).manifest, deleted_pods(decision)) == (None, [])


def test_all_pods_of_a_group_move_together() -> None:
    pods = tuple(a_pod("chat-g0", index, revision="old") for index in (0, 1))
    decision = steps(a_group(0, revision="old", pods=pods), a_group(1))
    assert deleted_pods(decision) == ["chat-g0-0", "chat-g0-1"]


def test_a_pod_of_another_revision_than_its_group_is_deleted() -> None:
    pods = (a_pod("chat-g0", 0), a_pod("chat-g0", 1, revision="old"))
    assert deleted_pods(steps(a_group(0, pods=pods), a_group(1))) == ["chat-g0-1"]


def test_a_pod_on_its_way_out_is_not_deleted_again() -> None:
    pods = (a_pod("chat-g0", 0, revision="old", is_leaving=True),)
    assert deleted_pods(steps(a_group(0, pods=pods), a_group(1))) == []


def test_a_frozen_group_loses_only_pods_that_are_not_of_its_revision() -> None:
    pods = (a_pod("chat-g1", 0, revision="old"), a_pod("chat-g1", 1, revision="older"))
    frozen = a_group(1, revision="old", pods=pods)
    assert deleted_pods(steps(a_group(0, ready=False), frozen)) == ["chat-g1-1"]
    assert [pod.name for step in repair(observed(frozen)) for pod in step.delete_pods] == ["chat-g1-1"]


def test_surplus_groups_go_and_the_others_are_not_touched() -> None:
    decision = steps(a_group(0), a_group(1), a_group(2), a_group(3))
    assert deleted_groups(decision) == ["chat-g2", "chat-g3"]
    assert deleted_pods(decision) == []


def test_a_group_that_goes_is_marked_before() -> None:
    decision = steps(a_group(0), a_group(1), a_group(2))
    assert marks(decision, 2) == {names.LEAVING_ANNOTATION: SCALED_DOWN}


def test_a_surplus_group_that_drains_is_left_to_drain() -> None:
    draining = a_group(2, exists=False, pods=(a_pod("chat-g2", 0, is_leaving=True),))
    decision = steps(a_group(0), a_group(1), draining)
    assert not [step for step in decision.steps if step.takes_away]
    assert decision.membership.draining == (draining,)


def test_pods_that_somebody_orphaned_go_with_their_surplus_group() -> None:
    assert deleted_pods(steps(a_group(0), a_group(1), a_group(2, exists=False))) == ["chat-g2-0"]


def test_pods_that_another_stateful_set_makes_are_left_to_it() -> None:
    made = a_group(2, exists=False, pods=(a_pod("chat-g2", controller="uid-another"),))
    assert deleted_pods(steps(a_group(0), a_group(1), made)) == []


def test_a_surplus_place_that_a_stateful_set_of_somebody_else_has_is_no_group_that_goes() -> None:
    theirs = a_group(2, exists=False, pods=(a_pod("chat-g2", controller="uid-another"),))
    found = replace(observed(a_group(0), a_group(1), theirs), foreign={"chat-g2": {}})
    decision = decide(TARGET, found, NOW)
    assert (decision.membership.leavers, decision.membership.draining) == ((), ())
    assert not [step for step in decision.steps if step.takes_away]


def foreseen(before: Observed) -> Observed:
    return foresee(before, decide(TARGET, before, NOW).steps)


def test_what_a_step_takes_down_is_foreseen_as_down() -> None:
    after = foreseen(observed(a_group(0, revision="old"), a_group(1), a_group(2, revision="old")))
    assert [group.is_available for group in after.groups.values()] == [False, True, False]
    assert [group.exists for group in after.groups.values()] == [True, True, False]
    assert all(pod.is_leaving for pod in after.groups[0].pods)


def test_the_trouble_of_what_a_step_takes_down_is_foreseen_as_over() -> None:
    assert foreseen(observed(troubled(0, NO_IMAGE), a_group(1))).groups[0].trouble is None


def test_what_a_step_makes_is_foreseen_as_there_and_not_ready() -> None:
    after = foreseen(observed())
    assert [(group.exists, group.is_available) for group in after.groups.values()] == [(True, False), (True, False)]


def test_steps_that_change_nothing_foresee_what_is() -> None:
    before = observed(a_group(0, served="new"), a_group(1, served="new"))
    assert foreseen(before) == before


DEADLINE_S = 600
LATE, EARLY = (NOW - timedelta(seconds=seconds) for seconds in (DEADLINE_S + 1, DEADLINE_S))


def stuck_at(*groups: ObservedGroup) -> str | None:
    target = moving_to(replicas=len(groups), rollout={"progressDeadlineSeconds": DEADLINE_S})
    group = stuck(target, decide(target, observed(*groups), NOW), NOW)
    return group.name if group is not None else None


def test_a_rollout_is_stuck_after_its_deadline_and_not_before() -> None:
    for since, name in ((EARLY, None), (LATE, "chat-g0")):
        assert stuck_at(a_group(0, ready=False, changed_at=since), a_group(1, revision="old")) == name


def test_a_rollout_is_stuck_at_its_last_group_too() -> None:
    assert stuck_at(a_group(0), a_group(1, ready=False, served="old", changed_at=LATE)) == "chat-g1"


def test_a_group_that_comes_back_after_the_rollout_is_none_that_is_stuck() -> None:
    assert stuck_at(a_group(0), a_group(1, ready=False, served="new", changed_at=LATE)) is None


def test_a_group_that_never_had_a_node_is_none_that_is_stuck() -> None:
    waits = troubled(0, NO_NODE, revision="new", changed_at=LATE)
    assert stuck_at(waits, a_group(1, revision="old")) is None


def test_without_a_deadline_of_its_own_a_rollout_gets_what_a_start_may_take_and_ten_minutes() -> None:
    assert moving_to(engine={"limits": {"startLimitSeconds": 60}}).progress_deadline_s == 660


def waits_until(*groups: ObservedGroup, **policy: Any) -> datetime | None:
    return rolling(*groups, **policy).waits_until


def test_nothing_is_waited_for_where_all_is_up_to_date() -> None:
    assert waits_until(a_group(0), minReadySeconds=60) is None


def test_a_group_that_has_just_become_ready_is_looked_at_when_it_was_for_long_enough() -> None:
    ready = a_group(0, pods=(a_pod("chat-g0", ready_changed_at=NOW - timedelta(seconds=20)),))
    assert waits_until(ready, minReadySeconds=60) == NOW + timedelta(seconds=40)


def test_an_unproven_group_is_looked_at_at_its_deadline() -> None:
    starts = a_group(0, ready=False, changed_at=NOW - timedelta(seconds=20))
    assert waits_until(starts, progressDeadlineSeconds=60) == NOW + timedelta(seconds=40)
    assert waits_until(starts, progressDeadlineSeconds=10) is None, "that time has come"


def test_a_pod_that_hangs_is_looked_at_when_its_node_counts_as_lost() -> None:
    hangs = a_pod("chat-g0", is_leaving=True, hangs_since=NOW - timedelta(seconds=20))
    assert waits_until(a_group(0, pods=(hangs,)), nodeLossSeconds=60) == NOW + timedelta(seconds=40)
