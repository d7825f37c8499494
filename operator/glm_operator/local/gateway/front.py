"""What `up` and the controller do for the gateway: its files, and that its process is there."""

import time
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec

from glm_operator.api.gateway import Gateway
from glm_operator.api.spec import GLMDeployment
from glm_operator.local.gateway import process
from glm_operator.local.gateway.file import Folders, fingerprint, gateway_file
from glm_operator.local.gateway.groups import groups_file
from glm_operator.local.gateway.served import served
from glm_operator.local.management import Management
from glm_operator.local.pods import gateway_address
from glm_operator.local.state import DeploymentState, GatewayRecord, StateFolder, write_whole
from glm_operator.local.up import serves
from glm_operator.render.gateway_config import Served

NOTICE_S = 3.0
"""For a gateway to see that a group leaves: six looks at the file."""

POLL_S = 0.05


def bring_up(
    folder: StateFolder,
    state: DeploymentState,
    deployment: GLMDeployment,
    stopping: Callable[[list[GatewayRecord]], None] = lambda _: None,
) -> DeploymentState:
    """Make the gateway as the spec says it, without a cut: one that can take over what is new goes on running.

    Hold the folder's lock. stopping: called while requests of one that is replaced are waited for.
    """
    tell_groups(folder, state)
    if not deployment.spec.front.is_wanted:
        process.stop(folder, state, report=stopping)
        return _written(folder, msgspec.structs.replace(state, gateway=None))
    folder.keys_folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # a gateway that finds none lets nobody in: 503
    told, old = file_of(folder, state, deployment), state.gateway
    record = process.wanted(state, fingerprint(told), drain_s(deployment))
    path = folder.gateway_file(state.name)
    if (
        old is not None
        and process.is_alive(old)
        and (old.address, old.fingerprint) == (record.address, record.fingerprint)
    ):
        write_changed(path, told)
        return _written(
            folder, msgspec.structs.replace(state, gateway=msgspec.structs.replace(old, drain_s=record.drain_s))
        )
    process.stop(folder, state, report=stopping)  # also what is left of one that died
    write_changed(path, told)
    return process.start(folder, state, record)


def file_of(folder: StateFolder, state: DeploymentState, deployment: GLMDeployment) -> bytes:
    """Return what the gateway of a deployment is to be told. LocalError for what cannot be here."""
    folders = Folders(keys=folder.keys_folder, usage=folder.usage_folder(state.name))
    models, _ = models_of(folder, deployment)
    return gateway_file(deployment, gateway_address(state.network), folders, models)


def models_of(folder: StateFolder, deployment: GLMDeployment) -> tuple[list[Served], list[str]]:
    """Return the models behind the gateway of a deployment, and why others that are meant are not."""
    bodies = [state.body for state in folder.deployments() if state.body]
    return served(deployment, bodies, folder.groups_file)


def follow_others(folder: StateFolder, state: DeploymentState, deployment: GLMDeployment) -> None:
    """Tell the gateway which other deployments there are now, if it also serves some."""
    gateway = deployment.spec.gateway
    if gateway is not None and gateway.also_serves is not None:
        write_changed(folder.gateway_file(state.name), file_of(folder, state, deployment))


def drain_s(deployment: GLMDeployment) -> float:
    """Return how long requests of the gateway may take to finish."""
    return float((deployment.spec.gateway or Gateway()).drain_seconds)


def write_groups(folder: StateFolder, state: DeploymentState, ready: Collection[str], leaving: Collection[str]) -> None:
    """Tell gateways which groups there are."""
    leaders = [pods[0] for pods in state.groups.values()]
    told = groups_file(leaders, ready=ready, leaving=leaving, deployment=state.name)
    write_changed(folder.groups_file(state.name), told)


def tell_groups(folder: StateFolder, state: DeploymentState) -> None:
    """Tell gateways which groups there are, and which of them serve now."""
    write_groups(folder, state, _ready(state), state.leaving)


def leave(folder: StateFolder, state: DeploymentState, groups: Collection[str]) -> None:
    """Have gateways send nothing new to these groups; return when all that answer have seen it."""
    records = [each.gateway for each in folder.deployments() if each.gateway is not None]
    addresses = [record.address for record in records if process.is_alive(record)]
    if not addresses:
        return
    deadline = time.monotonic() + NOTICE_S
    write_groups(folder, state, _ready(state), {*state.leaving, *groups})
    with Management() as management:
        while addresses and time.monotonic() < deadline:
            views = {address: management.gateway(address) for address in addresses}
            addresses = [
                address
                for address, view in views.items()
                if view is not None and any(view.sends_to(group) for group in groups)
            ]
            time.sleep(POLL_S if addresses else 0.0)


def _ready(state: DeploymentState) -> set[str]:
    """Return which groups serve."""
    with Management() as management:
        return {group for group, pods in state.groups.items() if serves(pods[0], management)}


def write_changed(path: Path, data: bytes) -> None:
    """Write a file whole, if it is another one: what looks at it need not read the same again."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists() or path.read_bytes() != data:
        write_whole(path, data)


def _written(folder: StateFolder, state: DeploymentState) -> DeploymentState:
    folder.write(state)
    return state
