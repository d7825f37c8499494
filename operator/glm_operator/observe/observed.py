"""What exists of one deployment, read out of live objects into values. Pure: dicts and the time in, Observed out.

Only what a decision or a sentence in the status needs is kept; the live objects themselves stay in `live`, for the
comparison with what is to be applied.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from glm_operator import names
from glm_operator.api.trouble import Trouble
from glm_operator.manifest import Manifest, kind_of, name_of
from glm_operator.observe.gateway import GatewayPod, gateway_pods, is_gateway
from glm_operator.observe.pod_trouble import node_loss, pod_trouble

ObjectKey = tuple[str, str, str]  # apiVersion, kind, name

IMMUTABLE_FIELDS = ("selector", "serviceName", "podManagementPolicy", "volumeClaimTemplates")
"""Fields of a StatefulSet's spec that no update may change: only deleting and creating it does."""


CREATION_LIMIT = timedelta(seconds=30)
"""A pod that is missing for longer is not on its way: something keeps the StatefulSet's controller from making it."""


@dataclass(frozen=True)
class ObservedPod:
    """One pod of a group."""

    name: str
    uid: str
    index: int
    controller: str | None  # uid of what made it and would make it again; None for an orphan
    revision: str
    is_ready: bool
    is_leaving: bool  # told to go, or about to be: the StatefulSet that made it is gone
    is_scheduled: bool
    running_since: datetime | None  # its worker, as the kubelet says; None while it does not run
    ip: str | None
    restarts: int
    trouble: Trouble | None
    ready_changed_at: datetime | None = None  # when it became ready, or ceased to be
    created_at: datetime | None = None
    hangs_since: datetime | None = None  # when it was told to go; None unless its node does not let it


@dataclass(frozen=True)
class ObservedGroup:
    """One replica group: its StatefulSet, if there is one, and the pods that carry its name."""

    index: int
    name: str
    exists: bool  # has a StatefulSet that is not being deleted
    revision: str  # of the StatefulSet's template; "" without one
    num_pods: int
    pods: tuple[ObservedPod, ...]
    refused: Trouble | None = None  # what the API server says of the first missing pod, where it was asked
    leaving: str = ""  # why it goes, where it was marked so; "" if it stays
    served: str = ""  # the revision at which it was available once, as marked
    changed_at: datetime | None = None  # its StatefulSet, by us

    @property
    def is_available(self) -> bool:
        """Whether all pods are there, ready, staying, and of the revision the group is frozen at."""
        current = [pod for pod in self.pods if pod.revision == self.revision and pod.is_ready and not pod.is_leaving]
        return self.exists and 0 < len(current) == self.num_pods == len(self.pods)

    def is_available_for(self, min_ready: timedelta, now: datetime) -> bool:
        """Whether it has been available this long."""
        return self.is_available and all(
            pod.ready_changed_at is None or now - pod.ready_changed_at >= min_ready for pod in self.pods
        )

    @property
    def has_served(self) -> bool:
        """Whether it was available once at the revision it has: then it serves, or is coming back."""
        return self.is_available or (bool(self.served) and self.served == self.revision)

    @property
    def is_scheduled(self) -> bool:
        """Whether every pod of it has a node."""
        return self.exists and sum(pod.is_scheduled for pod in self.pods if not pod.is_leaving) >= self.num_pods

    @property
    def is_staying(self) -> bool:
        """Whether it is a group for good: its StatefulSet stands, or pods that nobody controls wait for one."""
        return (self.exists and not self.leaving) or (
            not self.exists and any(pod.controller is None and not pod.is_leaving for pod in self.pods)
        )

    def hangs_for(self, now: datetime) -> timedelta:
        """Return how long a pod has hung on a node that does not answer."""
        since = [pod.hangs_since for pod in self.pods if pod.hangs_since is not None]
        return now - min(since) if since else timedelta(0)

    @property
    def leader(self) -> ObservedPod | None:
        """The rank-0 pod, if it is of the group's revision."""
        return next((pod for pod in self.pods if pod.index == 0 and pod.revision == self.revision), None)

    @property
    def missing(self) -> tuple[int, ...]:
        """Indices of the pods its StatefulSet has to make; none while others leave, whose places they take."""
        if any(pod.is_leaving for pod in self.pods):
            return ()
        there = {pod.index for pod in self.pods}
        return tuple(index for index in range(self.num_pods) if index not in there)

    @property
    def trouble(self) -> Trouble | None:
        """What keeps the first troubled pod down, or from being made."""
        return next((pod.trouble for pod in self.pods if pod.trouble is not None), self.refused)

    @property
    def down_since(self) -> datetime | None:
        """Since when it has had its chance to become available: since our change of it, or since it ceased to be."""
        if not self.has_served:
            return self.changed_at
        times = [self.changed_at, *(pod.ready_changed_at for pod in self.pods if not pod.is_ready)]
        return max((at for at in times if at is not None), default=None)

    def lacks_room(self, now: datetime) -> bool:
        """Whether the cluster has no place for it: no node takes a pod, or a pod may not even be created."""
        if self.trouble is not None and self.trouble.reason == "Unschedulable":
            return True
        return bool(self.missing) and self.changed_at is not None and now - self.changed_at > CREATION_LIMIT


