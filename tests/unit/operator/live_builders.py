"""Builders of live objects, as the API server has them. Every argument has a harmless default."""

from datetime import UTC, datetime, timedelta
from typing import Any

from glm_operator import names

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OURS = [{"controller": True, "kind": "GLMDeployment", "name": "chat", "uid": "uid-1"}]


def a_stateful_set(
    group: str = "chat-g0", *, owners: list[dict[str, Any]] | None = None, **metadata: Any
) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {
            "name": group,
            "labels": {names.GROUP_LABEL: group},
            "ownerReferences": OURS if owners is None else owners,
            **metadata,
        },
        "spec": {"replicas": 1, "template": {"metadata": {"labels": {names.REVISION_LABEL: "r1"}}}},
    }


def a_live_pod(group: str = "chat-g0", index: int = 0, *, ready: str = "True", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": f"{group}-{index}",
            "uid": "uid-pod",
            "labels": {names.GROUP_LABEL: group, names.REVISION_LABEL: "r1", names.POD_INDEX_LABEL: str(index)},
        },
        "status": {
            "podIP": "10.0.0.1",
            "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": ready}],
            **status,
        },
    }


def waiting(reason: str, message: str = "", **container: Any) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return a_live_pod(ready="False", containerStatuses=[{"image": "worker:1", "state": state, **container}])


def lost_pod(*, ready_reason: str | None = None, containers: str = "True", **metadata: Any) -> dict[str, Any]:
    """Return a pod as the node controller leaves one of a node that it no longer hears of."""
    ready = {"type": "Ready", "status": "False"} | ({"reason": ready_reason} if ready_reason else {})
    pod = a_live_pod(conditions=[ready, {"type": "ContainersReady", "status": containers}])
    return {**pod, "metadata": {**pod["metadata"], **metadata}, "spec": {"nodeName": "n1"}}


def ending(*, since: timedelta) -> dict[str, Any]:
    """Return a pod whose grace period ended that long ago."""
    pod = waiting("CrashLoopBackOff", restartCount=3)
    pod["metadata"]["deletionTimestamp"] = (NOW - since).isoformat()
    return {**pod, "spec": {"nodeName": "n1"}}
