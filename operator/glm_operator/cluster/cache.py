"""What the watches brought: every object of every deployment, as last seen. No I/O.

Writes of our own go in at once, so that a pass never acts on what it has just changed itself. An older version of an
object than the one at hand is passed over, and so is one that we have deleted. One that only left a watch, as it lost
the label that is watched for, comes back with a later version.
"""

import logging
import math
from collections.abc import Iterable
from datetime import datetime

from glm_operator import names
from glm_operator.manifest import Manifest, name_of
from glm_operator.observe.observed import Observed, Seen, observe

logger = logging.getLogger(__name__)

Name = tuple[str, str]  # namespace, name
_Place = tuple[str, str, str]  # kind, namespace, name

OWNED_KINDS = (
    "StatefulSet",
    "Pod",
    "Service",
    "ServiceAccount",
    "ControllerRevision",
    "Deployment",
    "ConfigMap",
    "Role",
    "RoleBinding",
    "PodDisruptionBudget",
    "NetworkPolicy",
)


KINDS = (names.KIND, *OWNED_KINDS)


class Cache:
    """Objects by deployment, and which lists are complete."""

    def __init__(self) -> None:
        self._bodies: dict[Name, Manifest] = {}
        self._objects: dict[Name, dict[_Place, Manifest]] = {}  # by deployment
        self._removed: dict[str, float] = {}  # uids of what is gone, and the version up to which nothing counts of it
        self._listed: set[tuple[str, str | None]] = set()  # kind and namespace, None: all of them

    def seen(self, namespace: str, name: str, now: datetime) -> Seen | None:
        """Return a deployment as the watches know it; None if they may not know all of it yet."""
        body = self._bodies.get((namespace, name))
        if body is None or not self.is_complete(namespace):
            return None
        return Seen(body, self._observed(body, now))

    def is_complete(self, namespace: str) -> bool:
        """Whether every kind of this namespace was listed once."""
        return all((kind, namespace) in self._listed or (kind, None) in self._listed for kind in KINDS)

    def deployments(self) -> list[Name]:
        """Return every deployment that is known."""
        return [*self._bodies]

    def bodies(self) -> list[Manifest]:
        """Return every deployment that is known, as it was last seen."""
        return [*self._bodies.values()]

    def body(self, namespace: str, name: str) -> Manifest | None:
        """Return a deployment as it was last seen."""
        return self._bodies.get((namespace, name))

    def pods(self, namespace: str, name: str) -> list[Manifest]:
        """Return the pods with a deployment's label, those of its gateway included, as they were last seen."""
        return [item for item in self._objects.get((namespace, name), {}).values() if item["kind"] == "Pod"]

    def all_seen(self, now: datetime) -> list[Seen]:
        """Return every deployment with what exists of it; one that cannot be read is logged, and harms no other."""
        found = []
        for (namespace, name), body in self._bodies.items():
            try:
                found.append(Seen(body, self._observed(body, now)))
            except Exception:  # whatever somebody wrote into an object of one deployment
                logger.exception("%s/%s cannot be read", namespace, name)
        return found

    def _observed(self, body: Manifest, now: datetime) -> Observed:
        metadata = body["metadata"]
        objects = self._objects.get((metadata["namespace"], metadata["name"]), {}).values()
        pods = [item for item in objects if item["kind"] == "Pod"]
        others = [item for item in objects if item["kind"] != "Pod"]
        return observe(metadata["name"], metadata["uid"], others, pods, now)

    def put(self, item: Manifest) -> Name | None:
        """Keep an object as it is now; return the deployment that it belongs to, None if that is old news."""
        if _version(item) <= self._removed.get(item["metadata"].get("uid", ""), -1):
            return None
        if item["kind"] == names.KIND:
            return self._put_body(item)
        deployment = _deployment_of(item)
        if deployment is None:
            return self._without_label(item)
        kept = self._objects.setdefault(deployment, {})
        place = _place(item)
        if place in kept and _version(item) < _version(kept[place]):
            return None
        kept[place] = _kept_of(item)
        return deployment

    def _without_label(self, item: Manifest) -> Name | None:
        """Forget an object that belongs to no deployment; return the one to which it did before it lost its label."""
        place, uid = _place(item), item["metadata"].get("uid")
        for deployment, kept in self._objects.items():
            if place in kept and kept[place]["metadata"].get("uid") == uid:
                del kept[place]
                return deployment
        return None

    def _put_body(self, body: Manifest) -> Name | None:
        """Keep a deployment. What our own write of its status made of it is no news when the watch brings it."""
        name = _name(body)
        if name in self._bodies and _version(body) <= _version(self._bodies[name]):
            return None
        self._bodies[name] = body
        return name

    def forget(self, name: Name) -> None:
        """Forget a deployment that is gone, though no event told of it."""
        self._bodies.pop(name, None)

    def drop(self, item: Manifest) -> Name | None:
        """Forget an object that is gone, or watched no more; return the deployment that it belonged to."""
        uid = item["metadata"].get("uid", "")
        self._bury(uid, _version(item))
        if item["kind"] == names.KIND:
            name = _name(item)
            if self._bodies.get(name, item)["metadata"].get("uid") == uid:
                self._bodies.pop(name, None)
            return name
        deployment = _deployment_of(item)
        kept = self._objects.get(deployment, {}) if deployment is not None else {}
        live = kept.get(_place(item))
        if live is not None and live["metadata"].get("uid") == uid:
            del kept[_place(item)]
        if deployment is not None and not kept:
            self._objects.pop(deployment, None)
        return deployment

    def _bury(self, uid: str, version: float) -> None:
        """Note that nothing up to a version comes back: an answer to our delete may arrive after the watch's word."""
        self._removed[uid] = max(version, self._removed.get(uid, -1))
        while len(self._removed) > MAX_REMOVED:
            del self._removed[next(iter(self._removed))]

    def remove(self, kind: str, namespace: str, name: str, uid: str) -> None:
        """Forget an object that we have deleted, whatever the watches still say of it."""
        for kept in self._objects.values():
            live = kept.get((kind, namespace, name))
            if live is not None and live["metadata"].get("uid") == uid:
                del kept[kind, namespace, name]
        self._bury(uid, math.inf)

    def unlist(self, kind: str, namespace: str | None) -> None:
        """Note that a kind's watch is down: what is known of it may be long over, so passes read what is live."""
        self._listed.discard((kind, namespace))

    def replace(self, kind: str, namespace: str | None, items: Iterable[Manifest]) -> set[Name]:
        """Keep exactly these objects of a kind and namespace (None: all); return the deployments that changed.

        What vanished while no watch ran is found so: no event told of it.
        """
        if kind == names.KIND:
            return self._replace_bodies(namespace, items)
        fresh = {_place(item): item for item in items}
        changed = {deployment for item in fresh.values() if (deployment := self._put_if_other(item)) is not None}
        for deployment, kept in list(self._objects.items()):
            gone = [
                place for place in kept if place[0] == kind and namespace in (None, place[1]) and place not in fresh
            ]
            for place in gone:
                del kept[place]
                changed.add(deployment)
        self._listed.add((kind, namespace))
        return changed

    def _replace_bodies(self, namespace: str | None, bodies: Iterable[Manifest]) -> set[Name]:
        """Keep exactly these deployments of a namespace; return those that are new, other than before, or gone."""
        found = {_name(body): body for body in bodies}
        gone = {name for name in self._bodies if namespace in (None, name[0]) and name not in found}
        for name in gone:
            del self._bodies[name]
        self._listed.add((names.KIND, namespace))
        return gone | {name for name, body in found.items() if self._put_body(body) is not None}

    def clear(self, kind: str, namespace: str | None) -> set[Name]:
        """Forget all of a kind and namespace; return whose it was.

        For when storage was put back to an earlier state, and what follows is older.
        """
        changed = set()
        if kind == names.KIND:
            changed = {name for name in self._bodies if namespace in (None, name[0])}
            self._bodies = {name: body for name, body in self._bodies.items() if name not in changed}
        for deployment, kept in self._objects.items():
            for place in [place for place in kept if place[0] == kind and namespace in (None, place[1])]:
                del kept[place]
                changed.add(deployment)
        return changed

    def _put_if_other(self, item: Manifest) -> Name | None:
        deployment = _deployment_of(item)
        kept = self._objects.get(deployment, {}).get(_place(item)) if deployment is not None else None
        is_same = kept is not None and kept["metadata"].get("resourceVersion") == item["metadata"].get(
            "resourceVersion"
        )
        return None if is_same else self.put(item)


MAX_REMOVED = 10_000


def _kept_of(item: Manifest) -> Manifest:
    """Return what is kept of an object. Who manages which field is half of a pod, and read of StatefulSets alone."""
    if item["kind"] == "StatefulSet" or "managedFields" not in item["metadata"]:
        return item
    metadata = {key: value for key, value in item["metadata"].items() if key != "managedFields"}
    return {**item, "metadata": metadata}


def _name(item: Manifest) -> Name:
    return item["metadata"]["namespace"], name_of(item)


def _place(item: Manifest) -> _Place:
    return item["kind"], item["metadata"]["namespace"], name_of(item)


def _deployment_of(item: Manifest) -> Name | None:
    name = (item["metadata"].get("labels") or {}).get(names.DEPLOYMENT_LABEL)
    return (item["metadata"]["namespace"], name) if name else None


def _version(item: Manifest) -> int:
    """Return what orders two versions of one object; the API server promises that they can be compared so."""
    text = item["metadata"].get("resourceVersion") or "0"
    return int(text) if text.isdigit() else 0