@dataclass(frozen=True)
class Record:
    """One accepted spec and what was rendered from it, as kept in a ControllerRevision."""

    name: str
    number: int  # the highest is the last accepted
    spec: Mapping[str, object]
    revision: str  # of the pod template rendered from it
    replicas: int | None
    template: Manifest | None = None  # None: of a version that kept the spec alone
    image: str = ""
    is_adopted: bool = False
    is_adopting: bool = False  # adopted, and not every group was there yet
    serving: int | None = None  # the most groups that served since it was accepted
    is_proven: bool = False  # a group was available at its revision
    is_guarded: bool = False  # without access.auth, clients are asked for API keys
    accepted_at: datetime | None = None


@dataclass(frozen=True)
class Observed:
    """Everything of one deployment at one moment."""

    groups: Mapping[int, ObservedGroup] = field(default_factory=dict)
    records: tuple[Record, ...] = ()
    live: Mapping[ObjectKey, Manifest] = field(default_factory=dict)
    foreign: Mapping[str, Manifest] = field(
        default_factory=dict
    )  # StatefulSets with a group's labels that are not ours
    gateway: tuple[GatewayPod, ...] = ()

    @property
    def has_groups(self) -> bool:
        """Whether any group of ours exists."""
        return any(group.exists for group in self.groups.values())

    def is_of_others(self, group: ObservedGroup) -> bool:
        """Tell whether the name is that of somebody else's StatefulSet: then the pods are not ours, either."""
        return not group.exists and group.name in self.foreign

    def stateful_set(self, group: str) -> Manifest | None:
        """Return the live StatefulSet of a group."""
        return self.live.get(("apps/v1", "StatefulSet", group))


@dataclass(frozen=True)
class Seen:
    """A deployment and what exists of it, at one moment."""

    body: Manifest
    observed: Observed


def observe(
    deployment: str, uid: str, objects: Iterable[Manifest], pods: Iterable[Manifest], now: datetime
) -> Observed:
    """Return what exists of a deployment. objects: all with its label; what others control is no part of it."""
    found = list(objects)
    owned = [item for item in found if is_controlled_by(item, uid)]
    sets_of_others = [item for item in found if item["kind"] == "StatefulSet" and not is_controlled_by(item, uid)]
    sets = {index: item for item in owned if (index := _group_index(deployment, item)) is not None}
    by_group: dict[int, list[ObservedPod]] = {}
    all_pods = list(pods)
    of_gateway = [pod for pod in all_pods if is_gateway(pod)]
    for pod in all_pods:
        index = _group_index(deployment, pod)
        if index is not None and _is_member(pod, names.group_name(deployment, index)):
            by_group.setdefault(index, []).append(_pod(pod, sets.get(index), now))
    return Observed(
        groups={
            index: _group(deployment, index, sets.get(index), by_group.get(index, []))
            for index in sorted(sets.keys() | by_group.keys())
        },
        records=tuple(_record(item) for item in owned if item["kind"] == "ControllerRevision"),
        live={(*kind_of(item), name_of(item)): item for item in owned},
        foreign={name_of(item): item for item in sets_of_others if _group_index(deployment, item) is not None},
        gateway=gateway_pods(of_gateway, [pod_trouble(pod, now) for pod in of_gateway]),
    )


def is_controlled_by(manifest: Manifest, uid: str) -> bool:
    """Tell whether the object's controller is the deployment of that uid."""
    return _controller(manifest) == uid


def _controller(manifest: Manifest) -> str | None:
    """Return the uid of what made the object and answers for it; None for an orphan."""
    owners = manifest["metadata"].get("ownerReferences") or []
    return next((owner["uid"] for owner in owners if owner.get("controller")), None)


def _group_index(deployment: str, item: Manifest) -> int | None:
    group = (item["metadata"].get("labels") or {}).get(names.GROUP_LABEL, "")
    match = re.fullmatch(re.escape(deployment) + r"-g(\d{1,6})", group)
    return int(match[1]) if match else None


def _is_member(pod: Manifest, group: str) -> bool:
    """Tell whether the name is one its StatefulSet gives; a debugging copy has the labels, too, and is no member."""
    return re.fullmatch(re.escape(group) + r"-\d+", name_of(pod)) is not None


def _group(deployment: str, index: int, stateful_set: Manifest | None, pods: list[ObservedPod]) -> ObservedGroup:
    exists = stateful_set is not None and "deletionTimestamp" not in stateful_set["metadata"]
    spec = stateful_set["spec"] if stateful_set is not None and exists else {}
    annotations = (stateful_set["metadata"].get("annotations") or {}) if stateful_set is not None and exists else {}
    template_labels = spec.get("template", {}).get("metadata", {}).get("labels", {})
    return ObservedGroup(
        index=index,
        name=names.group_name(deployment, index),
        exists=exists,
        revision=template_labels.get(names.REVISION_LABEL, ""),
        num_pods=spec.get("replicas", 0),
        pods=tuple(sorted(pods, key=lambda pod: (pod.index, pod.name))),
        leaving=annotations.get(names.LEAVING_ANNOTATION, ""),
        served=annotations.get(names.SERVED_ANNOTATION, ""),
        changed_at=_changed_at(stateful_set) if stateful_set is not None else None,
    )


