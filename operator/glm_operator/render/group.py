"""The StatefulSet of one replica group, and the template that all groups of a revision are made from. Pure.

A template is a StatefulSet without its name: where the group and the revision stand in one, it has the placeholders
GROUP and REVISION. It is what a record keeps: groups come back from it whatever this version would render today.
"""

from collections.abc import Mapping

from glm_operator import names
from glm_operator.api.spec import GLMDeployment
from glm_operator.layout import Layout
from glm_operator.manifest import Manifest, hash_of, name_of
from glm_operator.observe.observed import IMMUTABLE_FIELDS
from glm_operator.render.labels import group_labels
from glm_operator.render.pod import pod_template

GROUP = "<group>"
REVISION = "<revision>"
"""Placeholders in a template. No field of a spec can hold one: none allows < or >."""


def group_template(deployment: GLMDeployment, layout: Layout, *, has_tls: bool = False) -> Manifest:
    """Return what all groups of a spec are made from: all pods at once, replaced only by us (OnDelete).

    has_tls: as for pod_template.
    """
    return {
        "labels": group_labels(deployment.name, GROUP, REVISION),
        "spec": {
            "replicas": layout.pods_per_group,
            "serviceName": names.rendezvous_service(deployment.name),
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "OnDelete"},
            "selector": {"matchLabels": {names.DEPLOYMENT_LABEL: deployment.name, names.GROUP_LABEL: GROUP}},
            "template": pod_template(deployment, layout, GROUP, REVISION, has_tls=has_tls),
        },
    }


def template_of(live: Manifest) -> Manifest:
    """Return the template that a live StatefulSet was made from, for a record that does not have it."""
    group = name_of(live)
    revision = live["spec"]["template"]["metadata"]["labels"].get(names.REVISION_LABEL, "")
    wanted = {
        key: live["spec"][key] for key in ("replicas", "updateStrategy", *IMMUTABLE_FIELDS) if key in live["spec"]
    }
    template = live["spec"]["template"]
    metadata = {key: value for key, value in template["metadata"].items() if value is not None}
    found = {
        "labels": dict(live["metadata"].get("labels") or {}),
        "spec": {**wanted, "template": {**template, "metadata": metadata}},
    }
    whole = {group: GROUP, **({revision: REVISION} if revision else {})}
    return _replaced(found, whole, f"{names.pod_name(group, 0)}.", f"{GROUP}-0.")


def revision_of(template: Manifest) -> str:
    """Return the name of a template: the hash of all that would restart a pod or make a StatefulSet anew."""
    return hash_of(template)


def stateful_set(
    template: Manifest, namespace: str, group: str, revision: str, annotations: Mapping[str, str] | None = None
) -> Manifest:
    """Return one group of a revision."""
    made = _replaced(template, {GROUP: group, REVISION: revision}, f"{GROUP}-0.", f"{names.pod_name(group, 0)}.")
    metadata: Manifest = {"name": group, "namespace": namespace, "labels": made["labels"]}
    if annotations:
        metadata["annotations"] = dict(annotations)
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata, "spec": made["spec"]}


def needs_another(wanted: Manifest, live: Manifest) -> bool:
    """Tell whether no update can make the live StatefulSet like the wanted one: a field differs that is immutable."""
    return any(key in wanted["spec"] and live["spec"].get(key) != wanted["spec"][key] for key in IMMUTABLE_FIELDS)


def trial_pod(template: Manifest, namespace: str, group: str, revision: str, *, owner_uid: str) -> Manifest:
    """Return a pod as the StatefulSet controller would make it, for the API server to judge; never to be made.

    owner_uid: any; it stands for the StatefulSet's, for some policies refuse pods without an owner.
    """
    made = stateful_set(template, namespace, group, revision)
    made["metadata"]["uid"] = owner_uid
    pod = missing_pod(made, 0)
    del pod["metadata"]["name"]  # one of that name may run
    pod["metadata"]["generateName"] = f"{name_of(made)}-"
    return pod


def missing_pod(stateful_set: Manifest, index: int) -> Manifest:
    """Return a pod that a live StatefulSet lacks, as its controller would make it, for the API server to judge."""
    metadata, template = stateful_set["metadata"], stateful_set["spec"]["template"]
    group, annotations = name_of(stateful_set), template["metadata"].get("annotations")
    owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": group, "uid": metadata["uid"], "controller": True}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": names.pod_name(group, index),
            "namespace": metadata["namespace"],
            "labels": {**template["metadata"]["labels"], names.POD_INDEX_LABEL: str(index)},
            **({"annotations": annotations} if annotations else {}),
            "ownerReferences": [owner],
        },
        "spec": template["spec"],
    }


def _replaced(value: Manifest, whole: Mapping[str, str], start: str, new_start: str) -> Manifest:
    """Return a copy with texts replaced: those equal to a key of whole, and the start of the leader's host name."""

    def replaced(part: object) -> object:
        if isinstance(part, dict):
            return {key: replaced(item) for key, item in part.items()}
        if isinstance(part, list):
            return [replaced(item) for item in part]
        if isinstance(part, str):
            if part in whole:
                return whole[part]
            return new_start + part.removeprefix(start) if part.startswith(start) else part
        return part

    result = replaced(value)
    assert isinstance(result, dict)
    return result
