"""decide(target, observed) -> the next safe step of every group. Pure; its laws are in tests/unit/operator/rollout.

- A group moves to another revision as a whole: its template is replaced and every pod of another revision deleted.
- A group that serves, served or is coming up moves only when no group at the target's revision is still to become
  available, and at most maxUnavailable of them at once; one that is down already goes first.
- A group that never served and has failed moves at once: nothing is lost by it.
- A group that never could be scheduled blocks nobody.
- A group keeps the template of its revision until its turn, and comes back from it.
- Where a new revision changes what no update can change, the group goes and another takes its place.
- Newcomers get the target's revision once it is proven, or if nothing else serves; before that, what serves now.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from glm_operator import names
from glm_operator.manifest import Manifest
from glm_operator.observe.observed import CREATION_LIMIT, Observed, ObservedGroup, ObservedPod
from glm_operator.render import needs_another
from glm_operator.rollout.membership import CANNOT_CHANGE, Leaver, Membership, membership
from glm_operator.rollout.target import Target

EARLIER = "earlier"
"""Mark of a group that served and was moved: also back to a revision at which it served once."""


@dataclass(frozen=True)
class GroupStep:
    """What one pass does to one group, in this order."""

    index: int
    name: str
    revision: str  # of the manifest
    manifest: Manifest | None  # its StatefulSet as it should be; None: leave it as it is
    delete: bool = False  # delete its StatefulSet, and with it the pods
    delete_pods: tuple[ObservedPod, ...] = ()
    why: str = ""  # it moves or goes

    @property
    def takes_away(self) -> bool:
        """Whether it ends something that runs: live state is read before."""
        return self.delete or bool(self.delete_pods)


@dataclass(frozen=True)
class Decision:
    """One safe step of every group, and what the next ones wait for."""

    steps: tuple[GroupStep, ...]
    membership: Membership
    outdated: tuple[str, ...] = ()  # members that are not of the target's revision yet
    moved: tuple[str, ...] = ()  # members that this step moves
    unproven: tuple[ObservedGroup, ...] = ()  # at the target's revision, still to become available
    is_complete: bool = False  # every group is at the target's revision and serves, or lacks room
    waits_until: datetime | None = None  # nothing of the cluster tells when this time has come


def decide(
    target: Target,
    observed: Observed,
    now: datetime,
    *,
    in_flight_tokens: Mapping[str, int] | None = None,
    failed: Collection[str] = (),
    served: Collection[str] = (),
    refused: Collection[str] = (),
) -> Decision:
    """Return the next step of every group, wanted or there.

    in_flight_tokens: by group, just read. failed: groups with trouble that lasts, as their pods or workers report.
    served: groups whose workers say that they served; the mark on a StatefulSet may be missing.
    refused: newcomers that could not be written just now: they hold up nobody.
    """
    who = membership(target, observed, in_flight_tokens or {}, now)
    min_ready = timedelta(seconds=target.policy.min_ready_seconds)
    available = {group.name for group in who.members if group.is_available_for(min_ready, now)}
    outdated = [group for group in who.members if group.exists and group.revision != target.revision]
    unproven = _unproven(target, who, available, now)
    about_to_be = {names.group_name(target.name, index) for index in who.newcomers}
    is_held = bool(unproven or about_to_be - {*refused})
    moving = _moving(target, who, available, outdated, failed, served, is_held=is_held)
    steps = [_member_step(target, observed, group, moving) for group in who.members]
    revisions = _revisions_of_newcomers(target, who, available, unproven)
    steps += [_newcomer_step(target, index, revision) for index, revision in zip(who.newcomers, revisions, strict=True)]
    steps += [_removal(target, leaver) for leaver in who.leavers]
    steps += [_leftovers(group) for group in who.draining]
    return Decision(
        steps=tuple(steps),
        membership=who,
        outdated=tuple(group.name for group in outdated),
        moved=tuple(moving),
        unproven=tuple(unproven),
        is_complete=not (outdated or unproven or who.newcomers or who.waiting) and _as_many_serve(target, available),
        waits_until=_waits_until(target, who, unproven, min_ready, now),
    )


def newcomers(decision: Decision) -> set[str]:
    """Return the names of the groups that a decision makes anew."""
    return {step.name for step in decision.steps if step.index in decision.membership.newcomers}


def foresee(observed: Observed, steps: Iterable[GroupStep]) -> Observed:
    """Return what is observed as these steps leave it, so that a status never praises what its pass just took down."""
    groups = dict(observed.groups)
    for step in steps:
        group = groups.get(step.index)
        if step.manifest is not None and not step.delete:
            group = group or _missing(step)
            num_pods = step.manifest["spec"]["replicas"]
            served = (step.manifest["metadata"].get("annotations") or {}).get(names.SERVED_ANNOTATION, "")
            group = replace(group, exists=True, revision=step.revision, num_pods=num_pods, served=served)
        if group is not None:
            going = group.pods if step.delete else step.delete_pods
            pods = tuple(replace(pod, is_leaving=True, trouble=None) if pod in going else pod for pod in group.pods)
            groups[step.index] = replace(group, exists=group.exists and not step.delete, pods=pods)
    return replace(observed, groups=groups)


def repair(observed: Observed) -> tuple[GroupStep, ...]:
    """Return what is due without a target: groups stay frozen, only pods of another revision than theirs go."""
    return tuple(
        GroupStep(group.index, group.name, group.revision, None, delete_pods=_strays(group, group.revision))
        for group in observed.groups.values()
        if group.exists
    )


def _as_many_serve(target: Target, available: Collection[str]) -> bool:
    """Tell whether nobody is missing whom the rollout, or anything else, took since it began."""
    return len(available) >= min(target.serving, target.replicas)


def _unproven(target: Target, who: Membership, available: Collection[str], now: datetime) -> list[ObservedGroup]:
    """Return the members at the target's revision that are still to show that it works.

    Not those that lack room in the cluster, as long as as many serve as before: one that never had a place, and one
    whose place another group took that serves at the new revision.
    """
    at_target = [group for group in who.members if group.exists and group.revision == target.revision]
    is_proven = any(group.name in available for group in at_target)
    excused = [
        group
        for group in at_target
        if _as_many_serve(target, available) and group.lacks_room(now) and (is_proven or not group.served)
    ]
    return [group for group in at_target if group.name not in available and group not in excused]


def _moving(
    target: Target,
    who: Membership,
    available: Collection[str],
    outdated: list[ObservedGroup],
    failed: Collection[str],
    served: Collection[str],
    *,
    is_held: bool,
) -> dict[str, ObservedGroup]:
    """Return the groups that take the target's template in this step.

    is_held: a group is still to show that the target's revision works, or is about to.
    """
    if target.policy.paused:
        return {}

    def has_failed(group: ObservedGroup) -> bool:
        return group.name not in available and (group.name in failed or group.trouble is not None)

    is_proven = any(group.name in available and group.revision == target.revision for group in who.members)
    # Nothing is lost by moving what never served and has failed; nor, to what is proven, what served and has failed.
    free = [
        group
        for group in outdated
        if has_failed(group) and ((not group.has_served and group.name not in served) or (is_proven and not is_held))
    ]
    moving = {group.name: group for group in free}
    if is_held:
        return moving
    most = target.policy.most_unavailable(target.replicas)
    rest = [group for group in outdated if group.name not in moving]
    # Those that serve, but not for minReadySeconds yet, come last: they answer.
    down = sorted((group for group in rest if group.name not in available), key=lambda group: group.is_available)
    # Groups that are down by themselves take from the budget, too; so do those that went and have no successor yet.
    others_down = [group for group in who.members if group.name not in available and group.has_served]
    wave = down[:most]
    room = most - len({group.name for group in [*others_down, *wave]})
    spare = len(available) - (min(target.serving, target.replicas) - most)
    wave += [group for group in rest if group.name in available][: max(0, min(room, spare))]
    return moving | {group.name: group for group in wave}


def _member_step(
    target: Target, observed: Observed, group: ObservedGroup, moving: Mapping[str, ObservedGroup]
) -> GroupStep:
    moves = group.name in moving or not group.exists
    revision = _revision_of_orphans(target, group) if not group.exists else target.revision if moves else group.revision
    served = _served(group, moves=group.name in moving)
    manifest = target.manifest(group.name, revision, {names.SERVED_ANNOTATION: served} if served else {})
    live = observed.stateful_set(group.name)
    if manifest is not None and live is not None and group.exists and needs_another(manifest, live):
        if group.name not in moving:
            return GroupStep(group.index, group.name, group.revision, None, delete_pods=_strays(group, group.revision))
        return _removal(target, Leaver(group, CANNOT_CHANGE))
    return GroupStep(
        group.index,
        group.name,
        revision,
        manifest,
        delete_pods=_strays(group, revision) if manifest is not None or group.exists else (),
        why=f"moved to revision {revision}" if group.name in moving else "",
    )


def _served(group: ObservedGroup, *, moves: bool) -> str:
    """Return the mark of what a group served at: its revision, EARLIER from its move until it serves again, or none."""
    if moves:
        return EARLIER if group.served or group.is_available else ""
    return group.revision if group.is_available else group.served


def _revision_of_orphans(target: Target, group: ObservedGroup) -> str:
    """Return the revision of a StatefulSet that is made again over pods that nobody controls: theirs, if it is kept."""
    theirs = {pod.revision for pod in group.pods if not pod.is_leaving}
    (revision, *others) = theirs
    return revision if not others and revision in target.templates else target.revision


def _revisions_of_newcomers(
    target: Target, who: Membership, available: Collection[str], unproven: list[ObservedGroup]
) -> list[str]:
    """Return the revision of each newcomer.

    The target's, once it is proven. Before that what serves, or what is known to: the newest revision at which a group
    was available. But the first newcomer shows whether the target's works, unless another group is about to, or the
    rollout is paused; and where nothing is left that could serve, and nothing holds the rollout, all of them do.
    """
    num = len(who.newcomers)
    serving = [group.revision for group in who.members if group.name in available]
    if target.revision in target.proven or target.revision in serving:
        return [target.revision] * num
    held = bool(unproven) or target.policy.paused
    kept = [revision for revision in serving if revision in target.templates]
    known = [revision for revision in target.proven if revision in target.templates]
    if not kept and (not known or (not held and not who.members)):
        return [target.revision] * num
    base = max(kept, key=lambda revision: (kept.count(revision), revision)) if kept else known[0]
    return [target.revision if not held and place == 0 else base for place in range(num)]


def _newcomer_step(target: Target, index: int, revision: str) -> GroupStep:
    group = names.group_name(target.name, index)
    return GroupStep(index, group, revision, target.manifest(group, revision, {}))


def _removal(target: Target, leaver: Leaver) -> GroupStep:
    """Mark a group that goes, so that the choice survives us, and delete it. Orphans of it go one by one."""
    group = leaver.group
    if not group.exists:
        return replace(_leftovers(group), why=leaver.why)
    marks = {names.LEAVING_ANNOTATION: leaver.why}
    if group.served:
        marks[names.SERVED_ANNOTATION] = group.served
    manifest = target.manifest(group.name, group.revision, marks)
    return GroupStep(group.index, group.name, group.revision, manifest, delete=True, why=leaver.why)


def _leftovers(group: ObservedGroup) -> GroupStep:
    # Pods of a StatefulSet that is gone are collected, those of somebody else's would only be made again.
    orphans = tuple(pod for pod in group.pods if pod.controller is None and not pod.is_leaving)
    return GroupStep(group.index, group.name, group.revision, None, delete_pods=orphans)


def _waits_until(
    target: Target, who: Membership, unproven: list[ObservedGroup], min_ready: timedelta, now: datetime
) -> datetime | None:
    """Return when the next thing happens that no event tells of: a group has been ready, or lost, for long enough."""
    lost_after = timedelta(seconds=target.policy.node_loss_seconds)
    times = [
        pod.ready_changed_at + min_ready
        for group in who.members
        if group.is_available and not group.is_available_for(min_ready, now)
        for pod in group.pods
        if pod.ready_changed_at is not None
    ]
    deadline = timedelta(seconds=target.progress_deadline_s)
    times += [group.down_since + deadline for group in unproven if group.down_since is not None]
    times += [
        group.changed_at + CREATION_LIMIT for group in who.members if group.missing and group.changed_at is not None
    ]
    times += [
        pod.hangs_since + lost_after for group in who.members for pod in group.pods if pod.hangs_since is not None
    ]
    return min((at for at in times if at > now), default=None)


def _strays(group: ObservedGroup, revision: str) -> tuple[ObservedPod, ...]:
    return tuple(pod for pod in group.pods if pod.revision != revision and not pod.is_leaving)


def _missing(step: GroupStep) -> ObservedGroup:
    return ObservedGroup(index=step.index, name=step.name, exists=False, revision="", num_pods=0, pods=())


def stuck(target: Target, decision: Decision, now: datetime) -> ObservedGroup | None:
    """Return the group at which a rollout stands still: it had its time to become available, and is not."""
    deadline = timedelta(seconds=target.progress_deadline_s)
    waited_for = [group for group in decision.unproven if decision.outdated or not group.has_served]
    late = [
        group
        for group in waited_for
        if not group.is_available and group.down_since is not None and now - group.down_since > deadline
    ]
    return late[0] if late else None
