"""The story of a namespace with quotas and limits: what they forbid is told, harms nothing, and mends itself."""

from collections.abc import Iterator
from typing import Any

import pytest

from e2e.deployments import Deployed, nano, wait_for
from e2e.operator_release import Release
from e2e.refusals import FULL_NAMESPACE
from e2e.target import Target


@pytest.fixture
def full_namespace(target: Target) -> Iterator[str]:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    target.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": FULL_NAMESPACE, "labels": labels}})
    target.apply(_quota("count/statefulsets.apps", "0"))
    yield FULL_NAMESPACE
    target.kubectl("delete", "namespace", FULL_NAMESPACE, timeout_s=180)


def test_what_quotas_and_limits_forbid_is_told_and_harms_no_group(release: Release, full_namespace: str) -> None:
    release.target.apply(nano("nano", full_namespace))
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
    deployed.set_max_num_seqs(7)
    wait_for("another pod", lambda: deployed.pod_uids().items() - before.items(), timeout_s=60)
    deployed.wait_settled("1/1")
    deployed.delete()


def _quota(resource: str, limit: str) -> dict[str, Any]:
    return _object("ResourceQuota", "full", {"hard": {resource: limit}})


def _object(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": FULL_NAMESPACE}, "spec": spec}
