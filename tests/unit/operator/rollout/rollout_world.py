"""A world of groups that breaks, is edited, and loses its operator between any two writes; and its promises."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from glm_operator import names
from glm_operator.api.spec import Rollout
from glm_operator.api.trouble import Trouble
from glm_operator.observe.observed import Observed, ObservedGroup
from glm_operator.render import stateful_set
from glm_operator.rollout.steps import Decision, GroupStep, decide
from glm_operator.rollout.target import Target
from unit.operator.operator_builders import a_pod, a_target

PODS = 2
BASE = a_target()
NOW = datetime(2026, 1, 2, tzinfo=UTC)
REVISIONS = ("r0", "r1", "r2", "broken")
"""r2 differs in a field that no update can change. No pod of the broken one ever becomes ready."""


def template(revision: str) -> dict[str, Any]:
    (made,) = BASE.templates.values()
    policy = "OrderedReady" if revision == "r2" else "Parallel"
    return {**made, "spec": {**made["spec"], "replicas": PODS, "podManagementPolicy": policy}}


TEMPLATES = {revision: template(revision) for revision in REVISIONS}


@dataclass
class Pod:
    """A pod of the world."""

    revision: str
    ready: bool = False
    scheduled: bool = False
    deleting: bool = False
    hangs: bool = False  # its node does not answer


@dataclass
class Group:
    """A StatefulSet with its pods; revision None: deleted, its pods drain."""

    revision: str | None
    pods: dict[int, Pod] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    immutable: str = "Parallel"
    has_served: bool = False  # at any revision
    fails: bool = False  # at the revision it has, though it served there

    @property
    def is_available(self) -> bool:
        return len(self.pods) == PODS and all(
            pod.ready and not pod.deleting and pod.revision == self.revision for pod in self.pods.values()
        )

    @property
    def has_failed(self) -> bool:
        return (self.fails or self.revision == "broken") and any(pod.scheduled for pod in self.pods.values())


class World:
    """Groups, what is wanted, and the promises."""

    def __init__(self) -> None:
        self.groups: dict[int, Group] = {}
        self.wanted = 1
        self.revision = "r0"
        self.most_unavailable = 1
        self.paused = False
        self.capacity = 100  # groups that have nodes
        self.taken_down: set[int] = set()  # by a rollout, while they served, and not back since
        self.accepted = ("", 0)  # the revision that was accepted last, and the most groups that served since
        self.proven: dict[str, None] = {}  # revisions at which a group was available
        self.drains_last = False  # pods that were told to go stay, and keep their nodes

    def observe(self) -> Observed:
        groups = {index: self._observed(index, group) for index, group in sorted(self.groups.items())}
        live = {}
        for index, group in self.groups.items():
            if group.revision is not None:
                name = f"chat-g{index}"
                made = stateful_set(TEMPLATES[group.revision], "models", name, group.revision)
                made["spec"]["podManagementPolicy"] = group.immutable
                live["apps/v1", "StatefulSet", name] = made
        return Observed(groups=groups, live=live)

    @staticmethod
    def _observed(index: int, group: Group) -> ObservedGroup:
        name = f"chat-g{index}"

        def trouble(pod: Pod) -> Trouble | None:
            if not pod.scheduled and not pod.deleting:
                return Trouble(name, "Unschedulable", "no node")
            return Trouble(name, "ImagePullFailed", "not found") if group.has_failed else None

        return ObservedGroup(
            index=index,
            name=name,
            exists=group.revision is not None,
            revision=group.revision or "",
            num_pods=PODS if group.revision is not None else 0,
            pods=tuple(
                a_pod(
                    name,
                    number,
                    revision=pod.revision,
                    ready=pod.ready,
                    is_leaving=pod.deleting,
                    is_scheduled=pod.scheduled,
                    controller="uid",
                    trouble=trouble(pod),
                    hangs_since=NOW - timedelta(days=1) if pod.hangs else None,
                )
                for number, pod in sorted(group.pods.items())
            ),
            leaving=group.annotations.get(names.LEAVING_ANNOTATION, ""),
            served=group.annotations.get(names.SERVED_ANNOTATION, ""),
        )

    def target(self) -> Target:
        policy = Rollout.model_validate({"maxUnavailable": self.most_unavailable, "paused": self.paused})
        return replace(BASE, replicas=self.wanted, revision=self.revision, templates=TEMPLATES, policy=policy)

    def decide(self) -> Decision:
        serving = sum(group.is_available for group in self.groups.values())
        if self.accepted[0] == self.revision:
            serving = max(serving, self.accepted[1])
        self.accepted = (self.revision, serving)
        target = replace(self.target(), serving=serving, proven=tuple(self.proven))
        return decide(target, self.observe(), NOW)

    def run_operator(self, num_writes: int | None = None) -> int:
        """Run one pass; it dies after num_writes writes. Return how many it made."""
        decision = self.decide()
        self._check_choice(decision)
        writes = [write for step in decision.steps for write in self._writes(step)]
        for write in writes[:num_writes]:
            write()
            self._check()
        return len(writes)

    def _check_choice(self, decision: Decision) -> None:
        """Nobody who serves goes while one that does not may stay; nobody is counted twice."""
        who = decision.membership
        assert len(who.members) + len(who.newcomers) + len(who.waiting) == self.wanted
        going = [leaver.group for leaver in who.leavers if leaver.why == "scaled down" and not leaver.group.leaving]
        if any(group.is_available for group in going):
            assert all(group.is_available for group in who.members), "a group that serves goes, one that does not stays"
        taken = {index for index, group in self.groups.items() if group.revision is not None or group.pods}
        assert not taken & {*who.newcomers, *who.waiting}, "a newcomer takes an index that is not free"

    def _writes(self, step: GroupStep) -> list[Callable[[], None]]:
        writes: list[Callable[[], None]] = []
        group = self.groups.get(step.index)
        if step.manifest is not None:
            marks = step.manifest["metadata"].get("annotations", {})
            is_same = group is not None and (group.revision, group.annotations) == (step.revision, marks)
            if not is_same:
                writes.append(partial(self._apply, step, marks))
        if step.delete:
            writes.append(partial(self._delete, step.index))
        return writes + [partial(self._delete_pod, step.index, pod.index) for pod in step.delete_pods]

    def _apply(self, step: GroupStep, marks: dict[str, str]) -> None:
        group = self.groups.get(step.index)
        immutable = TEMPLATES[step.revision]["spec"]["podManagementPolicy"]
        if group is None:
            self.groups[step.index] = Group(step.revision, {}, dict(marks), immutable)
            return
        assert group.revision is not None, "a StatefulSet is made while pods of an earlier one remain"
        assert group.immutable == immutable, "an immutable field is changed"
        if group.revision != step.revision:
            assert not self.paused, "a group moves while the rollout is paused"
            self._take(step.index, group)
            group.fails = False
        group.revision, group.annotations = step.revision, dict(marks)

    def _take(self, index: int, group: Group) -> None:
        """A group is moved, or goes to be replaced: it must be its turn."""
        if not (group.is_available or (group.has_served and not group.has_failed)):
            return
        others = [other for number, other in self.groups.items() if number != index and other.revision == self.revision]
        new = [other for other in others if names.LEAVING_ANNOTATION not in other.annotations]
        moved_now = self.taken_down
        serving = sum(other.is_available for other in self.groups.values())
        as_many_serve = serving >= min(self.accepted[1], self.wanted)
        unproven = [
            number
            for number, other in self.groups.items()
            if other in new
            and not other.is_available
            and (any(pod.scheduled for pod in other.pods.values()) or (other.has_served and not as_many_serve))
            and number not in moved_now
        ]
        assert not unproven, "a group that serves is moved while one at the new revision has not become available"
        self.taken_down.add(index)

    def _delete(self, index: int) -> None:
        group = self.groups[index]
        assert group.annotations.get(names.LEAVING_ANNOTATION), "a group goes that was not marked"
        if group.annotations[names.LEAVING_ANNOTATION].startswith("its new revision"):
            self._take(index, group)
        group.revision = None
        for pod in group.pods.values():
            pod.deleting = True

    def _delete_pod(self, index: int, number: int) -> None:
        group = self.groups[index]
        assert group.revision is None or group.pods[number].revision != group.revision, "a current pod is deleted"
        group.pods[number].deleting = True

    def _check(self) -> None:
        available = {index for index, group in self.groups.items() if group.is_available}
        for index in available:
            self.groups[index].has_served = True
            self.proven.setdefault(self.groups[index].revision or "")
        if len(available) >= min(self.accepted[1], self.wanted):
            self.taken_down.clear()  # as many serve as ever: others stand in for them
        self.taken_down -= available
        assert len(self.taken_down) <= self.most_unavailable

    # What the cluster does by itself

    def controllers(self, *, stale: str | None = None) -> None:
        """Let pods that drain go and make those that are missing; stale: from a template the controller saw before."""
        for index, group in list(self.groups.items()):
            stays = self.drains_last
            group.pods = {number: pod for number, pod in group.pods.items() if not pod.deleting or pod.hangs or stays}
            if group.revision is None and not group.pods:
                del self.groups[index]
            elif group.revision is not None:
                for number in range(PODS):
                    group.pods.setdefault(number, Pod(stale or group.revision))
        self._schedule()

    def _schedule(self) -> None:
        """Give pods nodes, as far as there are some: to the groups made last first, which have waited longest."""
        for group in reversed(self.groups.values()):
            held = sum(any(pod.scheduled for pod in other.pods.values()) for other in self.groups.values())
            if held < self.capacity or any(pod.scheduled for pod in group.pods.values()):
                for pod in group.pods.values():
                    pod.scheduled = True

    def kubelet(self) -> None:
        """Let groups whose pods have all met become ready."""
        for group in self.groups.values():
            pods = group.pods.values()
            is_whole = len({pod.revision for pod in pods}) == 1 and len(pods) == PODS
            if is_whole and group.revision != "broken" and not group.fails:
                for pod in pods:
                    pod.ready = pod.scheduled and not pod.deleting and pod.revision != "broken"
        self._check()

    def kill(self, index: int) -> None:
        """Its ranks die; it loads its weights again."""
        for pod in self.groups.get(index, Group(None)).pods.values():
            pod.ready = False

    def lose(self, index: int) -> None:
        """Somebody deletes the StatefulSet by hand."""
        group = self.groups.get(index)
        if group is not None and group.revision is not None:
            group.revision, group.annotations = None, {}
            for pod in group.pods.values():
                pod.deleting = True
            self.taken_down.discard(index)

    def lose_node(self, index: int) -> None:
        """The node of its first pod stops answering, and the pod is told to go by the node controller."""
        pod = self.groups.get(index, Group(None)).pods.get(0)
        if pod is not None and pod.scheduled:
            pod.deleting, pod.hangs, pod.ready = True, True, False

    def nodes_return(self) -> None:
        for group in self.groups.values():
            for pod in group.pods.values():
                pod.hangs = False


EDITS = {
    "edit": "revision",
    "scale": "wanted",
    "capacity": "capacity",
    "pause": "paused",
    "drains last": "drains_last",
}
"""Actions that set an attribute of the world."""


def perform(world: World, action: str, argument: Any) -> None:
    if action in EDITS:
        setattr(world, EDITS[action], argument)
        return
    match action:
        case "pass":
            world.run_operator()
        case "crash":
            world.run_operator(argument)
        case "controllers":
            world.controllers()
        case "stale controllers":
            world.controllers(stale=argument)
        case "kubelet":
            world.kubelet()
        case "kill":
            world.kill(argument)
        case "lose":
            world.lose(argument)
        case "lose node":
            world.lose_node(argument)


def settle(world: World, *, turns: int = 120) -> int:
    """Run passes and controllers until a pass has nothing to write; return how many it took."""
    for turn in range(turns):
        before = repr(world.groups)
        world.run_operator()
        world.controllers()
        world.kubelet()
        if repr(world.groups) == before:
            return turn
    raise AssertionError(f"no end: {world.groups}")


def make_whole(world: World) -> None:
    """Take away all that keeps a rollout from its end."""
    world.paused, world.drains_last, world.capacity = False, False, 100
    world.nodes_return()
    if world.revision == "broken":
        world.revision = "r1"
