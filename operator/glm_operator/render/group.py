"""The StatefulSet of one replica group, and the revision its pods share. Pure."""

from glm_operator import names
from glm_operator.api.spec import GLMDeployment
from glm_operator.layout import Layout
from glm_operator.manifest import Manifest, hash_of, name_of
from glm_operator.render.labels import group_labels
from glm_operator.render.pod import pod_template


def revision_of(deployment: GLMDeployment, layout: Layout) -> str:
    """Return the hash of what would restart a pod: its template, with the names of group and revision left out."""
    return hash_of(pod_template(deployment, layout, group="", revision=""))


def stateful_set(deployment: GLMDeployment, layout: Layout, index: int) -> Manifest:
    """Return one group: all its pods at once, replaced only by us (OnDelete), so that it moves as a whole."""
    group, revision = names.group_name(deployment.name, index), revision_of(deployment, layout)
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {
            "name": group,
            "namespace": deployment.namespace,
            "labels": group_labels(deployment.name, group, revision),
        },
        "spec": {
            "replicas": layout.pods_per_group,
            "serviceName": names.rendezvous_service(deployment.name),
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "OnDelete"},
            "selector": {"matchLabels": {names.DEPLOYMENT_LABEL: deployment.name, names.GROUP_LABEL: group}},
            "template": pod_template(deployment, layout, group, revision),
        },
    }


def trial_pod(deployment: GLMDeployment, layout: Layout, *, owner_uid: str) -> Manifest:
    """Return a pod as the StatefulSet controller would make it, for the API server to judge; never to be made.

    owner_uid: any; it stands for the StatefulSet's, for some policies refuse pods without an owner.
    """
    made = stateful_set(deployment, layout, 0)
    made["metadata"]["uid"] = owner_uid
    pod = missing_pod(made, 0)
    del pod["metadata"]["name"]  # one of that name may run
    pod["metadata"]["generateName"] = f"{name_of(made)}-"
    return pod


def missing_pod(stateful_set: Manifest, index: int) -> Manifest:
    """Return a pod that a live StatefulSet lacks, as its controller would make it, for the API server to judge."""
    metadata, template = stateful_set["metadata"], stateful_set["spec"]["template"]
    group = name_of(stateful_set)
    owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": group, "uid": metadata["uid"], "controller": True}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": names.pod_name(group, index),
            "namespace": metadata["namespace"],
            "labels": {**template["metadata"]["labels"], names.POD_INDEX_LABEL: str(index)},
            "ownerReferences": [owner],
        },
        "spec": template["spec"],
    }
