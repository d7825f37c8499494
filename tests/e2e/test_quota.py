"""The story of a namespace with quotas and limits: what they forbid is told, harms nothing, and mends itself."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.deployments import Deployed, nano, wait_for
from e2e.operator_release import Release
from e2e.refusals import FULL_NAMESPACE
from e2e.target import Target
from glm_cluster.errors import CommandFailed


@pytest.fixture
def full_namespace(target: Target) -> Iterator[str]:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    target.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": FULL_NAMESPACE, "labels": labels}})
    target.apply(_quota("count/statefulsets.apps", "0"))
    _wait_denied(target, _stateful_set(), "exceeded quota: full")
    yield FULL_NAMESPACE
    target.kubectl("delete", "namespace", FULL_NAMESPACE, timeout_s=180)


@pytest.mark.long
def test_what_quotas_and_limits_forbid_is_told_and_harms_no_group(release: Release, full_namespace: str) -> None:
    manifest = nano("nano", full_namespace)
    manifest["spec"]["gateway"] = {"enabled": False}  # a pod more, that the quotas do not count on
    release.target.apply(manifest)
    deployed = Deployed(release.target, "nano", full_namespace)

    def is_told() -> bool:
        ready = deployed.condition("Ready")
        return ready["reason"] == "WriteDenied" and "exceeded quota: full" in ready["message"]

    wait_for("WriteDenied in Ready", is_told, timeout_s=60)
    release.target.kubectl("delete", "resourcequota", "full", "-n", full_namespace)
    deployed.wait_ready()

    # Policies of pods alone: a StatefulSet is taken whatever they say.
    before = deployed.pod_uids()
    limits = {"type": "Container", "max": {"memory": "4Gi"}}
    release.target.apply(_object("LimitRange", "small", {"limits": [limits]}))
    _wait_denied(release.target, _pod(), "maximum memory usage per Container is 4Gi")
    deployed.patch(hardware={"resources": {"limits": {"memory": "8Gi"}}})

    def is_refused() -> bool:
        planned = deployed.condition("Planned")
        return planned["reason"] == "WriteDenied" and "maximum memory usage per Container is 4Gi" in planned["message"]

    wait_for("Planned=False", is_refused, timeout_s=60)
    assert deployed.condition("Ready")["reason"] == "EditRefused"
    assert deployed.pod_uids() == before
    deployed.patch(hardware={"resources": None})

    # A quota full of the pods that the edit replaces.
    release.target.apply(_quota("pods", "1"))
    _wait_denied(release.target, _pod(memory="1Gi"), "exceeded quota: full")
    deployed.set_max_num_seqs(7)
    wait_for("another pod", lambda: deployed.pod_uids().items() - before.items(), timeout_s=60)
    deployed.wait_settled("1/1")

    # A group that no longer fits: scaling is no new spec, so only its missing pod can tell.
    serving = deployed.pod_uids()
    deployed.scale(2)

    def is_missing() -> bool:
        ready, degraded = deployed.condition("Ready"), deployed.condition("Degraded")
        told = "1/2 groups are ready; nano-g1: " in ready["message"] and "exceeded quota: full" in ready["message"]
        return told and ready["reason"] == degraded["reason"] == "WriteDenied" and degraded["status"] == "True"

    wait_for("WriteDenied of the second group", is_missing, timeout_s=60)
    assert deployed.pod_uids() == serving
    release.target.kubectl("delete", "resourcequota", "full", "-n", full_namespace)
    deployed.wait_settled("2/2")
    assert serving.items() <= deployed.pod_uids().items()
    deployed.delete()


def _wait_denied(target: Target, manifest: dict[str, Any], why: str) -> None:
    """Wait until the API server enforces a policy that was made just now: its admission plugins learn of it later."""

    def is_denied() -> bool:
        try:
            target.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(manifest))
        except CommandFailed as error:
            return why in str(error)
        return False

    wait_for(f"'{why}' for a {manifest['kind']}", is_denied, timeout_s=60)


def _quota(resource: str, limit: str) -> dict[str, Any]:
    return _object("ResourceQuota", "full", {"hard": {resource: limit}})


def _object(kind: str, name: str, spec: dict[str, Any], version: str = "v1") -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": FULL_NAMESPACE}, "spec": spec}


def _pod(memory: str = "8Gi") -> dict[str, Any]:
    """Return a pod that breaks nothing but the story's policies."""
    container = {
        "name": "probe",
        "image": "probe",
        "resources": {"limits": {"memory": memory}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    secured = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    return _object("Pod", "probe", {"containers": [container], "securityContext": secured})


def _stateful_set() -> dict[str, Any]:
    labels = {"probe": "yes"}
    template = {"metadata": {"labels": labels}, "spec": _pod()["spec"]}
    spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}
    return _object("StatefulSet", "probe", spec, version="apps/v1")
