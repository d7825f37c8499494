"""`glm local status`: what every group of every deployment does now."""

from dataclasses import asdict, dataclass
from typing import Any

from glm_operator import names
from glm_operator.local import processes
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


def group_statuses(states: list[DeploymentState]) -> list[GroupStatus]:
    """Return what each group does. One that was told to go and has gone is no group any more."""
    with Management() as management:
        found = [
            (group in state.leaving, _status(state.name, group, pods, management))
            for state in states
            for group, pods in state.groups.items()
        ]
    return [status for is_leaving, status in found if status.pods_alive or not is_leaving]


def _status(deployment: str, group: str, pods: list[PodRecord], management: Management) -> GroupStatus:
    alive = [pod for pod in pods if processes.is_alive(Process(pod.pid, pod.start_ticks))]
    view = management.group(pods[0].address) if pods[0] in alive else None
    state = view.state if view else "unreachable" if pods[0] in alive else "dead"
    return GroupStatus(
        deployment=deployment,
        group=group,
        state=state,
        generation=(view.generation or "") if view else "",
        pods_alive=len(alive),
        pods=len(pods),
        url=url(pods[0]),
        restarts=view.deaths_while_serving if view else 0,
        memory_bytes=sum(processes.memory_bytes(processes.members(pod.token)) for pod in alive),
        last_failure=view.failure_text if view else "",
    )
