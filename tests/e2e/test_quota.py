"""The story of a namespace whose quota leaves no room: it is told, and made good by itself once there is room."""

from collections.abc import Iterator

import pytest

from e2e.deployments import Deployed, nano, wait_for
from e2e.operator_release import Release
from e2e.refusals import FULL_NAMESPACE
from e2e.target import Target


@pytest.fixture
def full_namespace(target: Target) -> Iterator[str]:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    target.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": FULL_NAMESPACE, "labels": labels}})
    target.apply(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "full", "namespace": FULL_NAMESPACE},
            "spec": {"hard": {"count/statefulsets.apps": "0"}},
        }
    )
    yield FULL_NAMESPACE
    target.kubectl("delete", "namespace", FULL_NAMESPACE, timeout_s=180)


def test_a_write_that_a_quota_forbids_is_told_and_made_when_there_is_room(
    release: Release, full_namespace: str
) -> None:
    release.target.apply(nano("nano", full_namespace))
    deployed = Deployed(release.target, "nano", full_namespace)

    def is_told() -> bool:
        ready = deployed.condition("Ready")
        return ready["reason"] == "WriteDenied" and "exceeded quota: full" in ready["message"]

    wait_for("WriteDenied in Ready", is_told, timeout_s=60)
    release.target.kubectl("delete", "resourcequota", "full", "-n", full_namespace)
    deployed.wait_ready()
    deployed.delete()
