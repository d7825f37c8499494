"""membership(target, observed) -> who belongs: which groups stay, which are new, which go. Pure.

Groups have any indices. A newcomer takes the lowest free one; an index is free when no pod of it remains and nobody
else's StatefulSet has its name, so a scale-up during a drain does not wait for old pods. Who goes is chosen: first
those that serve nobody, then outdated ones, then the one with the fewest tokens in flight, then the highest index. A
choice is marked on the StatefulSet, so it survives the operator; what is marked goes, whatever is wanted afterwards.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from glm_operator import names
from glm_operator.observe.observed import Observed, ObservedGroup
from glm_operator.rollout.target import Target

SCALED_DOWN = "scaled down"
NODE_LOST = "its node is lost"
CANNOT_CHANGE = "its new revision changes what no update can change"


@dataclass(frozen=True)
class Leaver:
    """A group that goes, and why."""

    group: ObservedGroup
    why: str


@dataclass(frozen=True)
class Membership:
    """Who belongs. members and newcomers together are as many as are wanted, but while a newcomer waits its turn."""

    members: tuple[ObservedGroup, ...]
    newcomers: tuple[int, ...]  # free indices, to be made now
    waiting: tuple[int, ...]  # free indices, to be made when the groups before them are scheduled
    leavers: tuple[Leaver, ...]  # whose StatefulSet is still there
    draining: tuple[ObservedGroup, ...]  # whose StatefulSet is gone and whose pods are not


def staying(observed: Observed) -> list[ObservedGroup]:
    """Return the groups that are there for good."""
    groups = observed.groups.values()
    return [group for group in groups if group.is_staying and not observed.is_of_others(group)]


def needs_load(target: Target, observed: Observed) -> bool:
    """Tell whether the tokens in flight decide who goes: more groups that serve than may stay."""
    return len(staying(observed)) > target.replicas > 0


def membership(target: Target, observed: Observed, in_flight_tokens: Mapping[str, int], now: datetime) -> Membership:
    """Return who belongs. in_flight_tokens: by name of the group, as just read; one that is not in it is unknown."""
    lost_after = timedelta(seconds=target.policy.node_loss_seconds)
    marked = [
        Leaver(group, group.leaving)
        for group in observed.groups.values()
        if group.exists and group.leaving and not observed.is_of_others(group)
    ]
    present = staying(observed)
    lost = [group for group in present if group.hangs_for(now) >= lost_after]
    whole = [group for group in present if group not in lost]
    by_worth = sorted(whole, key=lambda group: _worth(group, target, in_flight_tokens))
    surplus = by_worth[: max(0, len(whole) - target.replicas)]
    members = tuple(group for group in whole if group not in surplus)
    leavers = [
        *marked,
        *(Leaver(group, NODE_LOST) for group in lost),
        *(Leaver(group, SCALED_DOWN) for group in surplus),
    ]
    free = _free_indices(observed, target.name, target.replicas - len(members))
    turn = len(free) if target.pods_per_group == 1 else _num_admitted(members)
    return Membership(
        members=members,
        newcomers=tuple(free[:turn]),
        waiting=tuple(free[turn:]),
        leavers=tuple(leaver for leaver in leavers if leaver.group.exists or leaver.group in present),
        draining=tuple(
            group
            for group in observed.groups.values()
            if not group.exists and not group.is_staying and not observed.is_of_others(group)
        ),
    )


def _worth(
    group: ObservedGroup, target: Target, in_flight_tokens: Mapping[str, int]
) -> tuple[bool, bool, bool, bool, int, int]:
    """Return the order in which groups go, the first to go being the least."""
    tokens = in_flight_tokens.get(group.name)
    return (
        group.is_available,
        group.is_scheduled,
        group.revision == target.revision,
        tokens is None,  # unknown is not zero: it goes after those that are known
        tokens or 0,
        -group.index,
    )


def _free_indices(observed: Observed, deployment: str, count: int) -> list[int]:
    """Return the lowest indices that nothing of ours or of others occupies."""
    taken = {group.index for group in observed.groups.values()}
    found: list[int] = []
    index = 0
    while len(found) < count:
        if index not in taken and names.group_name(deployment, index) not in observed.foreign:
            found.append(index)
        index += 1
    return found


def _num_admitted(members: tuple[ObservedGroup, ...]) -> int:
    """Return how many newcomers of several pods are made now: one, once every group before has its pods on nodes.

    Two that are made at once could each hold half of what the other waits for.
    """
    return 1 if all(group.is_scheduled or group.is_available for group in members) else 0
