"""What keeps a pod down, read from its status, in the words of whoever said it. Pure: the time is passed in."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from glm_operator.manifest import Manifest, name_of
from glm_operator.status import Reason

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

CRASH_LOOP_RESTARTS = 2
CRASH_LOOP_WINDOW = timedelta(minutes=10)
"""A container that was restarted this often, is not ready, and was started this recently and this soon after its start
before is crash-looping, also in the seconds it runs again. One that has run for longer, the kubelet takes for healthy, too.
"""

MESSAGE_LENGTH = 1000
"""Of a container's last words this many characters are kept: the end, where the error is."""


@dataclass(frozen=True)
class Trouble:
    """One pod's trouble."""

    reason: Reason
    message: str


def trouble_of(pod: Manifest, now: datetime) -> Trouble | None:
    """Return what keeps this pod from becoming ready by itself, or None while it may."""
    status = pod.get("status", {})
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return Trouble("Unschedulable", f"pod {name_of(pod)}: {condition.get('message', '')}")
    for container in status.get("containerStatuses") or []:
        trouble = _container_trouble(name_of(pod), container, now)
        if trouble is not None:
            return trouble
    return None


def _container_trouble(pod: str, container: Manifest, now: datetime) -> Trouble | None:
    state = container.get("state", {})
    waiting = state.get("waiting") or {}
    said = waiting.get("reason", "")
    reason = _WAITING.get(said)
    if reason == "ImagePullFailed":
        return Trouble(reason, f"pod {pod}: image {container.get('image')}: {said}: {waiting.get('message', '')}")
    if reason == "ContainerConfigError":
        return Trouble(reason, f"pod {pod}: {said}: {waiting.get('message', '')}")
    if reason == "CrashLooping" or _is_looping(container, now):
        ended = state.get("terminated") or container.get("lastState", {}).get("terminated") or {}
        last_words = (ended.get("message") or "").strip()[-MESSAGE_LENGTH:]
        how = f"exit code {ended.get('exitCode', 'unknown')} ({ended.get('reason', 'unknown')})"
        return Trouble("CrashLooping", f"pod {pod} ended {how}" + (f": {last_words}" if last_words else ""))
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
