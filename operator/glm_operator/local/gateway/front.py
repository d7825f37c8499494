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
from glm_operator.local.management import Management
from glm_operator.local.pods import gateway_address
from glm_operator.local.state import DeploymentState, GatewayRecord, StateFolder, write_whole
from glm_operator.local.up import serves

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
    if not deployment.spec.front.is_wanted:
        process.stop(folder, state, report=stopping)
        return _written(folder, msgspec.structs.replace(state, gateway=None))
    folder.keys_folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # a gateway that finds none lets nobody in: 503
    write_groups(folder, state, _ready(state), state.leaving)
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
    groups = {state.name: folder.groups_file(state.name)}
    return gateway_file(deployment, gateway_address(state.network), folders, groups)


def drain_s(deployment: GLMDeployment) -> float:
    """Return how long requests of the gateway may take to finish."""
    return float((deployment.spec.gateway or Gateway()).drain_seconds)


def write_groups(folder: StateFolder, state: DeploymentState, ready: Collection[str], leaving: Collection[str]) -> None:
    """Tell gateways which groups there are."""
    leaders = [pods[0] for pods in state.groups.values()]
    told = groups_file(leaders, ready=ready, leaving=leaving, deployment=state.name)
    write_changed(folder.groups_file(state.name), told)


def leave(folder: StateFolder, state: DeploymentState, groups: Collection[str]) -> None:
    """Have the gateway send nothing new to these groups; return when it has seen it, or does not answer."""
    record = state.gateway
    if record is None or not process.is_alive(record):
        return
    deadline = time.monotonic() + NOTICE_S
    with Management() as management:
        write_groups(folder, state, _ready(state), {*state.leaving, *groups})
        while (view := management.gateway(record.address)) is not None and time.monotonic() < deadline:
            if not any(view.sends_to(group) for group in groups):
                return
            time.sleep(POLL_S)


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
