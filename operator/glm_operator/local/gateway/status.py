"""What `glm local status` says of gateways."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from glm_operator.local import processes
from glm_operator.local.gateway.process import is_alive, url
from glm_operator.local.management import Management
from glm_operator.local.state import DeploymentState, GatewayRecord


@dataclass(frozen=True)
class GatewayStatus:
    """One gateway. Of one that does not answer the numbers are not known."""

    deployment: str
    gateway: str
    state: str  # serving, unreachable, dead
    url: str
    running: int | None
    held: int | None  # of those: requests that wait for a group
    groups_ready: int | None
    groups: int
    memory_bytes: int
    fault: str  # why it does not go by all of its file; empty: it does

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def gateway_statuses(states: Sequence[DeploymentState]) -> list[GatewayStatus]:
    """Return what each gateway does."""
    with Management() as management:
        return [_status(state, state.gateway, management) for state in states if state.gateway is not None]


def _status(state: DeploymentState, record: GatewayRecord, management: Management) -> GatewayStatus:
    view = management.gateway(record.address) if is_alive(record) else None
    demand = management.demand(record.address) if view is not None else None
    ready = [name for name in state.groups if view is not None and view.knows_ready([name])]
    return GatewayStatus(
        deployment=state.name,
        gateway=record.name,
        state="dead" if not is_alive(record) else "serving" if view is not None else "unreachable",
        url=url(record),
        running=view.running if view is not None else None,
        held=demand.held if demand is not None else None,
        groups_ready=len(ready) if view is not None else None,
        groups=len([group for group in state.groups if group not in state.leaving]),
        memory_bytes=processes.memory_bytes(processes.members(record.token)),
        fault=(view.config_fault or "") if view is not None else "",
    )
