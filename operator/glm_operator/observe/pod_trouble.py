"""What keeps a pod down, read from its status, in the words of whoever said it. Pure: the time is passed in."""

from datetime import datetime, timedelta

from glm_operator.api.reasons import Reason
from glm_operator.api.trouble import Trouble
from glm_operator.manifest import Manifest, name_of

_WAITING: dict[str, Reason] = {
    "ImagePullBackOff": "ImagePullFailed",
    "ErrImagePull": "ImagePullFailed",
    "ErrImageNeverPull": "ImagePullFailed",
    "InvalidImageName": "ImagePullFailed",
    "CreateContainerConfigError": "ContainerConfigError",
    "CreateContainerError": "ContainerConfigError",
    "RunContainerError": "ContainerConfigError",
    "CrashLoopBackOff": "CrashLooping",
}

NO_PLACE = ("Unschedulable", "SchedulingGated")
"""Reasons of a pod that has no node, and gets none by itself."""

CRASH_LOOP_RESTARTS = 2
CRASH_LOOP_WINDOW = timedelta(minutes=10)
"""A container that was restarted this often, is not ready, and was started this recently and this soon after its start
before is crash-looping, also in the seconds it runs again. One that runs for longer is healthy for the kubelet, too.
"""

OVERDUE = timedelta(minutes=1)
"""After the end of its grace period, a pod is ended and removed within seconds, unless nobody does it."""

MESSAGE_LENGTH = 1000
"""Of a container's last words this many characters are kept: the end, where the error is."""


def pod_trouble(pod: Manifest, now: datetime) -> Trouble | None:
    """Return what keeps this pod from becoming ready by itself, or None while it may.

    Of one that is on its way out, only that it does not get there.
    """
    loss = node_loss(pod, now)
    if loss is not None or "deletionTimestamp" in pod["metadata"]:
        return loss
    status = pod.get("status", {})
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition.get("reason") in NO_PLACE:
            return Trouble(name_of(pod), "Unschedulable", f"pod {name_of(pod)}: {condition.get('message', '')}")
    # We make no init containers; admission webhooks put them into pods, as they do sidecars.
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        trouble = _container_trouble(name_of(pod), container, now)
        if trouble is not None:
            return trouble
    return None


def node_loss(pod: Manifest, now: datetime) -> Trouble | None:
    """Tell of a pod that no kubelet looks after any more; its containers may be running or not."""
    name, node = name_of(pod), pod.get("spec", {}).get("nodeName", "unknown")
    conditions = {condition["type"]: condition for condition in pod.get("status", {}).get("conditions") or []}
    ready, containers = conditions.get("Ready", {}), conditions.get("ContainersReady", {})
    # The kubelet unreadies a pod with a reason: its containers, or a gate. The node controller gives none.
    if ready.get("status") == "False" and not ready.get("reason") and containers.get("status") == "True":
        return Trouble(name, "NodeLost", f"pod {name}: its node {node} does not answer")
    ends_at = pod["metadata"].get("deletionTimestamp")  # with the grace period
    if ends_at is not None and now - datetime.fromisoformat(ends_at) > OVERDUE:
        return Trouble(name, "NodeLost", f"pod {name} on node {node} should have ended by {ends_at} and has not")
    return None


def _container_trouble(pod: str, container: Manifest, now: datetime) -> Trouble | None:
    state = container.get("state", {})
    waiting = state.get("waiting") or {}
    said = waiting.get("reason", "")
    reason = _WAITING.get(said)
    if reason == "ImagePullFailed":
        return Trouble(pod, reason, f"pod {pod}: image {container.get('image')}: {said}: {waiting.get('message', '')}")
    if reason == "ContainerConfigError":
        return Trouble(pod, reason, f"pod {pod}: {said}: {waiting.get('message', '')}")
    if reason == "CrashLooping" or _is_looping(container, now):
        ended = state.get("terminated") or container.get("lastState", {}).get("terminated") or {}
        last_words = (ended.get("message") or "").strip()[-MESSAGE_LENGTH:]
        how = f"exit code {ended.get('exitCode', 'unknown')} ({ended.get('reason', 'unknown')})"
        return Trouble(pod, "CrashLooping", f"pod {pod} ended {how}" + (f": {last_words}" if last_words else ""))
    return None


def _is_looping(container: Manifest, now: datetime) -> bool:
    state = container.get("state", {})
    started_at = _started_at(state.get("running") or state.get("terminated"))
    before = _started_at(container.get("lastState", {}).get("terminated"))
    if container.get("ready") or container.get("restartCount", 0) < CRASH_LOOP_RESTARTS:
        return False
    if started_at is None or before is None:
        return False
    return started_at - before <= CRASH_LOOP_WINDOW and now - started_at <= CRASH_LOOP_WINDOW


def _started_at(run: Manifest | None) -> datetime | None:
    said = (run or {}).get("startedAt")
    return datetime.fromisoformat(said) if said else None
