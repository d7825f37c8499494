"""plan_rollout(target, observed) -> the next safe step of every group. Pure; its laws are in tests/unit/operator.

- A group moves to another revision as a whole: its template is replaced and every pod of another revision deleted.
- A rollout takes down a group that is available only while every other wanted group is available.
- A group that is not available may always move: nothing is lost by it.
- A group keeps its frozen template until its turn.
- Groups at and past the wanted number are deleted, the rest is never touched by a change of that number.
- A place past that number that somebody else's StatefulSet has is no group that goes: nobody waits for its pods.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from glm_operator import names
from glm_operator.api.spec import GLMDeployment
from glm_operator.layout import Layout
from glm_operator.observe.observed import Observed, ObservedGroup, ObservedPod
from glm_operator.render import revision_of


@dataclass(frozen=True)
class Target:
    """An accepted spec and what follows from it: where all groups are going."""

    deployment: GLMDeployment
    layout: Layout
    revision: str

    @classmethod
    def of(cls, deployment: GLMDeployment, layout: Layout) -> "Target":
        return cls(deployment, layout, revision_of(deployment, layout))

    @property
    def replicas(self) -> int:
        return self.deployment.spec.replicas


@dataclass(frozen=True)
class GroupStep:
    """What one pass does to one group, in this order."""

    index: int
    name: str
    render: bool  # apply its StatefulSet at the target's revision; False: leave it frozen
    delete: bool  # delete its StatefulSet, and with it the pods
    delete_pods: tuple[ObservedPod, ...]


@dataclass(frozen=True)
class Rollout:
    """One safe step of every group."""

    steps: tuple[GroupStep, ...]
    outdated: tuple[str, ...]  # wanted groups that are not of the target's revision yet
    surplus: tuple[str, ...]  # groups that go, or are going


def plan_rollout(target: Target, observed: Observed) -> Rollout:
    """Return the next step of every group, wanted or there."""
    groups = [observed.groups.get(index) or _missing(target, index) for index in range(target.replicas)]
    past = [group for index, group in observed.groups.items() if index >= target.replicas]
    moving = _moving(target, groups)
    steps = [_step(target, group, moves=group.index in moving) for group in groups]
    steps += [_removal(group) for group in past]
    return Rollout(
        steps=tuple(steps),
        outdated=tuple(group.name for group in groups if group.exists and group.revision != target.revision),
        surplus=tuple(group.name for group in past if not observed.is_of_others(group)),
    )


def foresee(observed: Observed, steps: Iterable[GroupStep], target: Target | None) -> Observed:
    """Return what is observed as these steps leave it, so that a status never praises what its pass just took down."""
    groups = dict(observed.groups)
    for step in steps:
        group = groups.get(step.index)
        if step.render and target is not None:
            group = group or _missing(target, step.index)
            num_pods = target.layout.pods_per_group
            group = replace(group, exists=True, revision=target.revision, num_pods=num_pods)
        if group is not None:
            going = group.pods if step.delete else step.delete_pods
            pods = tuple(replace(pod, is_leaving=True, trouble=None) if pod in going else pod for pod in group.pods)
            groups[step.index] = replace(group, exists=group.exists and not step.delete, pods=pods)
    return replace(observed, groups=groups)


def repair(observed: Observed) -> tuple[GroupStep, ...]:
    """Return what is due without a target: groups stay frozen, only pods of another revision than theirs go."""
    return tuple(
        GroupStep(group.index, group.name, render=False, delete=False, delete_pods=_strays(group, group.revision))
        for group in observed.groups.values()
        if group.exists
    )


def _moving(target: Target, groups: list[ObservedGroup]) -> set[int]:
    """Return the groups that take the target's template in this step."""
    outdated = [group for group in groups if group.exists and group.revision != target.revision]
    moving = {group.index for group in outdated if not group.is_available}
    if not moving and outdated and all(group.is_available for group in groups):
        moving = {outdated[0].index}
    return moving


def _step(target: Target, group: ObservedGroup, *, moves: bool) -> GroupStep:
    at_target = moves or not group.exists or group.revision == target.revision
    revision = target.revision if at_target else group.revision
    return GroupStep(group.index, group.name, render=at_target, delete=False, delete_pods=_strays(group, revision))


def _removal(group: ObservedGroup) -> GroupStep:
    # Pods of a StatefulSet that is gone are collected, those of somebody else's would only be made again.
    orphans = tuple(pod for pod in group.pods if pod.controller is None and not pod.is_leaving)
    going = () if group.exists else orphans
    return GroupStep(group.index, group.name, render=False, delete=group.exists, delete_pods=going)


def _strays(group: ObservedGroup, revision: str) -> tuple[ObservedPod, ...]:
    return tuple(pod for pod in group.pods if pod.revision != revision and not pod.is_leaving)


def _missing(target: Target, index: int) -> ObservedGroup:
    name = names.group_name(target.deployment.name, index)
    return ObservedGroup(index=index, name=name, exists=False, revision="", num_pods=0, pods=())
