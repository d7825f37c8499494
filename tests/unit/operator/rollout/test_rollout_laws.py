"""Laws over whole histories of rollouts, in the world of rollout_world.py."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_operator import names
from glm_operator.rollout.membership import membership
from unit.operator.rollout.rollout_world import NOW, REVISIONS, World, make_whole, perform, settle

index = st.integers(0, 4)
actions = st.one_of(
    st.tuples(st.just("pass"), st.none()),
    st.tuples(st.just("pass"), st.none()),
    st.tuples(st.just("crash"), st.integers(0, 4)),
    st.tuples(st.just("controllers"), st.none()),
    st.tuples(st.just("stale controllers"), st.sampled_from(["r0", "r1"])),
    st.tuples(st.just("kubelet"), st.none()),
    st.tuples(st.just("kill"), index),
    st.tuples(st.just("lose"), index),
    st.tuples(st.just("lose node"), index),
    st.tuples(st.just("edit"), st.sampled_from(REVISIONS)),
    st.tuples(st.just("scale"), st.integers(0, 4)),
    st.tuples(st.just("capacity"), st.integers(0, 4)),
    st.tuples(st.just("pause"), st.booleans()),
    st.tuples(st.just("drains last"), st.booleans()),
)

stories = st.lists(actions, max_size=40)


@settings(max_examples=600, deadline=None)
@given(stories, st.integers(1, 3))
def test_a_rollout_keeps_its_budget_and_ends_wherever_it_was_interrupted(
    story: list[tuple[str, Any]], most_unavailable: int
) -> None:
    world = World()
    world.most_unavailable = most_unavailable
    for action, argument in story:
        perform(world, action, argument)
    make_whole(world)
    settle(world)
    assert len(world.groups) == world.wanted
    assert all(group.is_available for group in world.groups.values())
    assert {group.revision for group in world.groups.values()} <= {world.revision}


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(["pass", "controllers", "kubelet", "kill"]), max_size=30), st.integers(2, 4))
def test_a_broken_revision_costs_no_more_groups_than_the_budget(story: list[str], wanted: int) -> None:
    """Groups that reload their weights meanwhile are not lost to it, either."""
    world = World()
    world.wanted = wanted
    settle(world)
    world.revision = "broken"
    for place, action in enumerate(story):
        perform(world, action, place % wanted)
    settle(world)
    assert sum(group.is_available for group in world.groups.values()) >= wanted - 1
    assert world.decide().unproven


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.sampled_from(["r1", "r2"]))
def test_groups_that_never_could_be_scheduled_block_no_rollout(serving: int, too_many: int, revision: str) -> None:
    world = World()
    world.wanted = world.capacity = serving
    settle(world)
    world.wanted = serving + too_many  # an autoscaler past the capacity
    settle(world)
    world.revision = revision
    settle(world)
    served = [group for group in world.groups.values() if group.is_available]
    assert len(served) == serving
    assert {group.revision for group in served} == {revision}


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 4), st.integers(0, 2), st.sampled_from(["r1", "r2"]))
def test_a_full_cluster_whose_pods_drain_for_long_keeps_its_groups(wanted: int, spare: int, revision: str) -> None:
    """What replaces a group finds no room before that one is gone: the others stay until it has."""
    world = World()
    world.wanted, world.capacity = wanted, wanted + spare
    settle(world)
    world.revision, world.drains_last = revision, True
    for _ in range(10):
        world.run_operator()
        world.controllers()
        world.kubelet()
        if spare == 0:
            assert sum(group.is_available for group in world.groups.values()) >= wanted - 1
    world.drains_last = False
    settle(world)
    assert sum(group.is_available for group in world.groups.values()) == wanted
    assert {group.revision for group in world.groups.values()} == {revision}


@pytest.mark.parametrize("lost", ["lose", "lose_node"])
def test_a_lost_group_of_a_stuck_rollout_is_replaced_by_what_is_known_to_serve(lost: str) -> None:
    world = World()
    world.wanted = 2
    settle(world)
    world.revision = "broken"
    settle(world)
    (serving,) = [number for number, group in world.groups.items() if group.is_available]
    getattr(world, lost)(serving)
    settle(world)
    assert [group.revision for group in world.groups.values() if group.is_available] == ["r0"]


def test_what_served_and_fails_everywhere_is_moved_together_once_its_fix_is_proven() -> None:
    world = World()
    world.wanted = 4
    settle(world)
    for number in world.groups:
        world.kill(number)
        world.groups[number].fails = True
    world.revision = "r1"
    for _ in range(3):
        world.run_operator()
        world.controllers()
        world.kubelet()
    assert {group.revision for group in world.groups.values()} == {"r1"}


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 4), st.integers(0, 4), st.sets(index))
def test_scaling_takes_those_away_that_do_not_serve_and_touches_no_other(
    before: int, after: int, down: set[int]
) -> None:
    world = World()
    world.wanted = before
    settle(world)
    for number in down:
        world.kill(number)
    serving = {number: group.pods for number, group in world.groups.items() if group.is_available}
    world.wanted = after
    world.run_operator()
    kept = [number for number, pods in serving.items() if world.groups[number].revision is not None]
    assert len(kept) == min(after, len(serving))
    assert all(world.groups[number].pods == serving[number] for number in kept)
    settle(world)
    assert len(world.groups) == after


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 4), st.lists(st.integers(0, 5), min_size=1, max_size=30), st.sampled_from(["r1", "r2"]))
def test_an_operator_that_dies_after_every_few_writes_still_finishes(
    wanted: int, deaths: list[int], revision: str
) -> None:
    world = World()
    world.wanted = wanted
    settle(world)
    world.revision = revision
    for num_writes in deaths:
        world.run_operator(num_writes)
        world.controllers()
        world.kubelet()
    settle(world)
    assert {group.revision for group in world.groups.values()} == {revision}
    assert len(world.groups) == wanted


@settings(max_examples=200, deadline=None)
@given(stories)
def test_a_choice_of_who_goes_is_never_taken_back(story: list[tuple[str, Any]]) -> None:
    world = World()
    for action, argument in story:
        perform(world, action, argument)
        standing = {number: group for number, group in world.groups.items() if group.revision is not None}
        marked = {number for number, group in standing.items() if group.annotations.get(names.LEAVING_ANNOTATION)}
        who = membership(world.target(), world.observe(), {}, NOW)
        assert marked <= {leaver.group.index for leaver in who.leavers}
        assert not marked & {group.index for group in who.members}


@given(st.integers(1, 6), st.data())
def test_groups_of_several_pods_are_admitted_one_after_the_other(wanted: int, data: st.DataObject) -> None:
    world = World()
    world.wanted = wanted
    world.capacity = data.draw(st.integers(0, wanted))
    for _ in range(3 * wanted):
        world.run_operator()
        world.controllers()
        waiting = [group for group in world.groups.values() if not all(pod.scheduled for pod in group.pods.values())]
        assert len(waiting) <= 1
    assert len(world.groups) == min(wanted, world.capacity + 1)
