"""The next safe step of every group, case by case. The laws over whole rollouts are in test_rollout_laws.py."""

from dataclasses import replace

from glm_operator.observe.observed import ObservedGroup
from glm_operator.observe.trouble import Trouble
from glm_operator.rollout.steps import Rollout, Target, foresee, plan_rollout, repair
from unit.operator.operator_builders import a_group, a_pod, a_target, observed

TARGET = replace(a_target(replicas=2), revision="new")


def steps(*groups: ObservedGroup, target: Target = TARGET) -> Rollout:
    return plan_rollout(target, observed(*groups))


def rendered(rollout: Rollout) -> list[str]:
    return [step.name for step in rollout.steps if step.render]


def deleted_pods(rollout: Rollout) -> list[str]:
    return [pod.name for step in rollout.steps for pod in step.delete_pods]


def test_missing_groups_are_made() -> None:
    assert rendered(steps()) == ["chat-g0", "chat-g1"]


def test_groups_at_the_target_are_kept_as_they_should_be() -> None:
    rollout = steps(a_group(0), a_group(1))
    assert rendered(rollout) == ["chat-g0", "chat-g1"]
    assert (deleted_pods(rollout), rollout.outdated) == ([], ())


def test_one_available_group_moves_at_a_time() -> None:
    rollout = steps(a_group(0, revision="old"), a_group(1, revision="old"))
    assert rendered(rollout) == ["chat-g0"]
    assert deleted_pods(rollout) == ["chat-g0-0"]
    assert rollout.outdated == ("chat-g0", "chat-g1")


def test_the_next_group_waits_until_the_one_before_is_ready() -> None:
    rollout = steps(a_group(0, ready=False), a_group(1, revision="old"))
    assert rendered(rollout) == ["chat-g0"]
    assert deleted_pods(rollout) == []


def test_groups_that_are_not_ready_may_always_move() -> None:
    old = [a_group(index, revision="old", ready=False) for index in (0, 1)]
    assert rendered(steps(*old)) == ["chat-g0", "chat-g1"]


def test_a_group_that_is_down_moves_before_one_that_serves() -> None:
    rollout = steps(a_group(0, revision="old"), a_group(1, revision="old", ready=False))
    assert rendered(rollout) == ["chat-g1"]


def test_all_pods_of_a_group_move_together() -> None:
    pods = tuple(a_pod("chat-g0", index, revision="old") for index in (0, 1))
    rollout = steps(a_group(0, revision="old", pods=pods), a_group(1))
    assert deleted_pods(rollout) == ["chat-g0-0", "chat-g0-1"]


def test_a_pod_of_another_revision_than_its_group_is_deleted() -> None:
    pods = (a_pod("chat-g0", 0), a_pod("chat-g0", 1, revision="old"))
    assert deleted_pods(steps(a_group(0, pods=pods), a_group(1))) == ["chat-g0-1"]


def test_a_pod_on_its_way_out_is_not_deleted_again() -> None:
    pods = (a_pod("chat-g0", 0, revision="old", is_leaving=True),)
    assert deleted_pods(steps(a_group(0, pods=pods), a_group(1))) == []


def test_a_frozen_group_loses_only_pods_that_are_not_of_its_revision() -> None:
    pods = (a_pod("chat-g1", 0, revision="old"), a_pod("chat-g1", 1, revision="older"))
    rollout = steps(a_group(0, ready=False), replace(a_group(1, revision="old", pods=pods), num_pods=2))
    # not available, so it may move: both go
    assert deleted_pods(rollout) == ["chat-g1-0", "chat-g1-1"]
    assert [
        pod.name for step in repair(observed(a_group(1, revision="old", pods=pods))) for pod in step.delete_pods
    ] == ["chat-g1-1"]


def test_surplus_groups_go_and_the_others_are_not_touched() -> None:
    rollout = steps(a_group(0), a_group(1), a_group(2), a_group(3))
    assert [step.name for step in rollout.steps if step.delete] == ["chat-g2", "chat-g3"]
    assert deleted_pods(rollout) == []


def test_a_surplus_group_that_drains_is_left_to_drain() -> None:
    draining = replace(a_group(2, pods=(a_pod("chat-g2", 0, is_leaving=True),)), exists=False)
    rollout = steps(a_group(0), a_group(1), draining)
    assert not [step for step in rollout.steps if step.delete or step.delete_pods]
    assert rollout.surplus == ("chat-g2",)


def test_pods_that_somebody_orphaned_go_with_their_surplus_group() -> None:
    orphaned = replace(a_group(2), exists=False)
    assert deleted_pods(steps(a_group(0), a_group(1), orphaned)) == ["chat-g2-0"]


def test_pods_that_another_stateful_set_makes_are_left_to_it() -> None:
    made = replace(a_group(2, pods=(a_pod("chat-g2", controller="uid-another"),)), exists=False)
    assert deleted_pods(steps(a_group(0), a_group(1), made)) == []


def test_a_surplus_place_that_a_stateful_set_of_somebody_else_has_is_no_group_that_goes() -> None:
    theirs = replace(a_group(2, pods=(a_pod("chat-g2", controller="uid-another"),)), exists=False)
    found = replace(observed(a_group(0), a_group(1), theirs), foreign={"chat-g2": {}})
    rollout = plan_rollout(TARGET, found)
    assert rollout.surplus == ()
    assert not [step for step in rollout.steps if step.delete or step.delete_pods]


def test_what_a_step_takes_down_is_foreseen_as_down() -> None:
    before = observed(a_group(0, revision="old"), a_group(1), a_group(2))
    after = foresee(before, plan_rollout(TARGET, before).steps, TARGET)
    assert [group.is_available for group in after.groups.values()] == [False, True, False]
    assert [group.exists for group in after.groups.values()] == [True, True, False]
    assert all(pod.is_leaving for pod in after.groups[0].pods)


def test_the_trouble_of_what_a_step_takes_down_is_foreseen_as_over() -> None:
    stuck = a_pod("chat-g0", revision="old", ready=False, trouble=Trouble("ImagePullFailed", "not found"))
    before = observed(a_group(0, revision="old", pods=(stuck,)), a_group(1))
    assert foresee(before, plan_rollout(TARGET, before).steps, TARGET).groups[0].trouble is None


def test_what_a_step_makes_is_foreseen_as_there_and_not_ready() -> None:
    after = foresee(observed(), plan_rollout(TARGET, observed()).steps, TARGET)
    assert [(group.exists, group.is_available) for group in after.groups.values()] == [(True, False), (True, False)]


def test_steps_that_change_nothing_foresee_what_is() -> None:
    before = observed(a_group(0), a_group(1))
    assert foresee(before, plan_rollout(TARGET, before).steps, TARGET) == before


def test_a_group_whose_stateful_set_was_emptied_is_not_available() -> None:
    assert not replace(a_group(0, pods=()), num_pods=0).is_available
