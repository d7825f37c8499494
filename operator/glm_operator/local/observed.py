"""What runs of a deployment, as one look finds it: its groups, its gateway, and what gateways are asked."""

from collections.abc import Iterable
from dataclasses import dataclass

from glm_operator.autoscale.zero.asked import Asked, Gateway
from glm_operator.local import processes
from glm_operator.local.gateway.process import is_alive
from glm_operator.local.gateway.view import StateView
from glm_operator.local.management import Management
from glm_operator.local.pods import index_of
from glm_operator.local.processes import Process
from glm_operator.local.state import DeploymentState, PodRecord
from glm_operator.observe.report import GroupReport


@dataclass
class Group:
    """One group. report: what it says of itself; None: nobody answers."""

    index: int
    pods: list[PodRecord]
    is_alive: bool
    is_ready: bool
    report: GroupReport | None = None

    @property
    def leader(self) -> PodRecord:
        return self.pods[0]

    @property
    def name(self) -> str:
        return self.leader.group


def groups_of(state: DeploymentState, management: Management) -> list[Group]:
    """Return the groups of a deployment, those that go included."""
    found = []
    for name, pods in state.groups.items():
        lives = all(processes.is_alive(Process(pod.pid, pod.start_ticks)) for pod in pods)
        is_ready = lives and management.is_ready(pods[0].address)
        report = management.group(pods[0].address) if lives else None
        found.append(Group(index_of(name), pods, lives, is_ready, report))
    return found


def gateway_of(state: DeploymentState, management: Management) -> StateView | None:
    """Return what the gateway of a deployment says; None where there is none, or it does not answer."""
    record = state.gateway
    return management.gateway(record.address) if record is not None and is_alive(record) else None


def asked(states: Iterable[DeploymentState], name: str, management: Management) -> Asked:
    """Return what gateways are asked of a deployment: its own, and those that serve it as well."""
    found = []
    for state in states:
        record = state.gateway
        if record is None:
            continue
        demand = management.demand(record.address) if is_alive(record) else None
        said = demand.said(name) if demand is not None else None
        if said is not None or state.name == name:
            found.append(Gateway(name=record.name, said=said))
    return Asked(tuple(found))