def _changed_at(item: Manifest) -> datetime | None:
    """Return when we last changed an object, as the API server keeps it of every field manager; else its creation."""
    metadata = item["metadata"]
    ours = [entry for entry in metadata.get("managedFields") or [] if entry.get("manager") == names.FIELD_MANAGER]
    times = [_time(entry.get("time")) for entry in ours] or [_time(metadata.get("creationTimestamp"))]
    return max((at for at in times if at is not None), default=None)


def _pod(pod: Manifest, stateful_set: Manifest | None, now: datetime) -> ObservedPod:
    """Return one pod. One made by an earlier StatefulSet of the name still runs until Kubernetes collects it."""
    maker = _controller(pod)  # none: the present StatefulSet adopts it
    is_of_another = stateful_set is not None and maker not in (None, stateful_set["metadata"].get("uid"))
    is_told_to_go = "deletionTimestamp" in pod["metadata"]
    status, labels = pod.get("status", {}), pod["metadata"].get("labels", {})
    conditions = {condition["type"]: condition for condition in status.get("conditions") or []}
    ready = conditions.get("Ready", {})
    is_ready = ready.get("status") == "True"
    # The label is set by the StatefulSet controller; the ordinal at the end of the name is the same.
    ordinal = labels.get(names.POD_INDEX_LABEL) or name_of(pod).rpartition("-")[2]
    return ObservedPod(
        name=name_of(pod),
        uid=pod["metadata"].get("uid", ""),
        index=int(ordinal) if ordinal.isdecimal() else 0,
        controller=maker,
        revision=labels.get(names.REVISION_LABEL, ""),
        is_ready=is_ready,
        is_leaving=is_told_to_go or is_of_another,
        is_scheduled=conditions.get("PodScheduled", {}).get("status") == "True",
        running_since=_running_since(status),
        ip=status.get("podIP"),
        restarts=sum(container.get("restartCount", 0) for container in status.get("containerStatuses") or []),
        trouble=pod_trouble(pod, now) if is_told_to_go or not is_of_another else None,
        ready_changed_at=_time(ready.get("lastTransitionTime")),
        created_at=_time(pod["metadata"].get("creationTimestamp")),
        hangs_since=_hangs_since(pod, now),
    )


def _hangs_since(pod: Manifest, now: datetime) -> datetime | None:
    """Return since when a pod that was told to go is kept by its node; None for one that merely drains."""
    ends_at = _time(pod["metadata"].get("deletionTimestamp"))  # with the grace period
    if ends_at is None or node_loss(pod, now) is None:
        return None
    told_at = ends_at - timedelta(seconds=pod["metadata"].get("deletionGracePeriodSeconds") or 0)
    conditions = {condition["type"]: condition for condition in pod.get("status", {}).get("conditions") or []}
    ready = conditions.get("Ready", {})
    silent_at = _time(ready.get("lastTransitionTime")) if ready.get("status") == "False" else None
    return max(told_at, silent_at) if silent_at is not None else told_at


def _running_since(status: Manifest) -> datetime | None:
    for container in status.get("containerStatuses") or []:
        if container.get("name") == names.WORKER_CONTAINER:
            return _time((container.get("state", {}).get("running") or {}).get("startedAt"))
    return None


def _time(said: str | None) -> datetime | None:
    return datetime.fromisoformat(said) if said else None


def _record(item: Manifest) -> Record:
    """Return one record. Of the version before, its data is the spec itself."""
    metadata, data = item["metadata"], item.get("data") or {}
    annotations = metadata.get("annotations") or {}
    replicas, serving = (annotations.get(name, "") for name in (names.REPLICAS_ANNOTATION, names.SERVING_ANNOTATION))
    is_whole = isinstance(data.get("template"), dict) and isinstance(data.get("spec"), dict)
    return Record(
        name=name_of(item),
        number=int(item.get("revision", 0)),
        spec=data["spec"] if is_whole else data,
        revision=(metadata.get("labels") or {}).get(names.REVISION_LABEL, ""),
        replicas=int(replicas) if replicas.isdecimal() else None,
        template=data["template"] if is_whole else None,
        image=str(data.get("image", "")) if is_whole else "",
        is_adopted=names.ADOPTED_ANNOTATION in annotations,
        is_adopting=annotations.get(names.ADOPTED_ANNOTATION) == "true",
        is_proven=names.PROVEN_ANNOTATION in annotations,
        is_guarded=names.GUARDED_ANNOTATION in annotations,
        serving=int(serving) if serving.isdecimal() else None,
        accepted_at=_time(metadata.get("creationTimestamp")),
    )
