"""`glm local status`: what every group of every deployment does now."""

import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from typing import Any

from glm_operator import names
from glm_operator.local import processes
from glm_operator.local.crashes import Crash
from glm_operator.local.management import Management
from glm_operator.local.processes import Process
from glm_operator.local.state import DeploymentState, PodRecord


@dataclass(frozen=True)
class GroupStatus:
    deployment: str
    group: str
    state: str  # the worker's word, or: dead, unreachable
    generation: str
    pods_alive: int
    pods: int
    url: str
    restarts: int  # generations lost while serving
    memory_bytes: int
    last_failure: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def url(leader: PodRecord) -> str:
    """Base URL of the OpenAI-compatible API of a group."""
    return f"http://{leader.address}:{names.HTTP_PORT}/v1"


def group_statuses(states: list[DeploymentState], now: Callable[[], float] = time.time) -> list[GroupStatus]:
    """Return what each group does. One that was told to go and has gone is no group any more."""
    with Management() as management:
        found = [
            (group in state.leaving, _status(state, group, pods, management, now()))
            for state in states
            for group, pods in state.groups.items()
        ]
    return [status for is_leaving, status in found if status.pods_alive or not is_leaving]


def _status(
    known: DeploymentState, group: str, pods: list[PodRecord], management: Management, now_s: float
) -> GroupStatus:
    alive = [pod for pod in pods if processes.is_alive(Process(pod.pid, pod.start_ticks))]
    view = management.group(pods[0].address) if pods[0] in alive else None
    state = view.state if view else "unreachable" if pods[0] in alive else "dead"
    crashes = [crash for crash in known.crashes if crash.pod in {pod.name for pod in pods}]
    failures = [_crashed(crash, {pod.name for pod in alive}, now_s) for crash in crashes]
    return GroupStatus(
        deployment=known.name,
        group=group,
        state=state,
        generation=(view.generation or "") if view else "",
        pods_alive=len(alive),
        pods=len(pods),
        url=url(pods[0]),
        restarts=view.deaths_while_serving if view else 0,
        memory_bytes=sum(processes.memory_bytes(processes.members(pod.token)) for pod in alive),
        last_failure="; ".join([*failures, *([view.failure_text] if view and view.failure_text else [])]),
    )


def _crashed(crash: Crash, alive: Collection[str], now_s: float) -> str:
    """Return what became of a pod that ended by itself."""
    times = "once" if crash.count == 1 else f"{crash.count} times in a row"
    left_s = crash.again_at - now_s
    if crash.pod in alive:
        now = "it runs again"
    elif left_s >= 1.0:
        now = f"it is started again in {left_s:.0f} s"
    else:
        now = "it is started again now"
    return f"pod {crash.pod} ended by itself {times}; {now}; see `glm local logs {crash.pod}`"
