"""Laws over whole rollouts, on a world that breaks, is edited, and loses its operator between any two writes."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st

from glm_operator.observe.observed import Observed, ObservedGroup
from glm_operator.rollout.steps import GroupStep, Target, plan_rollout
from unit.operator.operator_builders import a_pod, a_target

PODS = 2
BASE = a_target()


@dataclass
class Pod:
    """A pod of the world."""

    revision: str
    ready: bool = False
    deleting: bool = False


@dataclass
class Group:
    """A StatefulSet with its pods; revision None: deleted, its pods drain."""

    revision: str | None
    pods: dict[int, Pod] = field(default_factory=dict)

    @property
    def is_available(self) -> bool:
        return len(self.pods) == PODS and all(
            pod.ready and not pod.deleting and pod.revision == self.revision for pod in self.pods.values()
        )


class World:
    """Groups, a wanted number and revision, and the promise that a rollout never takes down two at once."""

    def __init__(self) -> None:
        self.groups: dict[int, Group] = {}
        self.wanted = 1
        self.revision = "r0"
        self.taken_down: set[int] = set()  # by a rollout, while available, and not back since

    def observe(self) -> Observed:
        return Observed(
            groups={
                index: ObservedGroup(
                    index=index,
                    name=f"chat-g{index}",
                    exists=group.revision is not None,
                    revision=group.revision or "",
                    num_pods=PODS,
                    pods=tuple(
                        a_pod(f"chat-g{index}", number, revision=pod.revision, ready=pod.ready, is_leaving=pod.deleting)
                        for number, pod in sorted(group.pods.items())
                    ),
                )
                for index, group in sorted(self.groups.items())
            }
        )

    def target(self) -> Target:
        spec = BASE.deployment.spec.model_copy(update={"replicas": self.wanted})
        return replace(BASE, deployment=BASE.deployment.with_spec(spec), revision=self.revision)

    def run_operator(self, num_writes: int | None = None) -> int:
        """Run one pass; it dies after num_writes writes. Return how many it made."""
        writes = [write for step in plan_rollout(self.target(), self.observe()).steps for write in self._writes(step)]
        for write in writes[:num_writes]:
            write()
            self._check()
        return len(writes)

    def _writes(self, step: GroupStep) -> list[Callable[[], None]]:
        writes: list[Callable[[], None]] = []
        group = self.groups.get(step.index)
        if step.render and (group is None or group.revision != self.revision):
            writes.append(partial(self._apply, step.index))
        if step.delete:
            writes.append(partial(self._delete, step.index))
        return writes + [partial(self._delete_pod, step.index, pod.index) for pod in step.delete_pods]

    def _apply(self, index: int) -> None:
        group = self.groups.setdefault(index, Group(self.revision))
        if group.is_available and group.revision != self.revision:
            others = [self.groups.get(other) for other in range(self.wanted) if other != index]
            assert all(other is not None and other.is_available for other in others), "a second group is taken down"
            self.taken_down.add(index)
        group.revision = self.revision

    def _delete(self, index: int) -> None:
        assert index >= self.wanted, "a wanted group is deleted"
        self.groups[index].revision = None
        for pod in self.groups[index].pods.values():
            pod.deleting = True

    def _delete_pod(self, index: int, number: int) -> None:
        group = self.groups[index]
        assert group.revision is None or group.pods[number].revision != group.revision, "a current pod is deleted"
        group.pods[number].deleting = True

    def _check(self) -> None:
        self.taken_down = {
            index for index in self.taken_down if index < self.wanted and not self.groups[index].is_available
        }
        assert len(self.taken_down) <= 1

    # What the cluster does by itself

    def controllers(self, *, stale: str | None = None) -> None:
        """Let pods that drain go and make those that lack; stale: from a template the controller saw before."""
        for index, group in list(self.groups.items()):
            group.pods = {number: pod for number, pod in group.pods.items() if not pod.deleting}
            if group.revision is None and not group.pods:
                del self.groups[index]
            elif group.revision is not None:
                for number in range(PODS):
                    group.pods.setdefault(number, Pod(stale or group.revision))

    def kubelet(self) -> None:
        """Let groups whose pods have all met become ready."""
        for group in self.groups.values():
            if len({pod.revision for pod in group.pods.values()}) == 1 and len(group.pods) == PODS:
                for pod in group.pods.values():
                    pod.ready = not pod.deleting

    def kill(self, index: int) -> None:
        for pod in self.groups.get(index, Group(None)).pods.values():
            pod.ready = False

    def lose(self, index: int) -> None:
        """Somebody deletes the StatefulSet by hand."""
        group = self.groups.get(index)
        if group is not None and group.revision is not None:
            group.revision = None
            for pod in group.pods.values():
                pod.deleting = True
            self.taken_down.discard(index)


index = st.integers(0, 3)
actions = st.one_of(
    st.tuples(st.just("pass"), st.none()),
    st.tuples(st.just("crash"), st.integers(0, 4)),
    st.tuples(st.just("controllers"), st.none()),
    st.tuples(st.just("stale controllers"), st.sampled_from(["r0", "r1"])),
    st.tuples(st.just("kubelet"), st.none()),
    st.tuples(st.just("kill"), index),
    st.tuples(st.just("lose"), index),
    st.tuples(st.just("edit"), st.sampled_from(["r0", "r1", "r2"])),
    st.tuples(st.just("scale"), st.integers(0, 4)),
)


def perform(world: World, action: str, argument: object) -> None:
    match action, argument:
        case "pass", _:
            world.run_operator()
        case "crash", int(num_writes):
            world.run_operator(num_writes)
        case "controllers", _:
            world.controllers()
        case "stale controllers", str(revision):
            world.controllers(stale=revision)
        case "kubelet", _:
            world.kubelet()
        case "kill", int(which):
            world.kill(which)
        case "lose", int(which):
            world.lose(which)
        case "edit", str(revision):
            world.revision = revision
        case "scale", int(wanted):
            world.wanted = wanted


def settle(world: World) -> int:
    """Run passes and controllers until a pass has nothing to write; return how many it took."""
    for turn in range(100):
        if world.run_operator() == 0 and all(group.is_available for group in world.groups.values()):
            return turn
        world.controllers()
        world.kubelet()
    raise AssertionError(f"no end: {world.groups}")


@settings(max_examples=400, deadline=None)
@given(st.lists(actions, max_size=40))
def test_a_rollout_takes_down_one_group_at_a_time_and_ends_wherever_it_was_interrupted(
    story: list[tuple[str, object]],
) -> None:
    world = World()
    for action, argument in story:
        perform(world, action, argument)
    turns = settle(world)
    assert turns <= 4 * (world.wanted + 4)
    assert set(world.groups) == set(range(world.wanted))
    assert {group.revision for group in world.groups.values()} <= {world.revision}


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 4), st.integers(0, 4))
def test_scaling_makes_and_removes_groups_and_touches_no_other(before: int, after: int) -> None:
    world = World()
    world.wanted = before
    settle(world)
    kept = {index: group.pods for index, group in world.groups.items() if index < after}
    world.wanted = after
    settle(world)
    assert set(world.groups) == set(range(after))
    assert all(world.groups[index].pods == pods for index, pods in kept.items())


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 4), st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_an_operator_that_dies_after_every_few_writes_still_finishes(wanted: int, deaths: list[int]) -> None:
    world = World()
    world.wanted = wanted
    settle(world)
    world.revision = "r1"
    for num_writes in deaths:
        world.run_operator(num_writes)
        world.controllers()
        world.kubelet()
    settle(world)
    assert {group.revision for group in world.groups.values()} == {"r1"}
